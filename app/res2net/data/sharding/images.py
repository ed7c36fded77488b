"""What is written to shards: the images of one split, in order, as bytes that can be read anywhere.

A kind of input is one class of the form `Images`; `inputs.open_inputs` finds out which it is.
Objects of it are sent to worker processes, so they hold paths and places, never open files.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from res2net.data.sources.folder import FolderSource


class Images(Protocol):
    """One split of a data set."""

    @property
    def kind(self) -> str:
        """What they come from, as shards.json tells it."""

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def labels(self) -> np.ndarray:
        """int64 (count,)."""

    def __len__(self) -> int: ...

    def path(self, index: int) -> str:
        """Below the data set, `/` between folders; what the image's key is made of."""

    def name(self, index: int) -> str:
        """What messages call an image."""

    def read(self, index: int) -> bytes:
        """The image file. Raises OSError."""


@dataclass(frozen=True)
class FolderImages:
    """Image files in folders."""

    source: FolderSource
    kind: ClassVar[str] = "folder"

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.source.class_names

    @property
    def labels(self) -> np.ndarray:
        """int64 (count,)."""
        return self.source.labels

    def __len__(self) -> int:
        return len(self.source)

    def path(self, index: int) -> str:
        """Below the folder of the split."""
        return below(self.source.path(index), self.source.root)

    def name(self, index: int) -> str:
        """Its path."""
        return self.source.name(index)

    def read(self, index: int) -> bytes:
        """The file."""
        with open(self.source.path(index), "rb") as file:
            return file.read()


def below(path: str, root: str) -> str:
    """What os.path.relpath gives of a path that was joined to `root`, in a tenth of its time."""
    return path.removeprefix(root).lstrip(os.sep).replace(os.sep, "/")


def digest(images: Images) -> str:
    """SHA-256 of the paths and labels, in order: whether two lists of images are the same."""
    total = hashlib.sha256(np.ascontiguousarray(images.labels, dtype="<i8").data)
    for index in range(len(images)):
        total.update(images.path(index).encode("utf-8", "surrogateescape") + b"\0")
    return total.hexdigest()
