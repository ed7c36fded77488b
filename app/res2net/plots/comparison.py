"""Several runs on common axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from res2net.files.metrics import Metrics
from res2net.plots.figure import (
    FAINT,
    INK,
    SERIES,
    finish_axes,
    heading,
    line,
    new_figure,
    save,
    shortened,
)

_STYLES = ("-", ":", "-.")
_AVERAGED = "--"
_LETTERS = 60
_LETTERS_OF_WHY = 75


def draw_comparison(
    runs: Mapping[str, Metrics], picture: Path, *, losses_differ_by: Sequence[str] = ()
) -> None:
    """PNG: the loss and the validation's top-1 of each run, by its name. Raises OSError.

    The loss is training's, an epoch's mean, or of the steps before the first epoch ended. Where
    the runs minimise different ones, these are no measure of each other: then it is validation's,
    plain cross-entropy in every run. Averaged weights have a dashed line.

    Args:
        losses_differ_by: full keys of the settings that make the training losses different.
    """
    averaged = any(run.curves.get(("val_ema", "top1")) for run in runs.values())
    rows = -(-(len(runs) + averaged) // 2)
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
        if losses_differ_by:
            losses = drawn.get(("val", "loss"), [])
        right, average = (
            [(x, 100 * y) for x, y in drawn.get((split, "top1"), [])]
            for split in ("val", "val_ema")
        )
        for axes, points, dashes in (
            (loss, losses, style),
            (accuracy, average, _AVERAGED),
            (accuracy, right, style),
        ):
            line(axes, points, label, color)
            if points:
                axes.lines[-1].set_linestyle(dashes)
        handle = accuracy.plot([], [], color=color, ls=style, lw=1.6, label=label)[0]
        handle.set_gid("key")
    if averaged:
        handle = accuracy.plot([], [], color=INK, ls=_AVERAGED, lw=1.6, label="averaged weights")[0]
        handle.set_gid("key")
    different = bool(losses_differ_by)
    heading(
        loss, "Validation loss (cross-entropy)" if different else "Training loss", legend=different
    )
    heading(accuracy, "Validation top-1 in %", legend=different)
    if different:
        why = f"the training losses differ in kind: {', '.join(losses_differ_by)}"
        loss.annotate(
            shortened(why, _LETTERS_OF_WHY),
            xy=(0, 1),
            xycoords="axes fraction",
            xytext=(0, 8),
            textcoords="offset points",
            fontsize=9,
            color=FAINT,
            parse_math=False,
        )
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
