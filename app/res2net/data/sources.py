"""What there is: a data set's images, their labels and the names of its classes.

A source knows nothing of order, ranks or decoding. A new kind is one class of the form `Source`,
opened by `open_sources`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import numpy as np

from res2net.data.cifar import load_cifar
from res2net.data.folder import FolderSource, open_folder, open_split_folder
from res2net.data.scan import first_few
from res2net.data.shards import DESCRIPTION, open_shard_split, open_shards
from res2net.data.split import stratified_split
from res2net.errors import InputError

__all__ = ["SOURCES", "ArraySource", "FolderSource", "Source", "open_folder", "open_sources"]

SOURCES = ("folder", "shards", "cifar10", "cifar100", "digits")

_DIGITS_VAL_FRACTION = 0.2


class Source(Protocol):
    """A data set, or one split of it."""

    @property
    def holds(self) -> Literal["paths", "files", "pixels"]:
        """What `read` gives: paths of image files, the bytes of such files, or decoded images."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The n-th is called label n."""

    @property
    def labels(self) -> np.ndarray:
        """int64 (count,)."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What messages call an image."""

    def read(self, indices: np.ndarray) -> Sequence[np.ndarray] | np.ndarray:
        """Indices (n,) -> n arrays of uint8 (bytes,); of `pixels` uint8 (n, H, W, 3)."""

    def subset(self, indices: np.ndarray) -> Source:
        """The images of `indices` (count,), in that order."""


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Images in memory: uint8 (count, H, W, 3), labels int64 (count,)."""

    origin: str
    """Data set and split, as in `digits/train`."""
    class_names: tuple[str, ...]
    labels: np.ndarray
    images: np.ndarray = field(repr=False)
    holds: ClassVar[Literal["pixels"]] = "pixels"

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """What messages call an image: `digits/train/17`."""
        return f"{self.origin}/{index}"

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Indices (n,) -> uint8 (n, H, W, 3)."""
        return self.images[indices]

    def subset(self, indices: np.ndarray) -> ArraySource:
        """The images of `indices` (count,), in that order."""
        return replace(self, labels=self.labels[indices], images=self.images[indices])


def open_evaluation(
    directory: str, *, class_names: Sequence[str] | None, labels: str | None
) -> Source:
    """The images to evaluate on: a folder as `open_folder` takes it, or the val split of shards.

    Raises InputError.
    """
    if not os.path.isfile(os.path.join(directory, DESCRIPTION)):
        return open_folder(directory, class_names=class_names, labels=labels)
    if labels is not None:
        raise InputError(f"{labels}: shards have their labels, and take no file of them")
    return open_shard_split(directory, "val", class_names=class_names)


def file_of(source: Source, index: int) -> np.ndarray:
    """The bytes of an image file, uint8 (bytes,), of a source that holds paths or files.

    Raises:
        OSError: the file cannot be read.
    """
    (held,) = source.read(np.array([index]))
    return np.fromfile(bytes(held), dtype=np.uint8) if source.holds == "paths" else held


def open_sources(
    source: str,
    root: str,
    *,
    train_dir: str = "",
    val_dir: str = "",
    val_labels: str = "",
    val_fraction: float = 0.1,
    split_seed: int = 0,
    class_names: Sequence[str] | None = None,
) -> tuple[Source, Source]:
    """Open a data set for training and validation; the arguments are the keys of group `data`.

    An empty `root` is data/<source>. With `class_names` these number the classes, as a trained
    model has them; else the data's own do, folders sorted by name. The labels of a
    validation folder without class folders are in `val_labels`, or found by their file's name.

    CIFAR is downloaded into `root` if it is not there; its validation images are the published test
    batch. Of the digits a fifth is put aside (1,437 and 360 images).

    Raises InputError for what the data or the keys lack, WorkError when a download fails.
    """
    root = root or os.path.join("data", source)
    if split_seed < 0:
        raise InputError(f"data.split_seed={split_seed}: expected 0 or more")
    if source == "folder":
        return open_split_folder(
            root,
            train_dir,
            val_dir,
            val_fraction,
            split_seed,
            class_names=class_names,
            val_labels=val_labels,
        )
    if train_dir or val_dir or val_labels:
        raise InputError(
            f"data.train_dir={train_dir!r}, data.val_dir={val_dir!r}, data.val_labels="
            f"{val_labels!r}: only data.source=folder has such folders, not {source}"
        )
    if source == "shards":
        return open_shards(
            root, val_fraction=val_fraction, split_seed=split_seed, class_names=class_names
        )
    if source == "digits":
        return _open_digits(split_seed, class_names)
    if source in ("cifar10", "cifar100"):
        names, *splits = load_cifar(source, Path(root))
        train, val = (
            _array_source(f"{source}/{split}", names, images, labels, class_names)
            for split, (images, labels) in zip(("train", "test"), splits, strict=True)
        )
        return train, val
    raise InputError(f"data.source={source}: expected one of {', '.join(SOURCES)}")


def _array_source(
    origin: str,
    names: Sequence[str],
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str] | None,
) -> ArraySource:
    """Images whose labels count in `names`, renumbered as `class_names` where given."""
    known = tuple(class_names or names)
    if unknown := [name for name in names if name not in known]:
        raise InputError(
            f"{origin}: unknown class {first_few(unknown)} (known: {first_few(known)})"
        )
    numbers = np.array([known.index(name) for name in names], dtype=np.int64)
    return ArraySource(origin=origin, class_names=known, labels=numbers[labels], images=images)


def _open_digits(
    split_seed: int, class_names: Sequence[str] | None
) -> tuple[ArraySource, ArraySource]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError(
            "data.source=digits: the images come with scikit-learn; "
            "pip install res2net-lightning[quickstart]"
        ) from error
    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8), values 0..16
    images = np.repeat(grey[..., np.newaxis], 3, axis=-1)
    labels = digits.target.astype(np.int64)
    names = tuple(str(digit) for digit in range(10))
    stay, aside = stratified_split(labels, _DIGITS_VAL_FRACTION, split_seed)
    return (
        _array_source("digits/train", names, images[stay], labels[stay], class_names),
        _array_source("digits/val", names, images[aside], labels[aside], class_names),
    )
