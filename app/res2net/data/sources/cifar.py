"""CIFAR-10 and CIFAR-100 from their published archives (https://www.cs.toronto.edu/~kriz/cifar.html).

Four forms are read as they lie: the binary or the Python version, unpacked or as an archive. A
record of the binary version is its label bytes (CIFAR-100: coarse, then fine), then 3 planes of
32 x 32. The Python version is made of pickles, which are read without letting them run anything.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from res2net.errors import DamagedFileError, InputError
from res2net.files.download import download
from res2net.files.inert import RefusedNameError
from res2net.files.pickled_arrays import NUMPY, PickledArray
from res2net.files.pickles import PLAIN, budget_of, read_pickle

_PIXELS = 3 * 32 * 32


class Split(NamedTuple):
    """Half of a data set: images uint8 (count, 32, 32, 3), labels int64 (count,)."""

    images: np.ndarray
    labels: np.ndarray


class Cifar(NamedTuple):
    """A data set; `val` is the published test batch."""

    class_names: tuple[str, ...]
    train: Split
    val: Split


@dataclass(frozen=True)
class _Form:
    """One of the published forms of a data set."""

    archive: str
    md5: str
    folder: str
    """What the archive unpacks to."""
    train: tuple[str, ...]
    val: str
    meta: str
    """The file with the names of the classes."""
    label_bytes: int = 0
    """Binary form: bytes before the pixels, the last of which is the label."""
    label_key: str = ""
    """Python form: key of the labels in a batch."""
    names_key: str = ""
    """Python form: key of the names in `meta`."""

    @property
    def url(self) -> str:
        return _SITE + self.archive


_SITE = "https://www.cs.toronto.edu/~kriz/"

# The first form of each is the one that is downloaded.
_FORMS: dict[str, tuple[_Form, ...]] = {
    "cifar10": (
        _Form(
            archive="cifar-10-binary.tar.gz",
            md5="c32a1d4ab5d03f1284b67883e8d87530",
            folder="cifar-10-batches-bin",
            train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
            val="test_batch.bin",
            meta="batches.meta.txt",
            label_bytes=1,
        ),
        _Form(
            archive="cifar-10-python.tar.gz",
            md5="c58f30108f718f92721af3b95e74349a",
            folder="cifar-10-batches-py",
            train=tuple(f"data_batch_{number}" for number in range(1, 6)),
            val="test_batch",
            meta="batches.meta",
            label_key="labels",
            names_key="label_names",
        ),
    ),
    "cifar100": (
        _Form(
            archive="cifar-100-binary.tar.gz",
            md5="03b5dce01913d631647c71ecec9e9cb8",
            folder="cifar-100-binary",
            train=("train.bin",),
            val="test.bin",
            meta="fine_label_names.txt",
            label_bytes=2,
        ),
        _Form(
            archive="cifar-100-python.tar.gz",
            md5="eb9058c3a382ffc7106e4002c42a8d85",
            folder="cifar-100-python",
            train=("train",),
            val="test",
            meta="meta",
            label_key="fine_labels",
            names_key="fine_label_names",
        ),
    ),
}


def load_cifar(data_set: str, root: Path, *, fetch: bool = True) -> Cifar:
    """Read "cifar10" or "cifar100" from `root`, downloading it if it is not there.

    With `fetch` false nothing is downloaded and nothing made: then it has to be there.

    Raises InputError naming the file that is missing, truncated or not what it should be, and
    WorkError where the download fails.
    """
    form, place = _locate(data_set, root, fetch)
    members = _read_members(form, place)
    read_names, read_batch = (
        (_names_of_pickle, _batch_of_pickle)
        if form.names_key
        else (_names_of_text, _batch_of_bytes)
    )
    class_names = read_names(form, place / form.meta, members[form.meta])
    batches = {
        name: read_batch(form, place / name, members.pop(name)) for name in (*form.train, form.val)
    }
    for name, batch in batches.items():
        if batch.labels.min() < 0 or batch.labels.max() >= len(class_names):
            raise InputError(
                f"{place / name}: labels reach from {batch.labels.min()} to {batch.labels.max()}, "
                f"but {form.meta} names {len(class_names)} classes; remove it to fetch it again"
            )
    train = Split(
        np.concatenate([batches[name].images for name in form.train]),
        np.concatenate([batches[name].labels for name in form.train]),
    )
    return Cifar(class_names, train, batches[form.val])


def _locate(data_set: str, root: Path, fetch: bool) -> tuple[_Form, Path]:
    forms = _FORMS[data_set]
    for form in forms:
        if (root / form.folder).is_dir():
            return form, root / form.folder
    form = next((form for form in forms if (root / form.archive).exists()), forms[0])
    if not fetch and not (root / form.archive).is_file():
        raise InputError(
            f"{root}: {data_set} is not there, and what a file says is no reason to download it: "
            f"`res2net data download {data_set} --root DIR` does"
        )
    return form, download(form.url, root / form.archive, digest=form.md5, algorithm="md5")


def _read_members(form: _Form, place: Path) -> dict[str, bytes]:
    """The bytes of each of the form's files, by name."""
    wanted = {*form.train, form.val, form.meta}
    if place.is_dir():
        found = {name: (place / name).read_bytes() for name in wanted if (place / name).is_file()}
    else:
        found = {}
        # A stream is unpacked once, in memory; nothing in an archive can choose where it lands.
        with tarfile.open(place, "r|*") as archive:
            for member in archive:
                folder, _, name = member.name.removeprefix("./").rpartition("/")
                content = archive.extractfile(member) if folder == form.folder else None
                if content is not None and name in wanted:
                    found[name] = content.read()
    if missing := sorted(wanted - found.keys()):
        raise InputError(
            f"{place}: {', '.join(missing)} missing; unpack {form.archive} again, or remove "
            f"{place.name} to have it fetched"
        )
    return found


