"""Loss, accuracy and learning rate of a run over its epochs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from res2net.files.metrics import Points, read_metrics
from res2net.files.names import shown
from res2net.plots.figure import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    VERMILLION,
    finish_axes,
    fit_losses,
    heading,
    label_ends,
    legend_above,
    line,
    new_figure,
    save,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FEW = 3
"""Values that are no curve yet: each is written beside its marker."""

_ACCURACIES = (
    ("train", "epoch_top1", "train", BLUE),
    ("val", "top1", "val", VERMILLION),
    ("val", "top5", "val top-5", ORANGE),
    ("val_ema", "top1", "val, EMA", GREEN),
)


def draw_curves(metrics_csv: Path, picture: Path) -> None:
    """Draw what `metrics_csv` holds so far as a PNG of 1200 x 400 pixels.

    The title is the name of the folder that holds `metrics_csv`. Raises OSError if a file cannot
    be read or written, and ValueError if the table is not a run's.
    """
    metrics = read_metrics(metrics_csv)
    curves = metrics.curves
    figure = new_figure(12, 4, constrained=False)
    figure.subplots_adjust(left=0.04, right=0.985, bottom=0.125, top=0.75, wspace=0.34)
    name = metrics_csv.absolute().parent.name
    figure.suptitle(shown(name), x=0.04, ha="left", y=0.97, fontsize=12, parse_math=False)
    loss, accuracy, rate = figure.subplots(1, 3)

    line(loss, curves["train", "loss"], "train, by step", BLUE, thin=True)
    line(loss, curves["train", "epoch_loss"], "train, epoch mean", BLUE)
    line(loss, curves["val", "loss"], "val", VERMILLION)
    heading(loss, f"Loss{fit_losses(loss)}")

    ends = []
    for split, key, label, color in _ACCURACIES:
        points = [(x, 100 * y) for x, y in curves[split, key]]
        line(accuracy, points, label, color)
        if points:
            ends.append((*points[-1], color))
    if not ends:
        accuracy.set_ylim(0, 100)
    heading(accuracy, "Top-1 in %")

    rates = curves["train", "lr"]
    line(rate, rates, "", INK)
    heading(rate, f"Learning rate{_how_few(rates)}")
    rate.set_ylim(0, 1.2 * max([0.0, *(y for _, y in rates)]) or 1)
    if len(rates) <= _FEW:
        for x, y in rates:
            _name_value(rate, x, y, at_end=x > 0.95 * metrics.end)

    for axes in (loss, accuracy, rate):
        finish_axes(axes, unit=metrics.unit, end=metrics.end)
        legend_above(axes, columns=4 if len(ends) == 4 and axes is accuracy else 3)
    label_ends(accuracy, ends)
    save(figure, picture)


def _how_few(points: Points) -> str:
    """Why there is no curve: rows come every so many steps."""
    if len(points) > _FEW:
        return ""
    return f" ({('no value', 'one value', 'two values', 'three values')[len(points)]} logged)"


def _name_value(axes: Axes, x: float, y: float, *, at_end: bool) -> None:
    axes.annotate(
        f"{y:.3g}",
        xy=(x, y),
        xytext=(4 if at_end else 0, 7),
        textcoords="offset points",
        ha="right" if at_end else "center",  # none leaves the picture
        fontsize=9,
        color=INK,
        bbox={"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none"},  # over the line
    )
