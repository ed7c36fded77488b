"""Loss, accuracy and learning rate of a run over its epochs."""

from __future__ import annotations

from pathlib import Path

from res2net.files.metrics import read_metrics
from res2net.plots.figure import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    VERMILLION,
    finish_axes,
    heading,
    label_ends,
    legend_above,
    line,
    new_figure,
    save,
)

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
    figure.subplots_adjust(left=0.035, right=0.985, bottom=0.125, top=0.75, wspace=0.34)
    name = metrics_csv.absolute().parent.name
    figure.suptitle(name, x=0.035, ha="left", y=0.97, fontsize=12, parse_math=False)
    loss, accuracy, rate = figure.subplots(1, 3)

    line(loss, curves["train", "loss"], "train, by step", BLUE, thin=True)
    line(loss, curves["train", "epoch_loss"], "train, epoch mean", BLUE)
    line(loss, curves["val", "loss"], "val", VERMILLION)
    heading(loss, "Loss")

    ends = []
    for split, key, label, color in _ACCURACIES:
        points = [(x, 100 * y) for x, y in curves[split, key]]
        line(accuracy, points, label, color)
        if points:
            ends.append((*points[-1], color))
    if not ends:
        accuracy.set_ylim(0, 100)
    heading(accuracy, "Top-1 in %")

    line(rate, curves["train", "lr"], "", INK)
    heading(rate, "Learning rate")
    rate.set_ylim(bottom=0)

    for axes in (loss, accuracy, rate):
        finish_axes(axes, unit=metrics.unit, end=metrics.end)
        legend_above(axes, columns=4 if len(ends) == 4 and axes is accuracy else 3)
    label_ends(accuracy, ends)
    save(figure, picture)
