"""Data sets small enough to be held in memory as pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np

from res2net.data.sources.scan import first_few
from res2net.data.sources.split import stratified_split
from res2net.errors import InputError

_DIGITS_VAL_FRACTION = 0.2


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

    def places(self, indices: np.ndarray) -> bytes:
        """Nothing: pixels tell."""
        return b""

    def states(self, indices: np.ndarray) -> None:
        """No files."""

    def subset(self, indices: np.ndarray) -> ArraySource:
        """The images of `indices` (count,), in that order."""
        return replace(self, labels=self.labels[indices], images=self.images[indices])


def array_source(
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


def open_digits(
    split_seed: int, class_names: Sequence[str] | None
) -> tuple[ArraySource, ArraySource]:
    """scikit-learn's digits, 8 x 8 pixels: 1,437 to train on and 360 put aside."""
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
        array_source("digits/train", names, images[stay], labels[stay], class_names),
        array_source("digits/val", names, images[aside], labels[aside], class_names),
    )
