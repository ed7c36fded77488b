"""Accuracy class by class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from res2net.files.names import shown
from res2net.plots.figure import (
    BLUE,
    FAINT,
    VERMILLION,
    heading,
    new_figure,
    plain_axes,
    save,
    shortened,
)

ENDS = 20
"""Of more than twice as many classes, so many of the worst and of the best are shown."""

_LETTERS = 40


def draw_per_class(
    right: np.ndarray, images: np.ndarray, names: Sequence[str], path: Path, title: str
) -> None:
    """PNG: a bar a class, the worst first. Raises OSError.

    Args:
        right: (classes,), how many images of each were recognised.
        images: (classes,), of how many; classes without any are left out.
        names: of the classes.
    """
    classes = np.flatnonzero(images)
    shares = 100 * right[classes] / images[classes]
    # of equal shares the class with more images tells more, so it stands further out
    ascending = np.lexsort((-images[classes], shares))
    descending = np.lexsort((-images[classes], -shares))
    if len(classes) > 2 * ENDS:
        groups = [
            (f"The worst {ENDS} of {len(classes):,} classes", ascending[:ENDS], VERMILLION),
            (f"The best {ENDS}", descending[:ENDS], BLUE),
        ]
    else:
        groups = [("Top-1 by class in %", ascending, BLUE)]
    mean = 100 * right.sum() / max(1, images.sum())

    rows = max(len(members) for _, members, _ in groups)
    figure = new_figure(7.5 * len(groups), 1.7 + 0.23 * rows)
    figure.suptitle(shown(title), x=0.01, ha="left", fontsize=12, parse_math=False)
    panels = figure.subplots(1, len(groups), squeeze=False)[0]
    for axes, (text, members, color) in zip(panels, groups, strict=True):
        axes.barh(range(len(members)), shares[members], color=color, height=0.7)
        called = [
            f"{shortened(names[classes[member]], _LETTERS)}  ({images[classes[member]]:,})"
            for member in members
        ]
        axes.set_yticks(range(len(members)), called, fontsize=8, parse_math=False)
        for place, share in enumerate(shares[members]):
            axes.annotate(
                f"{share:.1f}",
                xy=(share, place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                # the line of the mean is not drawn through a number
                bbox={"boxstyle": "square,pad=0.15", "fc": "white", "ec": "none"},
            )
        axes.axvline(mean, color=FAINT, lw=0.9, ls="--")
        axes.set_xlim(0, 108)
        axes.set_xticks(range(0, 101, 20))
        axes.set_ylim(len(members) - 0.5, -0.5)
        axes.set_xlabel(
            f"% of the class's images (their number in brackets); dashed: all, {mean:.1f}"
        )
        axes.tick_params(axis="y", length=0)
        heading(axes, text, legend=False)
        plain_axes(axes)
    save(figure, path)
