"""Files of features: what stands in them, and that they are whole, new, or not there."""

import csv
import errno
import json
import os
import tracemalloc

import numpy as np
import pytest
import torch
from pyarrow.parquet import ParquetFile, read_table
from safetensors import safe_open
from safetensors.torch import load_file

from res2net.errors import InputError, WorkError
from res2net.files.names import printable
from res2net.inference import feature_file, feature_forms
from res2net.inference.feature_file import write_features
from res2net.inference.labelled import Labels

NAMES = ["a.png", 'b "c", d/ü.png', "new\nline.png", os.fsdecode(b"no \xff text.png"), ""]
ROWS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
ROWS[0] = [1 / 3, np.finfo(np.float32).tiny / 8, -np.finfo(np.float32).max]
BATCHES = [(NAMES[:2], ROWS[:2]), (NAMES[2:], ROWS[2:])]
PARTS = {"features": 3}
FORMS = pytest.mark.parametrize("suffix", feature_file.SUFFIXES)


def test_npz(tmp_path):
    assert write_features(tmp_path / "out.npz", BATCHES, parts=PARTS) == 5
    with np.load(tmp_path / "out.npz") as stored:
        assert set(stored) == {"features", "sources"}
        features, sources = stored["features"], stored["sources"]
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, ROWS)
    assert sources.tolist() == NAMES  # names that are no text open the same files again


def test_csv(tmp_path):
    assert write_features(tmp_path / "out.csv", iter(BATCHES), parts=PARTS) == 5
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["source", "f0", "f1", "f2"]
    assert [row[0] for row in rows] == [
        *(printable(name) for name in NAMES[:3]),
        r"no \xff text.png",
        "",
    ]
    np.testing.assert_array_equal(np.array([row[1:] for row in rows], dtype=np.float32), ROWS)


def test_csv_is_read_by_numpy(tmp_path):
    write_features(tmp_path / "out.csv", BATCHES[:1], parts=PARTS)
    options = {"delimiter": ",", "skiprows": 1, "quotechar": '"'}
    found = np.loadtxt(tmp_path / "out.csv", usecols=(1, 2, 3), dtype=np.float32, **options)
    np.testing.assert_array_equal(found, ROWS[:2])
    sources = np.loadtxt(tmp_path / "out.csv", usecols=0, dtype=str, encoding="utf-8", **options)
    assert sources.tolist() == NAMES[:2]


def read_safetensors(file):
    with safe_open(file, "np") as stored:
        return {key: stored.get_tensor(key) for key in stored.keys()}, stored.metadata()  # noqa: SIM118


def test_safetensors(tmp_path):
    assert write_features(tmp_path / "out.safetensors", BATCHES, parts=PARTS) == 5
    tensors, metadata = read_safetensors(tmp_path / "out.safetensors")
    assert set(tensors) == {"features", "sources"}
    assert metadata == {"format": "pt"}
    assert tensors["features"].dtype == np.float32
    np.testing.assert_array_equal(tensors["features"], ROWS)
    *names, end = tensors["sources"].tobytes().split(b"\0")
    assert [os.fsdecode(name) for name in names] == NAMES
    assert end == b""
    assert torch.equal(load_file(tmp_path / "out.safetensors")["features"], torch.tensor(ROWS))


def test_parquet(tmp_path):
    assert write_features(tmp_path / "out.parquet", iter(BATCHES), parts=PARTS) == 5
    table = read_table(tmp_path / "out.parquet")
    assert table.column_names == ["source", "features"]
    assert table["source"].to_pylist() == [*NAMES[:3], r"no \xff text.png", ""]
    np.testing.assert_array_equal(np.array(table["features"].to_pylist(), np.float32), ROWS)


def test_parquet_in_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_forms, "_ROWS", 3)
    write_features(tmp_path / "out.parquet", BATCHES * 4, parts=PARTS)
    file = ParquetFile(tmp_path / "out.parquet")
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [5] * 4
    np.testing.assert_array_equal(
        np.array(file.read()["features"].to_pylist(), np.float32), np.tile(ROWS, (4, 1))
    )


