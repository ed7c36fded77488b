"""Shards as a source: what is in them, what is refused, what opening costs."""

import json
import os
import pickle
import resource
import subprocess
import sys
import tarfile
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from res2net.data.sharding.writer import write_shards
from res2net.data.sources import mapped, shards
from res2net.data.sources.folder import FolderSource
from res2net.data.sources.opening import open_sources
from res2net.data.sources.shards import (
    RECORD,
    ShardSource,
    open_shard_split,
    open_shards,
    shard_name,
)
from res2net.data.sources.source import Source
from res2net.errors import InputError
from samples import encoded, photo
from sharding import make

LONG = "d" * 120
CLASSES = ("ant", "grün", "日本")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    train = {f"train/{name}": 5 for name in CLASSES}
    make(tmp_path / "folder", train | {f"val/{name}": 2 for name in CLASSES[:2]})
    odd = tmp_path / "folder/train/ant"
    (odd / LONG / LONG).mkdir(parents=True)
    (odd / LONG / LONG / "größer.2.PNG").write_bytes(encoded(photo(99)))
    (odd / "0.webp").write_bytes(encoded(photo(98), "WEBP"))  # beside 0.jpg
    return tmp_path / "folder"


@pytest.fixture
def root(folder: Path, tmp_path: Path) -> Path:
    """Shards of `folder`, several of each split."""
    write_shards(str(folder), str(tmp_path / "shards"), shard_bytes=10_000)
    return tmp_path / "shards"


def contents(source: Source) -> list[bytes]:
    read = source.read(np.arange(len(source)))
    if source.holds == "paths":
        return [Path(os.fsdecode(path.tobytes())).read_bytes() for path in read]
    return [image.tobytes() for image in read]


def refusal(root: Path, **keys: object) -> str:
    with pytest.raises(InputError) as caught:
        open_shards(str(root), **keys)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_same_images_and_labels_as_the_folder(folder: Path, root: Path) -> None:
    assert len(list(root.glob("train-*.tar"))) > 2
    for ours, theirs in zip(
        open_sources("shards", str(root)), open_sources("folder", str(folder)), strict=True
    ):
        assert isinstance(ours, ShardSource) and isinstance(theirs, FolderSource)
        assert ours.class_names == theirs.class_names == CLASSES
        assert len(ours) == len(theirs)
        assert ours.labels.dtype == np.int64
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        assert contents(ours) == contents(theirs)


def test_bytes_are_views_that_cannot_be_written(root: Path) -> None:
    source, _ = open_shards(str(root))
    first, again = source.read(np.array([3, 3]))
    assert first.dtype == np.uint8 and first.ndim == 1
    assert np.shares_memory(first, again)
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 0


def test_any_reader_of_tar_files_understands_them(folder: Path, root: Path) -> None:
    seen: list[tuple[str, bytes, int]] = []
    for file in sorted(root.glob("train-*.tar")):
        with tarfile.open(file) as archive:
            members = archive.getmembers()
            for image, label in zip(members[::2], members[1::2], strict=True):
                # WebDataset: the key ends at the first dot of the last part
                head, _, name = image.name.rpartition("/")
                key = f"{head}/{name.split('.')[0]}"
                assert label.name == f"{key}.cls"
                number = archive.extractfile(label).read()  # type: ignore[union-attr]
                data = archive.extractfile(image).read()  # type: ignore[union-attr]
                seen.append((image.name, data, int(number)))
                assert (image.mtime, image.uid, image.mode) == (0, 0, 0o644)
        assert file.stat().st_size % tarfile.RECORDSIZE == 0
    source, _ = open_shards(str(root))
    assert [image for _, image, _ in seen] == contents(source)
    assert [label for *_, label in seen] == source.labels.tolist()
    names = [name for name, *_ in seen]
    assert len(set(names)) == len(names)
    assert names[:3] == ["ant/0.jpg", "ant/0-2.webp", "ant/1.jpg"]
    assert f"ant/{LONG}/{LONG}/größer_2.png" in names and "日本/4.jpg" in names


def test_names_tell_shard_and_key(root: Path) -> None:
    source, _ = open_shards(str(root))
    names = [source.name(index) for index in range(len(source))]
    assert names[0] == str(root / "train-000000.tar/ant/0.jpg")
    keys = [name.partition(".tar/")[2] for name in names]
    assert keys[6] == f"ant/{LONG}/{LONG}/größer_2.png"
    assert names[-1].endswith(".tar/日本/4.jpg")


def test_subsets_and_copies_in_other_processes(root: Path) -> None:
    source, _ = open_shards(str(root))
    source.read(np.array([0]))
    order = np.array([7, 0, 16, 7])
    part = pickle.loads(pickle.dumps(source.subset(order))).subset(np.array([2, 0, 1]))
    every = contents(source)
    assert contents(part) == [every[16], every[7], every[0]]
    assert part.labels.tolist() == [2, 1, 0]
    assert part.name(1) == source.name(7)


