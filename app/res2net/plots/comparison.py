"""Several runs on common axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from res2net.files.metrics import Metrics
from res2net.files.names import shown
from res2net.plots.figure import (
    FAINT,
    FEW,
    INK,
    SERIES,
    finish_axes,
    fit_losses,
    heading,
    line,
    new_figure,
    save,
    shortened,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLES = ("-", ":", "-.")
_AVERAGED = "--"
_LETTERS = 60
_LETTERS_OF_WHY = 75
_WIDTH, _WIDER, _WIDEST = 1.6, 3.2, 12.0  # points


def draw_comparison(
    runs: Mapping[str, Metrics], picture: Path, *, losses_differ_by: Sequence[str] = ()
) -> None:
    """PNG: the loss and the validation's top-1 of each run, by its name. Raises OSError.

    The loss is training's, an epoch's mean, or of the steps before the first epoch ended. Where
    the runs minimise different ones, these are no measure of each other: then it is validation's,
    plain cross-entropy in every run. Averaged weights have a dashed line. A line wholly below
    others is wider than they: both are seen.

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
        label = shortened(name, _LETTERS) if name in placed else f"{shown(name)}: not yet an epoch"
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
        handle = accuracy.plot([], [], color=color, ls=style, lw=_WIDTH, label=label)[0]
        handle.set_gid("key")
    if averaged:
        handle = accuracy.plot(
            [], [], color=INK, ls=_AVERAGED, lw=_WIDTH, label="averaged weights"
        )[0]
        handle.set_gid("key")
    different = bool(losses_differ_by)
    what = "Validation loss (cross-entropy)" if different else "Training loss"
    heading(loss, f"{what}{fit_losses(loss)}", legend=different)
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
        _tell_apart(axes)
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


def _tell_apart(axes: Axes) -> None:
    """Markers on all lines or on none; a line on which later ones lie shows beside them."""
    lines = [drawn for drawn in axes.lines if drawn.get_gid() != "key"]
    axes.get_ylim()  # the scale is settled when it is asked for
    places = [axes.transData.transform(drawn.get_xydata()) for drawn in lines]
    if any(len(place) > FEW for place in places):
        for drawn, place in zip(lines, places, strict=True):
            drawn.set_marker("o" if len(place) == 1 else "")
    above = [0] * len(lines)
    for number in reversed(range(len(lines))):
        later = range(number + 1, len(lines))
        hiding = [above[other] for other in later if _lies_on(places[other], places[number])]
        above[number] = 1 + max(hiding) if hiding else 0
    wider = min(_WIDER, _WIDEST / max([1, *above]))
    for drawn, count in zip(lines, above, strict=True):
        drawn.set_linewidth(_WIDTH + wider * count)
        drawn.set_markersize(drawn.get_markersize() + wider * count)


def _lies_on(upper: np.ndarray, lower: np.ndarray) -> bool:
    """Whether a line hides another one, all of it, to a pixel; (points, 2), x ascending."""
    upper, lower = (line[np.isfinite(line).all(axis=1)] for line in (upper, lower))
    if not len(upper) or not len(lower):
        return False
    y = np.interp(lower[:, 0], upper[:, 0], upper[:, 1], left=np.inf, right=np.inf)
    return bool((np.abs(y - lower[:, 1]) <= 1).all())
