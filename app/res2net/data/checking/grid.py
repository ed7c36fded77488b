"""A sample of a data set as one picture: do the labels fit what is to be seen?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from res2net.data.checking.run import Split
from res2net.data.sources.scan import counted
from res2net.data.sources.source import Source
from res2net.data.tile import tile
from res2net.imagenet import readable
from res2net.plots.tiles import COLUMNS, ROWS, draw_tiles


def draw_grid(split: Split, broken: Sequence[int], file: Path, *, title: str, seed: int = 0) -> int:
    """Write a PNG of 48 images with the names of their classes, and return how many it shows.

    Each is cut as for evaluation, without the resize to 256 that comes before. Of as many classes
    as there is room for, one after the other by name; the same ones with the same seed.

    Args:
        split: Where the images are from.
        broken: Indices in it that cannot be shown.
        file: Written anew.
        title: What stands above, on the left.
        seed: Of the draw.
    """
    source = split.source
    shown = _sample(source, broken, COLUMNS * ROWS, seed)
    names = readable(source.class_names)
    draw_tiles(
        [(tile(source, index), names[source.labels[index]]) for index in shown],
        file,
        title=title,
        note=f"{len(shown)} of {counted(len(source), 'image')}, cut as for evaluation",
    )
    return len(shown)


def _sample(source: Source, broken: Sequence[int], count: int, seed: int) -> list[int]:
    """Indices of up to `count` images, spread evenly over the classes as far as they reach."""
    numbers = np.setdiff1d(np.arange(len(source)), np.asarray(broken, dtype=np.int64))
    draws = np.random.PCG64(seed)  # its raw stream is the same in every version of NumPy
    numbers = numbers[np.argsort(draws.random_raw(len(numbers)), kind="stable")]
    labels = source.labels[numbers]
    by_class = np.argsort(labels, kind="stable")
    _, firsts, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    turn = np.empty(len(numbers), dtype=np.int64)  # the how-manieth of its class an image is
    turn[by_class] = np.arange(len(numbers)) - np.repeat(firsts, counts)
    chosen = numbers[np.argsort(turn, kind="stable")[:count]]
    return sorted((int(index) for index in chosen), key=lambda index: int(source.labels[index]))
