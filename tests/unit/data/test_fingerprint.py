"""Whether images are those that a run began with: what is noticed, what is asked, what is not."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from res2net.data import fingerprint
from res2net.data.fingerprint import compare, digest_all, rows, take
from res2net.data.sharding.writer import write_shards
from res2net.data.sources import folder, shards
from res2net.data.sources.folder import FolderSource, open_folder
from res2net.data.sources.in_memory import ArraySource
from res2net.data.sources.source import Source
from res2net.errors import InputError
from sharding import make

FILES = ("ant/0.jpg", "ant/1.jpg", "ant/2.jpg", "bee/0.jpg", "bee/1.jpg")


class Asked:
    """Counts what is asked of the disk: `stat` calls of images, and files that are read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stats = self.reads = 0
        stat, content = os.stat, fingerprint._content

        class CountingOS:
            path, fsencode, fsdecode = os.path, os.fsencode, os.fsdecode

            @staticmethod
            def stat(path: Any) -> os.stat_result:
                self.stats += 1
                return stat(path)

        def read(*arguments: Any) -> int:
            self.reads += 1
            return content(*arguments)

        monkeypatch.setattr(folder, "os", CountingOS)
        monkeypatch.setattr(shards, "os", CountingOS)
        monkeypatch.setattr(fingerprint, "_content", read)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make(tmp_path / "images", {"ant": 3, "bee": 2})


def images(root: Path) -> Source:
    return open_folder(str(root))


