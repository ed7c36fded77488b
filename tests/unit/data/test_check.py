"""`data check` on files of every kind of damage; training's decoder is asked what is broken."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline
from PIL import Image

from broken_files import BROKEN, JPEG, ODD, PHOTO, WHOLE, folder
from res2net.data.checking.folder import find_strays, open_for_check
from res2net.data.checking.image import MAX_PIXELS
from res2net.data.checking.report import Row, lists, rows
from res2net.data.checking.run import Findings, Split, check
from res2net.errors import InputError
from samples import encoded, photo

FILES = {
    **{name: content for name, (content, _) in BROKEN.items()},
    **{name: content for name, (content, _) in ODD.items()},
    **WHOLE,
}


@dataclass
class Files:
    """A source of encoded images in memory, as shards are."""

    files: list[bytes]
    names: list[str]
    labels: np.ndarray
    class_names: tuple[str, ...] = ("ant", "bee")
    holds: ClassVar[str] = "files"
    asked: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        return self.names[index]

    def read(self, indices: np.ndarray) -> Sequence[np.ndarray]:
        self.asked += [int(index) for index in indices]
        return [np.frombuffer(self.files[index], dtype=np.uint8) for index in indices]


def checked(root: Path, **options: int) -> Findings:
    return check(open_for_check(str(root)).splits, **options)


def noted(findings: Findings, notes: dict[str, object]) -> dict[str, set[str]]:
    """File name -> its notes."""
    result: dict[str, set[str]] = {}
    for note, numbers in notes.items():
        for number in numbers:
            result.setdefault(os.path.basename(findings.place(number).name), set()).add(note)
    return result


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    root = tmp_path_factory.mktemp("kinds")
    return checked(folder(root, {f"kind/{name}": content for name, content in FILES.items()}))


# --- Files ---------------------------------------------------------------------------------------


def test_all_broken_files_are_found_and_no_others(all_kinds: Findings) -> None:
    broken = noted(all_kinds, all_kinds.broken)
    assert broken.keys() == BROKEN.keys()
    for name, (_, reason) in BROKEN.items():
        (found,) = broken[name]
        assert reason in found, name


def test_all_odd_files_are_found_and_no_others(all_kinds: Findings) -> None:
    odd = noted(all_kinds, all_kinds.odd)
    assert odd.keys() == ODD.keys()
    for name, (_, what) in ODD.items():
        (found,) = odd[name]
        assert what in found, name


def test_broken_is_what_training_refuses() -> None:
    """Another pipeline of DALI's says the same of every file, bombs aside: they fill the memory."""
    for name, content in FILES.items():
        if content and not name.startswith("bomb"):
            assert _dali_decodes(content) == (name not in BROKEN), name


