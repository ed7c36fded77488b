"""The form every data set has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np


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

    def places(self, indices: np.ndarray) -> bytes:
        """Indices (n,) -> bytes that are the same as long as these images have the same places in
        the data set; empty: only their number tells."""

    def states(self, indices: np.ndarray) -> np.ndarray | None:
        """Indices (n,) -> int64 (n, 2): the bytes of each image's file, and its ctime, when it or
        what is known of it was changed, in ns since 1970; None: the images are in memory.

        Raises:
            OSError: a file is not there any more.
        """

    def subset(self, indices: np.ndarray) -> Source:
        """The images of `indices` (count,), in that order."""


def file_of(source: Source, index: int) -> np.ndarray:
    """The bytes of an image file, uint8 (bytes,), of a source that holds paths or files.

    Raises:
        OSError: the file cannot be read.
    """
    (held,) = source.read(np.array([index]))
    return np.fromfile(bytes(held), dtype=np.uint8) if source.holds == "paths" else held