def refusal(source: Source, stored: Any, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        compare(source, stored, "training", **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def through_a_file(record: Any, path: Path) -> Any:
    torch.save(record, path / "record")
    return torch.load(path / "record", weights_only=True)


def same_size(path: Path) -> None:
    """Other content of the same number of bytes."""
    content = bytearray(path.read_bytes())
    content[-10] ^= 255
    path.write_bytes(content)


def test_what_did_not_change_is_asked_for_and_not_read(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(monkeypatch)
    record = through_a_file(take(images(root)), tmp_path)
    assert (asked.stats, asked.reads) == (5, 5)
    again, said = compare(images(root), record, "training")
    assert said == ""
    assert (asked.stats, asked.reads) == (10, 5)
    assert again.keys() == record.keys()
    assert all(torch.equal(again[k], v) for k, v in record.items() if isinstance(v, torch.Tensor))
    # also where the whole tree lies elsewhere
    root.rename(tmp_path / "moved")
    assert compare(images(tmp_path / "moved"), record, "training")[1] == ""
    assert asked.reads == 5


@pytest.mark.parametrize("copy_file", [shutil.copyfile, shutil.copy2, os.link])
def test_a_copy_is_told_from_other_images_by_content(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copy_file: Callable[..., Any]
) -> None:
    """Without times, with them, and by second names of the same files."""
    record = take(images(root))
    copy = tmp_path / "copy"
    shutil.copytree(root, copy, copy_function=copy_file)
    asked = Asked(monkeypatch)
    after, said = compare(images(copy), record, "training")
    assert said.startswith("training images were copied or touched since the run began (5 of 5 ")
    assert asked.reads == 5
    assert compare(images(copy), after, "training")[1] == ""  # it is not asked twice
    assert asked.reads == 5
    (copy / "bee/0.jpg").chmod(0o600)
    assert "(1 of 5 " in compare(images(copy), after, "training")[1]
    assert asked.reads == 6  # that one alone


def remove(root: Path) -> None:
    (root / "ant/2.jpg").unlink()


def add(root: Path) -> None:
    shutil.copy(root / "ant/0.jpg", root / "ant/3.jpg")


def rename(root: Path) -> None:
    (root / "ant/1.jpg").rename(root / "ant/10.jpg")


def move(root: Path) -> None:
    (root / "ant/2.jpg").rename(root / "bee/2.jpg")


def name_a_class(root: Path) -> None:
    (root / "bee").rename(root / "cow")


def replace(root: Path) -> None:
    path, status = root / "bee/0.jpg", (root / "bee/0.jpg").stat()
    path.write_bytes((root / "ant/0.jpg").read_bytes() + b"\0")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace_same_size(root: Path) -> None:
    """As old as they were, too."""
    for path in (root / "ant/1.jpg", root / "bee/1.jpg"):
        status = path.stat()
        same_size(path)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def swap(root: Path) -> None:
    (root / "ant/0.jpg").rename(root / "aside")
    (root / "bee/0.jpg").rename(root / "ant/0.jpg")
    (root / "aside").rename(root / "bee/0.jpg")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (remove, "now 4 images, then 5"),
        (add, "now 6 images, then 5"),
        (rename, "ant/10.jpg has another name or class"),
        (move, "bee/0.jpg (and 2 more of 5) has another name or class"),
        (name_a_class, "their classes have other names"),
        (replace, "bee/0.jpg has another size"),
        (swap, "ant/0.jpg (and 1 more of 5) has another size"),
        (replace_same_size, "ant/1.jpg (and 1 more of 5) has another content"),
    ],
)
def test_other_images_are_refused(root: Path, change: Callable[[Path], None], said: str) -> None:
    record = take(images(root))
    change(root)
    message = refusal(images(root), record)
    assert message.startswith("the training images have changed since the run began: ")
    assert f"{said}; what comes would be another experiment: restore them, or start an" in message


def test_a_file_that_is_gone_meanwhile_is_named(root: Path) -> None:
    source = images(root)
    record = take(source)
    (root / "ant/1.jpg").unlink()
    for refused in (lambda: take(source), lambda: compare(source, record, "training")):
        with pytest.raises(InputError, match=r"ant/1.jpg: cannot be read \(No such file"):
            refused()


def test_of_many_files_some_are_on_record(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And parts of several images: told are the first and the last of a part."""
    monkeypatch.setattr(fingerprint, "PARTS", 2)
    monkeypatch.setattr(fingerprint, "ALL_FILES", 4)
    monkeypatch.setattr(fingerprint, "SOME", 1)
    asked = Asked(monkeypatch)
    source = images(root)
    record = through_a_file(take(source), tmp_path)
    assert (asked.stats, asked.reads) == (5, 2)
    assert len(record["sizes"]) == len(record["contents"]) == 2
    recorded = {
        int(index)
        for number, part in enumerate(fingerprint._parts(5))
        for index in fingerprint._on_record(part, number, False)
    }
    for index, name in enumerate(FILES):
        before = (root / name).read_bytes()
        same_size(root / name)
        if index in recorded:
            message = refusal(source, record)
            assert "one or more of the " in message and "has another content" in message
        else:  # as README says
            assert "on record" in compare(source, record, "training")[1]
        (root / name).write_bytes(before)
    for name in FILES:
        same_size(root / name)
    assert "and in 1 more of 2 such parts, has another content" in refusal(source, record)
    # and where all are small enough, all are
    monkeypatch.setattr(fingerprint, "ALL_FILES", 5)
    assert take(source)["everything"]
    monkeypatch.setattr(fingerprint, "ALL_BYTES", 100)
    assert not take(source)["everything"]


def test_of_large_files_the_ends_are_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "MOST", 40)
    path = root / "ant/0.jpg"
    record = take(images(root))
    for place, noticed in ((5, True), (-5, True), (len(path.read_bytes()) // 2, False)):
        content = path.read_bytes()
        changed = bytearray(content)
        changed[place] ^= 255
        path.write_bytes(changed)
        if noticed:
            assert "ant/0.jpg has another content" in refusal(images(root), record)
        else:
            compare(images(root), record, "training")
        path.write_bytes(content)


def test_what_could_not_be_decoded_may_be_mended(root: Path) -> None:
    good = (root / "ant/1.jpg").read_bytes()
    (root / "ant/1.jpg").write_bytes(good[:50])
    record = take(images(root))
    met = rows(images(root), [1])
    assert list(met) == [1] and met[1][0] == 50
    (root / "ant/1.jpg").write_bytes(good)
    assert "ant/1.jpg has another size" in refusal(images(root), record)
    mended, said = compare(images(root), record, "training", mended=met)
    assert said == ""
    assert compare(images(root), mended, "training", mended=met)[1] == ""  # what it was is past
    (root / "ant/1.jpg").write_bytes(good[:60])
    assert "ant/1.jpg has another size" in refusal(images(root), mended, mended=met)
    (root / "ant/1.jpg").write_bytes(good)
    (root / "ant/2.jpg").write_bytes(good)
    assert "ant/2.jpg has another size" in refusal(images(root), record, mended=met)


def test_shards(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "shards"
    write_shards(str(root), str(target), shard_bytes=3_000)

    def source() -> Source:
        return shards.open_shard_split(str(target), "train")

    tars = sorted(target.glob("*.tar"))
    assert len(tars) > 1
    record = through_a_file(take(source()), tmp_path)
    asked = Asked(monkeypatch)
    assert compare(source(), record, "training")[1] == ""
    assert asked.reads == 0
    os.utime(tars[0])
    assert "training images were copied or touched" in compare(source(), record, "training")[1]
    assert 0 < asked.reads < 5
    first = source()
    place = int(first._records[0]["offset"])  # type: ignore[attr-defined]
    content = bytearray(tars[0].read_bytes())
    content[place + 200] ^= 255
    tars[0].write_bytes(content)
    message = refusal(source(), record)
    assert f"{tars[0]}/" in message and message.count("has another content") == 1
    # of the same images in another order the index differs
    shutil.rmtree(target)
    (root / "ant/1.jpg").rename(root / "ant/3.jpg")
    write_shards(str(root), str(target), shard_bytes=3_000)
    assert "another name or class" in refusal(source(), record)


def test_images_in_memory_are_compared_pixel_by_pixel(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3000, 8, 8, 3), dtype=np.uint8)
    source = ArraySource("numbers/train", ("a", "b"), np.arange(3000) % 2, pixels)
    record = through_a_file(take(source), tmp_path)
    assert compare(source, record, "training")[1] == ""
    for index in (0, 1500, 2999):
        pixels[index, 4, 4, 1] ^= 1
        assert "has another content" in refusal(source, record)
        pixels[index, 4, 4, 1] ^= 1
    source.labels[7] = 0
    assert "has another name or class" in refusal(source, record)


def test_a_million_images_take_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "_content", lambda *_: 0)
    monkeypatch.setattr(
        FolderSource, "states", lambda self, part: np.ones((len(part), 2), dtype=np.int64)
    )
    names = [f"n{number:08}" for number in range(1000)]
    paths = [f"{number}.JPEG" for number in range(1281)]
    source = FolderSource.of_files("nowhere", names, dict.fromkeys(names, paths))
    record = take(source)
    through_a_file(record, tmp_path)
    assert (tmp_path / "record").stat().st_size < 50_000
    assert not record["everything"]


def test_ranks_compare_names_and_classes(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(root, other)
    assert digest_all(images(root)) == digest_all(images(other))
    move(other)
    assert digest_all(images(root)) != digest_all(images(other))
