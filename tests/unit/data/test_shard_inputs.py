"""What shards are made of: ImageNet's own archives and parquet files."""

import io
import json
import shutil
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from res2net import imagenet
from res2net.data.sharding import archives
from res2net.data.sharding.writer import write_shards
from res2net.data.sources.shards import open_shard_split, open_shards
from samples import encoded, photo
from sharding import contents, failure, files_of, images_of, jpeg, make, refusal

WNIDS = tuple(imagenet.class_names())
ID_OF = {wnid: number for number, wnid in imagenet.ilsvrc2012_ids().items()}
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
DEVKIT = "ILSVRC2012_devkit_t12"


# ImageNet's archives


def tar_of(path: Path | None, files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(stream.getvalue())
    return stream.getvalue()


TRAINED = (WNIDS[3], WNIDS[0], WNIDS[999])
IN_VAL = (WNIDS[999], WNIDS[0], WNIDS[0], WNIDS[3])


@pytest.fixture
def imagenet_tars(tmp_path: Path) -> Path:
    """Three classes of ImageNet's training archive and four of its validation images."""
    root = tmp_path / "tars"
    classes = {
        f"{wnid}.tar": tar_of(None, {f"{wnid}_{n}.JPEG": jpeg(100 * c + n) for n in (10, 9, 2, 1)})
        for c, wnid in enumerate(TRAINED)
    }
    tar_of(root / archives.TRAIN_ARCHIVE, classes)
    names = [f"ILSVRC2012_val_{number:08}.JPEG" for number in range(1, 5)]
    tar_of(
        root / archives.VAL_ARCHIVE,
        {name: jpeg(900 + seed) for seed, name in reversed(list(enumerate(names)))},
    )
    return root


def ground_truth(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{ID_OF[wnid]}\n" for wnid in IN_VAL))


def test_archives_give_the_shards_of_what_they_unpack_to(
    imagenet_tars: Path, tmp_path: Path
) -> None:
    unpacked = tmp_path / "unpacked"
    with tarfile.open(imagenet_tars / archives.TRAIN_ARCHIVE) as outer:
        for member in outer:
            with tarfile.open(fileobj=outer.extractfile(member)) as inner:
                inner.extractall(unpacked / "train" / member.name[:-4], filter="data")
    with tarfile.open(imagenet_tars / archives.VAL_ARCHIVE) as outer:
        outer.extractall(unpacked / "val", filter="data")
    ground_truth(unpacked / GROUND_TRUTH)
    ground_truth(imagenet_tars / DEVKIT / "data" / GROUND_TRUTH)
    for source, name, workers in ((imagenet_tars, "one", 2), (unpacked, "other", 1)):
        write_shards(
            str(source), str(tmp_path / name), shard_bytes=8_000, expect=(12, 4), workers=workers
        )
    assert images_of(files_of(tmp_path / "one")) == images_of(files_of(tmp_path / "other"))
    train, val = open_shards(str(tmp_path / "one"))
    assert train.class_names == tuple(sorted(TRAINED))
    assert train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert val.labels.tolist() == [0, 0, 1, 2]
    names = [val.name(index).rpartition("/")[2] for index in range(4)]
    assert names == [f"ILSVRC2012_val_0000000{number}.jpeg" for number in (2, 3, 4, 1)]


def test_labels_from_the_devkit_as_it_is_downloaded(imagenet_tars: Path, tmp_path: Path) -> None:
    ground_truth(tmp_path / "truth.txt")
    with tarfile.open(imagenet_tars / f"{DEVKIT}.tar.gz", "w:gz") as devkit:
        devkit.add(tmp_path / "truth.txt", f"{DEVKIT}/data/{GROUND_TRUTH}")
    write_shards(str(imagenet_tars), str(tmp_path / "a"), expect=())
    labels = str(tmp_path / "truth.txt")
    (imagenet_tars / f"{DEVKIT}.tar.gz").write_bytes(b"broken")
    write_shards(str(imagenet_tars), str(tmp_path / "b"), expect=(), labels=labels)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert GROUND_TRUTH in refusal(imagenet_tars, tmp_path / "c", expect=())
    (imagenet_tars / f"{DEVKIT}.tar.gz").unlink()
    assert "no file of labels" in refusal(imagenet_tars, tmp_path / "c", expect=())


def test_one_archive_alone(imagenet_tars: Path, tmp_path: Path) -> None:
    train = imagenet_tars / archives.TRAIN_ARCHIVE
    written = write_shards(str(train), str(tmp_path / "shards"), expect=(12,))
    assert written.images == 12
    assert "takes no" not in refusal(train, tmp_path / "x", expect=(12,), labels=__file__)
    assert f"{tmp_path}/other.tar" in refusal(tmp_path / "other.tar", tmp_path / "x")
    shutil.copy(train, tmp_path / "other.tar")
    assert "unpack the images first" in refusal(tmp_path / "other.tar", tmp_path / "x")


def test_missing_images_of_imagenet_are_told(imagenet_tars: Path, tmp_path: Path) -> None:
    ground_truth(imagenet_tars / GROUND_TRUTH)
    message = refusal(imagenet_tars, tmp_path / "shards")
    assert "train has 12 images, not 1,281,167, val has 4 images, not 50,000" in message
    assert "--expect any" in message
    assert "val has 4 images, not 5" in refusal(imagenet_tars, tmp_path / "x", expect=(12, 5))
    train = imagenet_tars / archives.TRAIN_ARCHIVE
    assert "val has 0 images, not 5" in refusal(train, tmp_path / "x", expect=(12, 5))
    assert not (tmp_path / "shards").exists()


def test_damaged_archives(imagenet_tars: Path, tmp_path: Path) -> None:
    train = imagenet_tars / archives.TRAIN_ARCHIVE
    whole = train.read_bytes()
    with tarfile.open(train) as archive:
        second, third = archive.getmembers()[1:]
    header = second.offset_data + 2 * 512  # within the first image of the second class
    for damaged, message in (
        (b"", "not an uncompressed tar file"),
        (whole[: third.offset_data + 700], f"cut off within {third.name}"),
        (whole[: second.offset] + b"x" * 512 + whole[second.offset + 512 :], "damaged at byte"),
        (tar_of(None, {"a.jpg": jpeg(1)}), "expected a tar of tars"),
        (tar_of(None, {"a.tar": b"?" * 2000}), "a.tar: not an uncompressed tar file"),
    ):
        train.write_bytes(damaged)
        assert message in refusal(train, tmp_path / "shards", expect=()), message
    with tarfile.open(fileobj=io.BytesIO(whole[second.offset_data :])) as inner:
        member = inner.getmembers()[1]
    header = second.offset_data + member.offset
    train.write_bytes(whole[:header] + b"x" * 512 + whole[header + 512 :])
    message = refusal(train, tmp_path / "shards", expect=())
    assert f"{second.name}: damaged at byte {member.offset:,}" in message
    assert not (tmp_path / "shards").exists()


# Parquet


def write_parquet(
    path: Path,
    rows: Sequence[tuple[bytes | None, str | None, int]],
    names: Sequence[str] | None = None,
) -> None:
    images = [{"bytes": content, "path": name} for content, name, _ in rows]
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table = pyarrow.table(
        {
            "image": pyarrow.array(images, kind),
            "label": pyarrow.array([label for *_, label in rows], pyarrow.int64()),
        }
    )
    if names is not None:
        told = {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}}

        table = table.replace_schema_metadata({"huggingface": json.dumps(told)})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, row_group_size=3)


