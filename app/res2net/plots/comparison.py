"""Several runs on common axes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from res2net.files.metrics import Metrics
from res2net.plots.figure import (
    SERIES,
    finish_axes,
    heading,
    line,
    new_figure,
    save,
    shortened,
)

_STYLES = ("-", "--", ":", "-.")
_LETTERS = 60


def draw_comparison(runs: Mapping[str, Metrics], picture: Path) -> None:
    """PNG: the training loss and the validation's top-1 of each run, by its name. Raises OSError.

    The loss is an epoch's mean, or of the steps before the first epoch ended.
    """
    rows = -(-len(runs) // 2)
    figure = new_figure(12, 4.4 + 0.2 * rows)
    loss, accuracy = figure.subplots(1, 2)
    unit = "epoch" if any(run.unit == "epoch" for run in runs.values()) else "step"
    # before its first epoch ended a run has no place on an axis of epochs
    placed = {name: run for name, run in runs.items() if run.unit == unit}
    for number, (name, run) in enumerate(runs.items()):
        color, style = SERIES[number % len(SERIES)], _STYLES[number // len(SERIES) % len(_STYLES)]
        label = shortened(name, _LETTERS) if name in placed else f"{name}: not yet an epoch"
        drawn = run.curves if name in placed else {}
        losses = drawn.get(("train", "epoch_loss")) or drawn.get(("train", "loss")) or []
        right = [(x, 100 * y) for x, y in drawn.get(("val", "top1"), [])]
        for axes, points in ((loss, losses), (accuracy, right)):
            line(axes, points, label, color)
            if points:
                axes.lines[-1].set_linestyle(style)
        handle = accuracy.plot([], [], color=color, ls=style, lw=1.6, label=label)[0]
        handle.set_gid("key")
    heading(loss, "Training loss", legend=False)
    heading(accuracy, "Validation top-1 in %", legend=False)
    end = max((run.end for run in placed.values()), default=0.0)
    for axes in (loss, accuracy):
        finish_axes(axes, unit=unit, end=end)
    if all(drawn.get_gid() == "key" for drawn in accuracy.lines):
        accuracy.set_ylim(0, 100)
    keys = [drawn for drawn in accuracy.lines if drawn.get_gid() == "key"]
    figure.legend(
        keys,
        [str(key.get_label()) for key in keys],
        loc="outside upper left",
        ncols=2,
        frameon=False,
        fontsize=9,
    )
    save(figure, picture)
