"""What is taken for what."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from res2net.files.names import shown
from res2net.plots.figure import FAINT, INK, heading, new_figure, save, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = 40
"""More classes are not named at the axes: the letters would run into each other."""

PAIRS = 25
"""Of more classes, so many pairs are listed by name."""

_LETTERS, _BESIDE = 28, 6.5  # inches


def count_confusions(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """int64 (classes, classes): images of the row's class taken for the column's.

    `labels` and `predicted`: int64 (images,).
    """
    cells = labels * classes + predicted
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def draw_confusion(matrix: np.ndarray, names: Sequence[str], path: Path, title: str) -> None:
    """PNG: each row the share of a class's images by what they were taken for. Raises OSError.

    Classes without images are left out. More than `NAMED` are numbered instead of named, and the
    pairs of them that are most often confused are listed beside.

    Args:
        matrix: (classes, classes), of `count_confusions`.
        names: of the classes.
    """
    from matplotlib.colors import PowerNorm

    kept = np.flatnonzero(matrix.sum(axis=0) + matrix.sum(axis=1))
    matrix = matrix[np.ix_(kept, kept)]
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)

    inches = float(np.clip(0.32 * len(kept), 4.5, 11.0))
    numbered = len(kept) > NAMED
    figure = new_figure(inches + 2 + _BESIDE * numbered, inches + 1, dpi=120)
    if numbered:
        axes, beside = figure.subplots(1, 2, width_ratios=(inches + 2, _BESIDE))
        called = [f"{shortened(names[index], _LETTERS)} ({index})" for index in kept.tolist()]
        _list_pairs(beside, matrix, called)
    else:
        axes = figure.subplots()
    image = axes.imshow(
        100 * shares,
        cmap="Blues",
        norm=PowerNorm(0.5, vmin=0, vmax=100),  # a few per cent are to be seen
        interpolation="nearest",
        aspect="equal",
    )
    axes.set_title(shown(title), fontsize=10, loc="left", parse_math=False)
    axes.set_xlabel("taken for")
    axes.set_ylabel("class")
    if not numbered:
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


def _list_pairs(axes: Axes, matrix: np.ndarray, names: Sequence[str]) -> None:
    """In the place of a chart: the mistakes that are most frequent, in words."""
    axes.set_axis_off()
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    what = "Most often confused (in brackets: the axes' numbers)" if wrong.any() else "No mistakes"
    heading(axes, what, legend=False)
    axes.set_ylim(PAIRS, -1)
    for place, cell in enumerate(np.argsort(-wrong, axis=None, kind="stable")[:PAIRS].tolist()):
        true, said = divmod(cell, len(matrix))
        if wrong[true, said]:
            often = f"{wrong[true, said]:,} of {matrix[true].sum():,}"
            words = f"{names[true]} \N{RIGHTWARDS ARROW} {names[said]}"
            axes.text(0.13, place, often, ha="right", fontsize=9, color=FAINT)
            axes.text(0.15, place, words, fontsize=9, color=INK, parse_math=False)