def _names_of_text(form: _Form, place: Path, content: bytes) -> tuple[str, ...]:
    return tuple(content.decode("ascii", "replace").split())


def _batch_of_bytes(form: _Form, place: Path, content: bytes) -> Split:
    record = form.label_bytes + _PIXELS
    if not content or len(content) % record:
        raise InputError(
            f"{place}: {len(content):,} bytes are not a whole number of records of {record:,} "
            f"bytes: truncated or another file; remove it and unpack {form.archive} again"
        )
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, record)
    labels = records[:, form.label_bytes - 1].astype(np.int64)
    return Split(_images(records[:, form.label_bytes :]), labels)


def _names_of_pickle(form: _Form, place: Path, content: bytes) -> tuple[str, ...]:
    names = _unpickle(place, content).get(form.names_key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{place}: no list {form.names_key!r}: not the published file")
    return tuple(str(name) for name in names)


def _batch_of_pickle(form: _Form, place: Path, content: bytes) -> Split:
    batch = _unpickle(place, content)
    pixels, labels = _made(batch.get("data")), batch.get(form.label_key)
    if not (
        isinstance(pixels, np.ndarray)
        and pixels.dtype == np.uint8
        and pixels.shape[1:] == (_PIXELS,)
        and isinstance(labels, list)
        and 0 < len(labels) == len(pixels)
        and all(isinstance(label, int) and 0 <= label < 1 << 31 for label in labels)
    ):
        raise InputError(
            f"{place}: expected 'data' of uint8 (count, {_PIXELS}) and as many {form.label_key!r}: "
            f"not the published file; remove it and unpack {form.archive} again"
        )
    return Split(_images(pixels), np.asarray(labels, dtype=np.int64))


def _images(planes: np.ndarray) -> np.ndarray:
    """uint8 (count, 3072), plane after plane -> (count, 32, 32, 3)."""
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _unpickle(place: Path, content: bytes) -> Mapping[str, Any]:
    budget = budget_of(len(content))
    try:
        value = read_pickle(io.BytesIO(content), known={**PLAIN, **NUMPY}, budget=budget)
    except RefusedNameError as error:
        raise InputError(
            f"{place}: {error}; not the published file, which holds NumPy arrays alone"
        ) from error
    except DamagedFileError as error:
        raise InputError(f"{place}: {error}; remove it to fetch it again") from error
    if not isinstance(value, dict):
        raise InputError(f"{place}: a pickle of {type(value).__name__}: not the published file")
    return value


def _made(array: Any) -> Any:
    """The array itself, or what else is there."""
    try:
        return array.make() if isinstance(array, PickledArray) else array
    except ValueError:
        return None
