"""CIFAR in its four published forms, built small; nothing here reaches the network."""

import dataclasses
import hashlib
import io
import os
import pickle
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from res2net.data.sources import cifar
from res2net.data.sources.cifar import load_cifar
from res2net.data.sources.in_memory import ArraySource
from res2net.data.sources.opening import open_sources
from res2net.errors import InputError, WorkError

COUNT = 4  # images per batch
NAMES = {
    "cifar10": ("airplane", "automobile", "bird"),
    "cifar100": ("apple", "aquarium_fish", "baby", "bear"),
}
FORMS = [("cifar10", 0), ("cifar10", 1), ("cifar100", 0), ("cifar100", 1)]


def contents(data_set: str) -> tuple[np.ndarray, np.ndarray]:
    """All batches, the last one for validation: planes (batches, COUNT, 3072), labels."""
    batches = 6 if data_set == "cifar10" else 2
    draw = np.random.default_rng(len(data_set))
    planes = draw.integers(0, 256, (batches, COUNT, 3072), dtype=np.uint8)
    return planes, draw.integers(0, len(NAMES[data_set]), (batches, COUNT))


def build(data_set: str, number: int) -> dict[str, bytes]:
    """The files of a form, as published."""
    form = cifar._FORMS[data_set][number]
    planes, labels = contents(data_set)
    files = {"readme.html": b"<html>"}
    for name, pixels, numbers in zip((*form.train, form.val), planes, labels, strict=True):
        fine = numbers.astype(np.uint8)[:, None]
        if number == 0:
            coarse = [] if data_set == "cifar10" else [np.full_like(fine, 19)]
            files[name] = np.hstack([*coarse, fine, pixels]).tobytes()
        else:
            key = "labels" if data_set == "cifar10" else "fine_labels"
            batch = {"data": pixels, key: numbers.tolist(), "coarse_labels": [19] * COUNT}
            files[name] = pickle.dumps(batch, protocol=2)
    if number == 0:
        files[form.meta] = "\n".join([*NAMES[data_set], "", ""]).encode()
    else:
        key = "label_names" if data_set == "cifar10" else "fine_label_names"
        files[form.meta] = pickle.dumps({key: list(NAMES[data_set])}, protocol=2)
    return files


def unpack(root: Path, data_set: str, number: int) -> Path:
    folder = root / cifar._FORMS[data_set][number].folder
    folder.mkdir(parents=True)
    for name, content in build(data_set, number).items():
        (folder / name).write_bytes(content)
    return folder


def pack(root: Path, data_set: str, number: int) -> Path:
    form = cifar._FORMS[data_set][number]
    root.mkdir(exist_ok=True)
    with tarfile.open(root / form.archive, "w:gz") as archive:
        for name, content in reversed(build(data_set, number).items()):
            member = tarfile.TarInfo(f"{form.folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return root / form.archive


def trust(monkeypatch: pytest.MonkeyPatch, data_set: str, number: int, archive: Path) -> None:
    """Make the archive that a test built the published one."""
    forms = list(cifar._FORMS[data_set])
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    forms[number] = dataclasses.replace(forms[number], md5=md5)
    monkeypatch.setitem(cifar._FORMS, data_set, tuple(forms))


def check(data_set: str, root: Path) -> None:
    planes, labels = contents(data_set)
    found = load_cifar(data_set, root)
    assert found.class_names == NAMES[data_set]
    for split, pixels, numbers in (
        (found.train, planes[:-1].reshape(-1, 3072), labels[:-1].ravel()),
        (found.val, planes[-1], labels[-1]),
    ):
        assert split.images.shape == (len(pixels), 32, 32, 3)
        assert split.images.dtype == np.uint8 and split.images.flags.c_contiguous
        assert split.labels.dtype == np.int64
        assert split.labels.tolist() == numbers.tolist()
        for channel in range(3):
            plane = pixels[:, 1024 * channel : 1024 * (channel + 1)].reshape(-1, 32, 32)
            assert (split.images[..., channel] == plane).all()


@pytest.mark.parametrize(("data_set", "number"), FORMS)
def test_an_unpacked_folder_is_read_as_it_lies(tmp_path: Path, data_set: str, number: int) -> None:
    folder = unpack(tmp_path, data_set, number)
    assert list(tmp_path.iterdir()) == [folder]  # nothing to fetch it again from
    check(data_set, tmp_path)


@pytest.mark.parametrize(("data_set", "number"), FORMS)
def test_an_archive_is_read_without_unpacking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_set: str, number: int
) -> None:
    archive = pack(tmp_path, data_set, number)
    trust(monkeypatch, data_set, number, archive)
    check(data_set, tmp_path)
    assert list(tmp_path.iterdir()) == [archive]


def test_a_folder_comes_before_an_archive(tmp_path: Path) -> None:
    pack(tmp_path, "cifar10", 0)  # its MD5 is wrong
    unpack(tmp_path, "cifar10", 1)
    check("cifar10", tmp_path)


@pytest.mark.parametrize(("data_set", "number"), FORMS)
def test_an_archive_with_a_wrong_md5_is_refused(tmp_path: Path, data_set: str, number: int) -> None:
    archive = pack(tmp_path, data_set, number)
    with pytest.raises(InputError) as caught:
        load_cifar(data_set, tmp_path)
    for part in (
        str(archive),
        hashlib.md5(archive.read_bytes()).hexdigest(),
        cifar._FORMS[data_set][number].md5,
        "remove it",
    ):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert archive.exists()


