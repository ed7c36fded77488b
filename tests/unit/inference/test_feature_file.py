"""Files of features: what stands in them, and that they are whole, new, or not there."""

import csv
import errno
import os
import tracemalloc

import numpy as np
import pytest

from res2net.errors import InputError, WorkError
from res2net.inference import feature_file
from res2net.inference.feature_file import write_features

NAMES = ["a.png", 'b "c", d/ü.png', "new\nline.png", os.fsdecode(b"no \xff text.png"), ""]
ROWS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
ROWS[0] = [1 / 3, np.finfo(np.float32).tiny / 8, -np.finfo(np.float32).max]
BATCHES = [(NAMES[:2], ROWS[:2]), (NAMES[2:], ROWS[2:])]
FORMS = pytest.mark.parametrize("suffix", feature_file.SUFFIXES)


def test_npz(tmp_path):
    assert write_features(tmp_path / "out.npz", BATCHES, num_features=3) == 5
    with np.load(tmp_path / "out.npz") as stored:
        assert set(stored) == {"features", "sources"}
        features, sources = stored["features"], stored["sources"]
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, ROWS)
    assert sources.tolist() == NAMES  # names that are no text open the same files again


def test_csv(tmp_path):
    assert write_features(tmp_path / "out.csv", iter(BATCHES), num_features=3) == 5
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["source", "f0", "f1", "f2"]
    assert [row[0] for row in rows] == [*NAMES[:3], r"no \xff text.png", ""]
    np.testing.assert_array_equal(np.array([row[1:] for row in rows], dtype=np.float32), ROWS)


def test_csv_is_read_by_numpy(tmp_path):
    write_features(tmp_path / "out.csv", BATCHES[:1], num_features=3)
    options = {"delimiter": ",", "skiprows": 1, "quotechar": '"'}
    found = np.loadtxt(tmp_path / "out.csv", usecols=(1, 2, 3), dtype=np.float32, **options)
    np.testing.assert_array_equal(found, ROWS[:2])
    sources = np.loadtxt(tmp_path / "out.csv", usecols=0, dtype=str, encoding="utf-8", **options)
    assert sources.tolist() == NAMES[:2]


@FORMS
def test_what_stands_there_stays(tmp_path, suffix):
    file = tmp_path / f"out{suffix}"
    file.write_text("old")
    with pytest.raises(InputError, match="exists already"):
        write_features(file, BATCHES, num_features=3)
    assert file.read_text() == "old"

    other = tmp_path / f"other{suffix}"

    def slowly():
        yield BATCHES[0]
        other.write_text("meanwhile")

    with pytest.raises(WorkError, match="something else made it meanwhile"):
        write_features(other, slowly(), num_features=3)
    assert other.read_text() == "meanwhile"
    assert sorted(tmp_path.iterdir()) == [other, file]


@FORMS
@pytest.mark.parametrize("error", [KeyboardInterrupt, WorkError, RuntimeError])
def test_an_interruption_leaves_nothing(tmp_path, suffix, error):
    def broken():
        yield BATCHES[0]
        raise error

    with pytest.raises(error):
        write_features(tmp_path / f"out{suffix}", broken(), num_features=3)
    assert list(tmp_path.iterdir()) == []


@FORMS
def test_nothing_is_written_of_nothing(tmp_path, suffix):
    with pytest.raises(WorkError, match="not written, not one image could be read"):
        write_features(tmp_path / f"out{suffix}", [], num_features=3)
    assert list(tmp_path.iterdir()) == []


@FORMS
def test_a_full_disk_is_told(tmp_path, suffix, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("res2net.files.atomic.os.fsync", full)
    with pytest.raises(WorkError, match=r"out\.\w+: cannot be written \(No space left"):
        write_features(tmp_path / f"out{suffix}", BATCHES, num_features=3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("suffix", "count"), [(".npz", 400), (".csv", 60)])
def test_features_are_not_held(tmp_path, suffix, count):
    rows = np.zeros((16, 256), np.float32)
    batches = ((["image.png"] * 16, rows) for _ in range(count))
    tracemalloc.start()
    write_features(tmp_path / f"out{suffix}", batches, num_features=256)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < count * rows.nbytes / 2