def _dali_decodes(content: bytes) -> bool:
    pipeline = Pipeline(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
    with pipeline:
        file = types.Constant(np.frombuffer(content, dtype=np.uint8), device="cpu")
        pipeline.set_outputs(fn.decoders.image(file, device="cpu", output_type=types.RGB))
    try:
        pipeline.run()
    except RuntimeError:
        return False
    return True


def test_the_order_of_files_and_threads_changes_nothing(tmp_path: Path) -> None:
    """A failed decode must not spoil what the same thread decodes next."""
    names = [name for pair in zip(BROKEN, WHOLE, strict=False) for name in pair]
    folder(tmp_path, {f"a/{n:03}-{name}": FILES[name] for n, name in enumerate(names)})
    for threads in (1, 3):
        broken = noted(findings := checked(tmp_path, threads=threads), findings.broken)
        assert {name[4:] for name in broken} == set(names) & BROKEN.keys()


def test_sizes_bytes_modes_and_formats(all_kinds: Findings) -> None:
    numbers = {os.path.basename(all_kinds.place(n).name): n for n in range(len(all_kinds))}
    assert all_kinds.sizes[numbers["plain.png"]].tolist() == [64, 48]
    assert all_kinds.sizes[numbers["wide.jpg"]].tolist() == [4000, 1]
    assert all_kinds.file_bytes[numbers["plain.jpg"]] == len(JPEG)
    assert all_kinds.modes["CMYK"] == 1 and all_kinds.formats["BMP"] == 1
    assert sum(all_kinds.formats.values()) == len(WHOLE) + len(ODD)


def test_a_limit_of_pixels(tmp_path: Path) -> None:
    folder(tmp_path, {"a/small.png": encoded(photo()), "a/large.jpg": JPEG})  # 48 x 40, 64 x 48
    findings = checked(tmp_path, max_pixels=64 * 48 - 1)
    reason = "64 x 48 pixels, more than 3,071 in all: not decoded"
    assert noted(findings, findings.broken) == {"large.jpg": {reason}}
    assert not checked(tmp_path, max_pixels=64 * 48).broken


def test_pillows_own_limit_is_as_before(tmp_path: Path) -> None:
    assert Image.MAX_IMAGE_PIXELS and 2 * Image.MAX_IMAGE_PIXELS == MAX_PIXELS - MAX_PIXELS % 2
    before = Image.MAX_IMAGE_PIXELS
    checked(folder(tmp_path, {"a/1.jpg": FILES["bomb.png"]}))
    assert before == Image.MAX_IMAGE_PIXELS


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    splits = open_for_check(str(folder(tmp_path, {"a/1.jpg": JPEG, "a/2.jpg": JPEG}))).splits
    (tmp_path / "a/1.jpg").unlink()
    (tmp_path / "a/1.jpg").symlink_to(tmp_path)  # a folder by now
    findings = check(splits)
    assert noted(findings, findings.broken) == {"1.jpg": {"cannot be read (Is a directory)"}}


def test_a_source_of_files(tmp_path: Path) -> None:
    """Shards give bytes; a thousand images are read once each, and told in order."""
    names = [f"{n}.png" for n in range(1000)]
    files = [encoded(Image.new("RGB", (8, 8), (n % 256, n // 256, 0))) for n in range(1000)]
    files[500] = b"?"
    source = Files(files, names, np.arange(1000) % 2)
    told: list[int] = []
    findings = check([Split("train", source)], threads=2, progress=told.append)
    assert sum(told) == 1000 and sorted(source.asked) == list(range(1000))
    assert noted(findings, findings.broken) == {"500.png": {"no image in a known format"}}
    assert findings.place(501) == ("train", "bee", "501.png")
    assert len({tuple(digest) for digest in findings.digests.tolist()}) == 1000


def test_an_error_that_is_no_damage_is_raised() -> None:
    class Gone(Files):
        def read(self, indices: np.ndarray) -> Sequence[np.ndarray]:
            raise InputError("shard is gone")

    with pytest.raises(InputError, match="shard is gone"):
        check([Split("train", Gone([JPEG] * 100, ["a"] * 100, np.zeros(100, dtype=int)))])


# --- The same bytes ------------------------------------------------------------------------------


def test_duplicates_and_leaks(tmp_path: Path) -> None:
    one, two, three, four = (encoded(photo(seed)) for seed in range(4))
    folder(
        tmp_path,
        {
            "train/ant/1.png": one,
            "train/ant/2.png": one,
            "train/bee/3.png": two,
            "train/ant/4.png": two,
            "train/ant/5.png": three,
            "val/ant/6.png": three,
            "val/bee/7.png": four,
            "train/ant/empty1.png": b"",
            "train/ant/empty2.png": b"",
        },
    )
    found = lists(rows(checked(tmp_path), find_strays(str(tmp_path))))

    def files(kind: str) -> list[tuple[str, list[str]]]:
        return [
            (group["detail"], [os.path.relpath(one["file"], tmp_path) for one in group["files"]])
            for group in found[kind]
        ]

    same = "2 files with the same bytes"
    assert files("duplicates") == [
        (same, ["train/ant/1.png", "train/ant/2.png"]),
        (f"{same}, in different classes", ["train/ant/4.png", "train/bee/3.png"]),
    ]
    assert files("leaks") == [(same, ["train/ant/5.png", "val/ant/6.png"])]
    assert [one["split"] for one in found["leaks"][0]["files"]] == ["train", "val"]


def test_rows_are_told_kind_by_kind(tmp_path: Path) -> None:
    folder(tmp_path, {"a/1.png": encoded(PHOTO), "a/2.png": b"", "a/3.txt": b"", "a/4.jpg": b"?"})
    folder(tmp_path, {"a/5.jpg": encoded(PHOTO)})
    found = [
        row._replace(file=os.path.basename(row.file))
        for row in rows(checked(tmp_path), find_strays(str(tmp_path)))
    ]
    same = "2 files with the same bytes"
    assert found == [
        Row("broken", "empty", "2.png", "all", "a"),
        Row("broken", "no image in a known format", "4.jpg", "all", "a"),
        Row("odd", "PNG named .jpg", "5.jpg", "all", "a"),
        Row("duplicate", same, "1.png", "all", "a", 1),
        Row("duplicate", same, "5.jpg", "all", "a", 1),
        Row("ignored", "not named as an image", "3.txt"),
    ]