def test_sources(tmp_path: Path) -> None:
    unpack(tmp_path, "cifar10", 0)
    train, val = open_sources("cifar10", str(tmp_path), class_names=NAMES["cifar10"][::-1])
    assert isinstance(train, ArraySource) and isinstance(val, ArraySource)
    assert (len(train), len(val)) == (5 * COUNT, COUNT)
    assert train.name(17) == "cifar10/train/17" and val.name(3) == "cifar10/test/3"
    assert train.labels.tolist() == (2 - contents("cifar10")[1][:-1].ravel()).tolist()
    assert train.read(np.array([3, 1])).shape == (2, 32, 32, 3)


# Damage


@pytest.mark.parametrize(("data_set", "number"), FORMS)
@pytest.mark.parametrize("left", [0, 1, 5000])
def test_a_truncated_batch_is_named(tmp_path: Path, data_set: str, number: int, left: int) -> None:
    folder = unpack(tmp_path, data_set, number)
    path = folder / cifar._FORMS[data_set][number].train[-1]
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(InputError) as caught:
        load_cifar(data_set, tmp_path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("data_set", "number"), FORMS)
def test_a_missing_file_is_named(tmp_path: Path, data_set: str, number: int) -> None:
    form = cifar._FORMS[data_set][number]
    folder = unpack(tmp_path, data_set, number)
    (folder / form.val).unlink()
    (folder / form.meta).unlink()
    with pytest.raises(InputError) as caught:
        load_cifar(data_set, tmp_path)
    missing = ", ".join(sorted([form.val, form.meta]))
    assert str(caught.value).startswith(f"{folder}: {missing} missing")


@pytest.mark.parametrize(("data_set", "number"), FORMS)
def test_labels_beyond_the_classes_are_refused(tmp_path: Path, data_set: str, number: int) -> None:
    folder = unpack(tmp_path, data_set, number)
    form = cifar._FORMS[data_set][number]
    names = [NAMES[data_set][0]]
    (folder / form.meta).write_bytes(
        pickle.dumps({form.names_key: names}) if form.names_key else names[0].encode()
    )
    with pytest.raises(InputError, match="names 1 classes"):
        load_cifar(data_set, tmp_path)


# Pickles


class Touches:
    """Unpickled by pickle itself it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("file", ["batches.meta", "data_batch_2"])
def test_a_malicious_pickle_is_refused_and_does_not_run(
    tmp_path: Path, file: str, protocol: int
) -> None:
    folder = unpack(tmp_path, "cifar10", 1)
    trace = tmp_path / "trace"
    harmful = pickle.dumps({"data": Touches(trace)}, protocol=protocol)
    (folder / file).write_bytes(harmful)
    with pytest.raises(InputError, match=r"carries the Python object \w+\.system"):
        load_cifar("cifar10", tmp_path)
    assert not trace.exists()
    pickle.loads(harmful)
    assert trace.exists()  # the check could have failed


@pytest.mark.parametrize(
    "batch",
    [
        [],
        {},
        {"data": np.zeros((2, 3072), np.float32), "labels": [0, 1]},
        {"data": np.zeros((2, 1024), np.uint8), "labels": [0, 1]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [0]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": ["0", "1"]},
        {"data": np.zeros((0, 3072), np.uint8), "labels": []},
    ],
)
def test_a_pickle_of_something_else_is_refused(tmp_path: Path, batch: object) -> None:
    path = unpack(tmp_path, "cifar10", 1) / "data_batch_1"
    path.write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(InputError, match="not the published file") as caught:
        load_cifar("cifar10", tmp_path)
    assert str(path) in str(caught.value)


def test_the_pickles_of_python_2(tmp_path: Path) -> None:
    """Their strings are bytes, and NumPy's modules have their old names."""
    folder = unpack(tmp_path, "cifar10", 1)
    pixels, labels = (part[0] for part in contents("cifar10"))
    raw = pixels.tobytes()
    old = (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\n"
        b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x04M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T" + len(raw).to_bytes(4, "little") + raw + b"tb"
        b"U\x06labels](" + b"".join(b"K" + bytes([label]) for label in labels) + b"eu."
    )
    (folder / "data_batch_1").write_bytes(old)
    check("cifar10", tmp_path)


# Download


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is served in place of the published site."""
    folder = tmp_path / "site"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    handler = partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        monkeypatch.setattr(cifar, "_SITE", f"http://127.0.0.1:{server.server_port}/")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield folder
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("data_set", ["cifar10", "cifar100"])
def test_the_binary_archive_is_downloaded_once(
    tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch, data_set: str
) -> None:
    published = pack(site, data_set, 0)
    trust(monkeypatch, data_set, 0, published)
    root = tmp_path / "data" / data_set
    check(data_set, root)
    assert [path.name for path in root.iterdir()] == [published.name]
    published.unlink()
    check(data_set, root)


def test_a_failed_download_says_where_to_put_the_archive(tmp_path: Path, site: Path) -> None:
    root = tmp_path / "data"
    with pytest.raises(WorkError) as caught:
        load_cifar("cifar100", root)
    assert "404" in str(caught.value)
    assert str(root / "cifar-100-binary.tar.gz") in str(caught.value)


def test_a_download_with_a_wrong_md5_is_refused(tmp_path: Path, site: Path) -> None:
    pack(site, "cifar10", 0)
    with pytest.raises(WorkError, match="expected c32a1d4ab5d03f1284b67883e8d87530"):
        load_cifar("cifar10", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []
