"""What the charts have in common: a figure, its colours, its axes and how it is saved.

Matplotlib is imported inside functions: it takes half a second, which those who draw nothing need
not spend. The Figure object is used without pyplot and needs no display.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from res2net.files.atomic import atomic_write
from res2net.files.metrics import Points
from res2net.files.names import shown
from res2net.files.place import make_folder_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart with every kind of colour blindness.
BLUE, VERMILLION, ORANGE, GREEN = "#0072B2", "#D55E00", "#E69F00", "#009E73"
PURPLE, SKY, INK, FAINT = "#CC79A7", "#56B4E9", "#333333", "#777777"
SERIES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, INK)
"""Colours of things of one kind, in turn."""

FEW = 12
"""Points that still want a marker each."""

_SPREAD = 20
"""On a linear axis what is so many times smaller than the greatest value is a flat line at 0."""

_HEADING = 24  # points between axes and heading: a legend has its place there


def new_figure(width: float, height: float, *, dpi: int = 100, constrained: bool = True) -> Figure:
    """An empty white figure, `width` x `height` in inches.

    `constrained`: Matplotlib makes room for all text; else the caller does.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(width, height),
        dpi=dpi,
        facecolor="white",
        layout="constrained" if constrained else None,
    )
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all; its folder is made if need be. Raises OSError."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # a letter that the font lacks is an empty box in the picture; nothing to act on
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure.savefig(stream, format="png")
    make_folder_of(path)
    with atomic_write(path) as file:
        file.write(stream.getvalue())


def heading(axes: Axes, text: str, *, legend: bool = True) -> None:
    """A bold heading on the left, with room for a legend (`legend_above`) below it."""
    pad = _HEADING if legend else 8
    axes.set_title(
        shown(text), loc="left", pad=pad, fontsize=10, fontweight="bold", parse_math=False
    )


def line(axes: Axes, points: Points, label: str, color: str, *, thin: bool = False) -> None:
    """A curve; nothing without points. `thin`: one of many values, behind the others."""
    if not points:
        return
    marker = "o" if len(points) <= (1 if thin else FEW) else ""  # one point has no line
    width, opacity = (0.8, 0.45) if thin else (1.6, 1.0)
    x, y = zip(*points, strict=True)
    axes.plot(x, y, color=color, lw=width, alpha=opacity, marker=marker, ms=4, label=label)


def fit_losses(axes: Axes) -> str:
    """Lay out the axis of losses that are drawn; returns what its heading has to add.

    It is logarithmic where a linear one would flatten a curve: after a first validation with norms
    that have hardly seen anything, after a spike, or where a run diverges. So nothing is cut off.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    curves = [np.asarray(drawn.get_ydata(), dtype=float) for drawn in axes.lines]
    curves = [values[(values > 0) & (values < np.inf)] for values in curves]
    curves = [values for values in curves if len(values)]
    middle = min((float(np.median(values)) for values in curves), default=1.0)
    if not curves or np.concatenate(curves).max() <= _SPREAD * middle:
        return ""
    axes.set_yscale("log")
    if np.concatenate(curves).min() < middle / 1000:  # single steps whose loss is next to nothing
        axes.set_ylim(bottom=middle / 1000)
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3) if high < 3000 * low else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: _short(y)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    return ", log scale"


def _short(value: float) -> str:
    """`300`, `0.03`, `3e-3`, `3e18`: so few letters that every chart has room for them."""
    if 0.01 <= value < 1000:
        return f"{value:g}"
    digit, power = f"{value:.0e}".split("e")
    return f"{digit}e{int(power)}"


def finish_axes(axes: Axes, *, unit: str, end: float) -> None:
    """Ticks and faint lines for a chart over `unit` from 0 to `end`."""
    from matplotlib.ticker import MaxNLocator

    last = end or 1
    axes.set_xlabel(unit)
    axes.set_xlim(0, 1.02 * last)  # the last marker is not cut in halves
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=last >= 2))
    plain_axes(axes)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)


def plain_axes(axes: Axes) -> None:
    """No frame above and on the right, lines behind what is drawn."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)


def legend_above(axes: Axes, *, columns: int = 3) -> None:
    """A legend above the axes, where no curve can be; none without labels."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=columns,
            frameon=False,
            fontsize=9,
            borderaxespad=0.3,
            borderpad=0,
            handlelength=1.4,
            columnspacing=1.2,
        )


def label_ends(axes: Axes, ends: Sequence[tuple[float, float, str]]) -> None:
    """Write last values (x, y, colour) right of their curves, moved apart where they overlap."""
    low, high = axes.get_ylim()
    height = 0.06 * (high - low)  # of a line of text
    previous = -float("inf")
    for x, y, color in sorted(ends, key=lambda end: end[1]):
        previous = max(y, previous + height)
        axes.annotate(
            f"{y:.1f}",
            xy=(x, previous),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=color,
            annotation_clip=False,
        )


def shortened(name: str, letters: int) -> str:
    """A name of at most so many letters, its end cut off; what cannot be seen as it is escaped."""
    name = shown(name)
    return name if len(name) <= letters else f"{name[: letters - 1].rstrip()}…"