LABELS = Labels(('b "c"', "ü", "z"), dict(zip(NAMES, [1, 0, 2, 1, 0], strict=True)))


@FORMS
def test_parts_and_labels(tmp_path, suffix):
    file = tmp_path / f"out{suffix}"
    write_features(file, BATCHES, parts={"stage1": 1, "stage2": 2}, labels=LABELS)
    indices = [1, 0, 2, 1, 0]
    named = [LABELS.class_names[index] for index in indices]
    if suffix == ".npz":
        with np.load(file) as stored:
            found = dict(stored)
        assert found["class_names"].tolist() == list(LABELS.class_names)
        assert found["labels"].tolist() == indices
        assert found["labels"].dtype == np.int64
    elif suffix == ".safetensors":
        found, metadata = read_safetensors(file)
        assert json.loads(metadata["class_names"]) == list(LABELS.class_names)
        assert found["labels"].tolist() == indices
    elif suffix == ".parquet":
        table = read_table(file)
        assert table["label"].to_pylist() == named
        found = {name: np.array(table[name].to_pylist()) for name in ("stage1", "stage2")}
    else:
        with file.open(newline="", encoding="utf-8") as text:
            header, *rows = csv.reader(text)
        assert header == ["source", "label", "stage1_0", "stage2_0", "stage2_1"]
        assert [row[1] for row in rows] == named
        values = np.array([row[2:] for row in rows], np.float32)
        found = {"stage1": values[:, :1], "stage2": values[:, 1:]}
    np.testing.assert_array_equal(found["stage1"], ROWS[:, :1])
    np.testing.assert_array_equal(found["stage2"], ROWS[:, 1:])


@FORMS
def test_what_stands_there_stays(tmp_path, suffix):
    file = tmp_path / f"out{suffix}"
    file.write_text("old")
    with pytest.raises(InputError, match="exists already"):
        write_features(file, BATCHES, parts=PARTS)
    assert file.read_text() == "old"

    other = tmp_path / f"other{suffix}"

    def slowly():
        yield BATCHES[0]
        other.write_text("meanwhile")

    with pytest.raises(WorkError, match="something else made it meanwhile"):
        write_features(other, slowly(), parts=PARTS)
    assert other.read_text() == "meanwhile"
    assert sorted(tmp_path.iterdir()) == [other, file]


@FORMS
@pytest.mark.parametrize("error", [KeyboardInterrupt, WorkError, RuntimeError])
def test_an_interruption_leaves_nothing(tmp_path, suffix, error):
    def broken():
        yield BATCHES[0]
        raise error

    with pytest.raises(error):
        write_features(tmp_path / f"out{suffix}", broken(), parts=PARTS)
    assert list(tmp_path.iterdir()) == []


@FORMS
def test_nothing_is_written_of_nothing(tmp_path, suffix):
    with pytest.raises(WorkError, match="not written, not one image could be read"):
        write_features(tmp_path / f"out{suffix}", [], parts=PARTS)
    assert list(tmp_path.iterdir()) == []


@FORMS
def test_a_full_disk_is_told(tmp_path, suffix, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("res2net.files.atomic.os.fsync", full)
    with pytest.raises(WorkError, match=r"out\.\w+: cannot be written \(No space left"):
        write_features(tmp_path / f"out{suffix}", BATCHES, parts=PARTS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("suffix", "count"), [(".npz", 400), (".safetensors", 400), (".csv", 60)])
def test_features_are_not_held(tmp_path, suffix, count):
    rows = np.zeros((16, 256), np.float32)
    batches = ((["image.png"] * 16, rows) for _ in range(count))
    tracemalloc.start()
    write_features(tmp_path / f"out{suffix}", batches, parts={"features": 256})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < count * rows.nbytes / 2
