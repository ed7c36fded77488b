"""Put a share of each class aside for validation: the same images on every machine, for good."""

from __future__ import annotations

import math

import numpy as np


def stratified_split(
    labels: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Indices (count,) that stay and that are put aside, both ascending.

    In all `fraction` of the images is put aside, rounded up, and of each class its share to within
    one image, but at least one image of each class on each side.

    Raises ValueError where a class has only one image.
    """
    classes, members, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if counts.min() < 2:
        raise ValueError(f"class {classes[counts.argmin()]} has one image: it cannot be split")
    shares = np.round(counts * fraction, 9)
    aside = np.floor(shares).astype(np.int64)
    missing = math.ceil(round(len(labels) * fraction, 9)) - int(aside.sum())
    remainders = np.round(
        shares - aside, 9
    )  # rounded, so that equal ones are: the first class wins
    aside[np.argsort(-remainders, kind="stable")[:missing]] += 1
    aside = np.clip(aside, 1, counts - 1)

    # The raw stream of a bit generator is fixed for good (NEP 19); methods of Generator, shuffle
    # and permutation among them, may draw otherwise in a later NumPy and move the split.
    keys = np.random.PCG64(seed).random_raw(len(labels))
    drawn = np.argsort(keys, kind="stable")
    drawn = drawn[np.argsort(members[drawn], kind="stable")]  # class by class, shuffled within
    firsts = np.cumsum(counts) - counts
    place_in_class = np.arange(len(labels)) - np.repeat(firsts, counts)
    is_aside = np.zeros(len(labels), dtype=bool)
    is_aside[drawn] = place_in_class < np.repeat(aside, counts)
    return np.flatnonzero(~is_aside), np.flatnonzero(is_aside)