def test_parquet_files_in_the_order_of_their_rows(tmp_path: Path) -> None:
    train = [(jpeg(n), f"{WNIDS[n % 3]}_{n}_{WNIDS[n % 3]}.JPEG", n % 3) for n in range(14)]
    val = [(jpeg(50 + n), f"ILSVRC2012_val_0000000{n}_{WNIDS[n]}.JPEG", n) for n in range(3)]
    data = tmp_path / "hub" / "data"
    write_parquet(data / "train-00000-of-00002.parquet", train[:8])
    write_parquet(data / "train-00001-of-00002.parquet", train[8:])
    write_parquet(data / "validation-00000-of-00001.parquet", val)
    write_parquet(data / "test-00000-of-00001.parquet", [(jpeg(1), None, -1)])
    source, done = str(tmp_path / "hub"), tmp_path / "shards"
    written = write_shards(source, str(done), shard_bytes=10_000, workers=2, expect=(14, 3))
    assert written.images == 17 and written.shards > 3
    assert contents(done, "train") == [content for content, *_ in train]
    assert contents(done, "val") == [content for content, *_ in val]
    one, other = open_shards(str(done))
    assert one.class_names == other.class_names == WNIDS
    assert one.labels.tolist() == [n % 3 for n in range(14)]
    assert one.name(4).endswith(f".tar/{WNIDS[1]}_4_{WNIDS[1]}.jpeg")
    write_shards(source, str(tmp_path / "again"), shard_bytes=10_000)
    assert files_of(tmp_path / "again") == files_of(done)


