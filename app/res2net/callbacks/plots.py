"""`plots/curves.png`: loss, accuracy and learning rate over the epochs, drawn from `metrics.csv`.

Logs nothing.
"""

from __future__ import annotations

import csv
import io
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import lightning as L

from res2net.files.atomic import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = list[tuple[float, float]]
"""Steps (later epochs) and values of one curve."""

INTERVAL = 30.0
"""Seconds between two drawings: one takes about a second, a validation may take less."""

# Okabe and Ito's palette, told apart with every kind of colour blindness.
_TRAIN, _VAL, _VAL_TOP5, _INK = "#0072B2", "#D55E00", "#E69F00", "#333333"
_FEW = 12  # points that still want a marker each


class Curves(L.Callback):
    """Draws after validations and at the end of the fit, on rank 0."""

    def __init__(self, metrics_csv: Path, picture: Path) -> None:
        self.metrics_csv = metrics_csv
        self.picture = picture
        self._drawn_at = time.monotonic()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit" and time.monotonic() - self._drawn_at > INTERVAL:
            self._draw(trainer)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._draw(trainer)

    def _draw(self, trainer: L.Trainer) -> None:
        if not trainer.is_global_zero:
            return
        try:
            draw_curves(self.metrics_csv, self.picture)
        except Exception as error:  # a full disk or a broken font must not end a run of days
            reason = " ".join(str(error).split()) or type(error).__name__
            print(f"{self.picture} was not drawn: {reason}", file=sys.stderr)
        self._drawn_at = time.monotonic()


def draw_curves(metrics_csv: Path, picture: Path) -> None:
    """Draw what `metrics_csv` holds so far as a PNG of 1200 x 400 pixels.

    The title is the name of the folder that holds `metrics_csv`. Raises OSError if a file cannot
    be read or written, and KeyError or ValueError if the table is not `callbacks.metrics_csv`'s.
    """
    # These take half a second, which `res2net --help` and other ranks need not spend. The Figure
    # object is used without pyplot: it keeps no global state and needs no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    curves, unit = _read(metrics_csv)
    figure = Figure(figsize=(12, 4), dpi=100, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.035, right=0.985, bottom=0.125, top=0.75, wspace=0.34)
    name = metrics_csv.absolute().parent.name
    figure.suptitle(name, x=0.035, ha="left", y=0.97, fontsize=12, parse_math=False)
    loss, accuracy, rate = figure.subplots(1, 3)

    _line(loss, curves["train", "loss"], "train, by step", _TRAIN, thin=True)
    _line(loss, curves["train", "epoch_loss"], "train, epoch mean", _TRAIN)
    _line(loss, curves["val", "loss"], "val", _VAL)
    loss.set_title("Loss", loc="left", pad=24, fontsize=10, fontweight="bold")

    named = (
        ("train", "epoch_top1", "train top-1", _TRAIN),
        ("val", "top1", "val top-1", _VAL),
        ("val", "top5", "val top-5", _VAL_TOP5),
    )
    ends = []
    for split, key, label, color in named:
        points = [(x, 100 * y) for x, y in curves[split, key]]
        _line(accuracy, points, label, color)
        if points:
            ends.append((*points[-1], color))
    if not ends:
        accuracy.set_ylim(0, 100)
    accuracy.set_title("Accuracy in %", loc="left", pad=24, fontsize=10, fontweight="bold")

    _line(rate, curves["train", "lr"], "", _INK)
    rate.set_title("Learning rate", loc="left", pad=24, fontsize=10, fontweight="bold")
    rate.set_ylim(bottom=0)

    last = max((x for points in curves.values() for x, _ in points), default=1)
    for axes in (loss, accuracy, rate):
        axes.set_xlabel(unit)
        axes.set_xlim(0, 1.02 * last)  # the last marker is not cut in halves
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=last >= 2))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(
                loc="lower left",
                bbox_to_anchor=(0, 1),  # above the axes, where no curve can be
                ncols=3,
                frameon=False,
                fontsize=9,
                borderaxespad=0.3,
                borderpad=0,
                handlelength=1.4,
                columnspacing=1.2,
            )
    _label_ends(accuracy, ends)

    stream = io.BytesIO()
    canvas.print_png(stream)
    picture.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(picture) as file:
        file.write(stream.getvalue())


def _read(metrics_csv: Path) -> tuple[dict[tuple[str, str], Points], str]:
    """All curves by split and key, and what their x counts.

    The rows at the end of an epoch tell how many steps it has; without one, x counts steps.
    """
    curves: dict[tuple[str, str], Points] = defaultdict(list)
    steps_per_epoch = 0.0
    with metrics_csv.open(newline="") as file:
        for row in csv.DictReader(file):
            step, split, key = int(row["step"]), row["split"], row["key"]
            curves[split, key].append((step, float(row["value"])))
            if split == "val" or key.startswith("epoch_"):
                steps_per_epoch = step / (int(row["epoch"]) + 1)
    if not steps_per_epoch:
        return curves, "step"
    for points in curves.values():
        points[:] = [(step / steps_per_epoch, value) for step, value in points]
    return curves, "epoch"


def _line(axes: Axes, points: Points, label: str, color: str, *, thin: bool = False) -> None:
    if not points:
        return
    marker = "o" if len(points) <= (1 if thin else _FEW) else ""  # one point has no line
    width, opacity = (0.8, 0.45) if thin else (1.6, 1.0)
    x, y = zip(*points, strict=True)
    axes.plot(x, y, color=color, lw=width, alpha=opacity, marker=marker, ms=4, label=label)


def _label_ends(axes: Axes, ends: list[tuple[float, float, str]]) -> None:
    """Write the last values to the right of their curves, moved apart where they would overlap."""
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