def test_few_maps_are_kept_where_files_are_few(root: Path, monkeypatch) -> None:
    monkeypatch.setattr(mapped, "_most_maps", lambda: 1)
    source, _ = open_shards(str(root))
    backward = np.arange(len(source))[::-1]
    views = source.read(backward)
    assert len(source._files._maps) == 1
    assert [view.tobytes() for view in views[::-1]] == contents(source)


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="maps hold no file descriptors there")
def test_maps_leave_half_of_the_file_descriptors_to_others() -> None:
    script = """
import resource
from res2net.data.sources.mapped import _most_maps
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
for limits in ((64, hard), (64, 64)):  # of which more may be asked for, or not
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    print(_most_maps(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    allowed = 1 << 16 if hard == resource.RLIM_INFINITY else min(hard, 1 << 16)
    assert done.stdout.splitlines() == [f"{allowed // 4} {allowed}", "16 64"], done.stderr


def test_without_validation_images_the_split_is_that_of_the_folder(tmp_path: Path) -> None:
    make(tmp_path / "folder", {"b": 13, "a": 8, "c": 9})
    write_shards(str(tmp_path / "folder"), str(tmp_path / "shards"))
    for names in (None, ("z", "c", "b", "a")):
        options = {"val_fraction": 0.3, "split_seed": 5, "class_names": names}
        ours = open_sources("shards", str(tmp_path / "shards"), **options)  # type: ignore[arg-type]
        theirs = open_sources("folder", str(tmp_path / "folder"), **options)  # type: ignore[arg-type]
        for one, other in zip(ours, theirs, strict=True):
            assert contents(one) == contents(other)
            assert one.labels.tolist() == other.labels.tolist()
            assert one.class_names == other.class_names
    assert "data.val_fraction=1.0: expected" in refusal(tmp_path / "shards", val_fraction=1.0)


def test_classes_of_a_model(root: Path) -> None:
    known = ("日本", "bee", "grün", "ant")
    train, val = open_shards(str(root), class_names=known)
    assert train.class_names == val.class_names == known
    assert train.labels.tolist() == [3] * 7 + [2] * 5 + [0] * 5
    # a class without images here need not be known
    assert open_shard_split(str(root), "val", class_names=CLASSES[:2]).labels.tolist() == [
        0,
        0,
        1,
        1,
    ]
    assert f"{root}: unknown class 日本 (known: ant, grün)" in refusal(
        root, class_names=CLASSES[:2]
    )


# Damage


def test_other_folders_are_no_shards(tmp_path: Path) -> None:
    assert "none: no such folder" in refusal(tmp_path / "none")
    assert f"no {shards.DESCRIPTION} in it" in refusal(tmp_path)
    (tmp_path / shards.UNFINISHED).mkdir()
    assert "goes on" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged, not JSON"),
        ("[]", "not a description of shards of schema 1"),
        ('{"schema": 2, "splits": {}}', "not a description of shards of schema 1"),
        ('{"schema": 1, "splits": {}}', "no training images"),
        ('{"schema": 1, "splits": {"train": {}, "val": {}}}', "damaged (split train"),
        ('{"schema": 1, "splits": {"train": 7, "val": {}}}', "damaged (split train"),
    ],
)
def test_damaged_description(root: Path, text: str, message: str) -> None:
    (root / shards.DESCRIPTION).write_text(text)
    assert message in refusal(root)


def test_missing_and_truncated_shards_are_named(root: Path) -> None:
    (root / "train-000001.tar").unlink()
    with open(root / "train-000000.tar", "r+b") as file:
        file.truncate(512)
    size = json.loads((root / shards.DESCRIPTION).read_text())["splits"]["train"]["shards"][0]
    message = refusal(root)
    assert f"train-000000.tar has 512 bytes, not {size['bytes']:,}" in message
    assert "train-000001.tar is missing" in message


def test_index_missing_cut_off_or_altered(root: Path) -> None:
    index = root / "train.index"
    content = index.read_bytes()
    for damaged in (b"", content[:60], content[:-1], b"?" + content[1:], content[:-24]):
        index.write_bytes(damaged)
        assert f"{index}: damaged index" in refusal(root)
    index.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    assert "checksum" in refusal(root)
    index.unlink()
    assert f"{index}: no such index" in refusal(root)


def test_a_shard_that_vanishes_later_is_named(root: Path) -> None:
    source, _ = open_shards(str(root))
    (root / "train-000000.tar").unlink()
    with pytest.raises(InputError, match=r"train-000000\.tar: cannot be read \(No such file"):
        source.read(np.array([0]))


def test_a_damaged_header_is_told_by_its_place(root: Path) -> None:
    source, _ = open_shards(str(root))
    with open(root / "train-000000.tar", "r+b") as file:
        file.write(b"\xff" * 512)
    with pytest.raises(InputError, match=r"train-000000\.tar: damaged at byte 0"):
        source.name(0)


def test_keys_that_only_folders_have_are_refused(root: Path) -> None:
    with pytest.raises(InputError, match=r"data\.val_dir='val'.*only data\.source=folder"):
        open_sources("shards", str(root), val_dir="val")


# Size


def anonymous_bytes() -> int:
    """Memory of this process that no file backs."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("RssAnon:")[2].split()[0])


def test_opening_a_million_images_is_quick_and_small(tmp_path: Path) -> None:
    count, files = 1_331_167, 550
    records = np.zeros(count, dtype=RECORD)
    records["label"] = np.arange(count) // 1332
    records["shard"] = np.arange(count) % files
    with open(tmp_path / "train.index", "wb") as index:
        np.save(index, records)
    stated = [{"file": shard_name("train", number), "bytes": 1 << 28} for number in range(files)]
    for shard in stated:
        with open(tmp_path / str(shard["file"]), "wb") as file:
            file.truncate(1 << 28)  # a hole: it takes no room
    train = {
        "images": count,
        "index": {"file": "train.index", "crc32": zlib.crc32(records.data)},
        "shards": stated,
    }
    described = {
        "schema": 1,
        "class_names": list(map(str, range(1000))),
        "splits": {"train": train},
    }
    (tmp_path / shards.DESCRIPTION).write_text(json.dumps(described))
    del records
    before, start = anonymous_bytes(), time.perf_counter()
    source = open_shard_split(str(tmp_path), "train")
    seconds = time.perf_counter() - start
    assert len(source) == count and source.labels[-1] == 999
    assert anonymous_bytes() - before < 10e6  # measured: 0.3 MB, and 32 MB of the mapped file
    assert seconds < 2  # measured: 0.02
