"""What is taken for what."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from res2net.plots.figure import INK, new_figure, save, shortened

NAMED = 40
"""More classes are not named in the picture: the letters would run into each other."""

_LETTERS = 28


def count_confusions(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """int64 (classes, classes): images of the row's class taken for the column's.

    `labels` and `predicted`: int64 (images,).
    """
    cells = labels * classes + predicted
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def draw_confusion(matrix: np.ndarray, names: Sequence[str], path: Path, title: str) -> None:
    """PNG: each row the share of a class's images by what they were taken for. Raises OSError.

    Classes without images are left out; more than `NAMED` are numbered instead of named.

    Args:
        matrix: (classes, classes), of `count_confusions`.
        names: of the classes.
    """
    from matplotlib.colors import PowerNorm

    kept = np.flatnonzero(matrix.sum(axis=0) + matrix.sum(axis=1))
    matrix = matrix[np.ix_(kept, kept)]
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)

    inches = float(np.clip(0.32 * len(kept), 4.5, 11.0))
    figure = new_figure(inches + 2, inches + 1, dpi=120)
    axes = figure.subplots()
    image = axes.imshow(
        100 * shares,
        cmap="Blues",
        norm=PowerNorm(0.5, vmin=0, vmax=100),  # a few per cent are to be seen
        interpolation="nearest",
        aspect="equal",
    )
    axes.set_title(title, fontsize=10, loc="left", parse_math=False)
    axes.set_xlabel("taken for")
    axes.set_ylabel("class")
    if len(kept) <= NAMED:
        called = [shortened(names[index], _LETTERS) for index in kept.tolist()]
        axes.set_xticks(range(len(kept)), called, rotation=90, fontsize=8, parse_math=False)
        axes.set_yticks(range(len(kept)), called, fontsize=8, parse_math=False)
    else:
        places = range(0, len(kept), -(-len(kept) // 10))
        axes.set_xticks(places, kept[:: places.step].tolist())
        axes.set_yticks(places, kept[:: places.step].tolist())
    if len(kept) <= 20:
        for row, column in np.argwhere(matrix):
            axes.text(
                column,
                row,
                f"{100 * shares[row, column]:.0f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if shares[row, column] > 0.3 else INK,
            )
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("% of the class's images")
    save(figure, path)
