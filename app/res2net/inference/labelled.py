"""The classes of images that lie in folders called after them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

SPLITS = ("train", "training", "val", "valid", "validation", "test")
"""Folders of these names are no classes but parts of a data set."""


@dataclass(frozen=True)
class Labels:
    """Which class each of some images is of."""

    class_names: tuple[str, ...]
    """Sorted."""
    by_source: dict[str, int]
    """Each image's index in `class_names`, by its path."""

    def of(self, sources: Iterable[str]) -> np.ndarray:
        """int64 (N,)."""
        return np.array([self.by_source[source] for source in sources], np.int64)


def labels_of_folders(paths: Sequence[str], images: Iterable[str]) -> Labels | None:
    """The class of an image is the first folder on the way to it from the one that was given.

    None where that makes no labels: an image lies in none of `paths` or right in it, all lie in
    one, or these are the parts of a data set (`SPLITS`).

    Args:
        paths: Folders; what else they are has no labels.
        images: The images found in them.
    """
    roots = [os.path.join(path, "") for path in paths if os.path.isdir(path)]
    names: dict[str, str] = {}
    for image in images:
        root = next((root for root in roots if image.startswith(root)), None)
        if root is None:
            return None
        name, below, _ = image[len(root) :].lstrip(os.sep).partition(os.sep)
        if not below:
            return None
        names[image] = name
    classes = sorted(set(names.values()))
    if len(classes) < 2 or all(name.lower() in SPLITS for name in classes):
        return None
    index = {name: number for number, name in enumerate(classes)}
    return Labels(tuple(classes), {image: index[name] for image, name in names.items()})