def test_a_missing_part_is_told(tmp_path: Path) -> None:
    hub, rows = tmp_path / "hub", [(jpeg(n), None, n % 2) for n in range(4)]
    write_parquet(hub / "data/train-00001-of-00003.parquet", rows)
    message = refusal(hub, tmp_path / "out")
    assert message.startswith(
        f"{hub}/data/train-00000-of-00003.parquet, {hub}/data/train-00002-of-00003.parquet: no "
        "such file, but other parts"
    )
    assert not (tmp_path / "out").exists()
    assert write_shards(str(hub), str(tmp_path / "out"), expect=()).images == 4


def test_classes_of_other_parquet_files_and_rows_without_a_path(tmp_path: Path) -> None:
    rows = [(encoded(photo(n)), None, n % 2) for n in range(6)]
    write_parquet(tmp_path / "hub/train/0000.parquet", rows, ["cat", "dog"])
    write_shards(str(tmp_path / "hub"), str(tmp_path / "a"))
    source = open_shard_split(str(tmp_path / "a"), "train")
    assert source.class_names == ("cat", "dog")
    assert source.name(3).endswith("train-000000.tar/00000003.png")
    write_parquet(tmp_path / "hub/train/0000.parquet", rows)
    write_shards(str(tmp_path / "hub"), str(tmp_path / "b"))
    assert open_shard_split(str(tmp_path / "b"), "train").class_names == ("0", "1")
    named = ["tench, Tinca tinca"] + ["x"] * 999
    write_parquet(tmp_path / "hub/train/0000.parquet", rows, named)
    write_shards(str(tmp_path / "hub"), str(tmp_path / "c"))
    assert open_shard_split(str(tmp_path / "c"), "train").class_names == WNIDS


def test_parquet_files_that_are_refused(tmp_path: Path) -> None:
    hub, out = tmp_path / "hub", tmp_path / "out"
    file = hub / "train-0.parquet"
    row = (jpeg(1), "a.jpg", 0)
    write_parquet(file, [row, (jpeg(2), "b.jpg", -1)])
    assert "rows without a label" in refusal(hub, out)
    write_parquet(file, [row, (jpeg(2), "b.jpg", 2)], ["cat", "dog"])
    assert "label 2, but there are 2 classes" in refusal(hub, out)
    write_parquet(file, [])
    assert "no rows" in refusal(hub, out)
    parquet.write_table(pyarrow.table({"image": [b"x"], "label": [1]}), file)
    assert "expected the columns image {bytes, path} and label" in refusal(hub, out)
    parquet.write_table(pyarrow.table({"label": [1]}), file)
    assert "found label" in refusal(hub, out)
    file.write_bytes(b"PAR1")
    assert f"{file}: damaged parquet file" in refusal(hub, out)
    file.rename(hub / "images.parquet")
    assert "expected a name that begins with train" in refusal(hub, out)
    (hub / "images.parquet").rename(hub / "validation-0.parquet")
    assert "no parquet files of training images" in refusal(hub, out)
    assert not out.exists()


def test_a_row_without_an_image_is_corrupt(tmp_path: Path) -> None:
    rows = [(jpeg(1), "a.jpg", 0), (None, "b.jpg", 1), (jpeg(2), "c.jpg", 1)]
    write_parquet(tmp_path / "hub/train-0.parquet", rows)
    file = tmp_path / "hub/train-0.parquet"
    assert f"{file}, row 1, b.jpg is empty" in failure(tmp_path / "hub", tmp_path / "out")


def test_pyarrow_is_only_needed_for_parquet(tmp_path: Path, monkeypatch) -> None:
    write_parquet(tmp_path / "hub/train-0.parquet", [(jpeg(1), "a.jpg", 0)])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet")
    message = refusal(tmp_path / "hub", tmp_path / "out")
    assert "pip install res2net-lightning[parquet]" in message
    make(tmp_path / "folder", {"a": 2, "b": 2})
    write_shards(str(tmp_path / "folder"), str(tmp_path / "out"))
