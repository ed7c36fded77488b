"""Learning rates: over a run that is yet to come, and over the search for a good one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from res2net.files.names import shown
from res2net.plots.figure import (
    BLUE,
    FAINT,
    INK,
    SERIES,
    VERMILLION,
    finish_axes,
    heading,
    legend_above,
    new_figure,
    plain_axes,
    save,
)

_POINTS = 4000  # more than the picture has columns


def draw_schedule(
    picture: Path,
    *,
    title: str,
    rates: Sequence[float],
    steps_per_epoch: int,
    scales: Sequence[tuple[str, float]],
) -> None:
    """Draw the learning rate over the epochs as a PNG of 1000 x 450 pixels.

    Args:
        rates: of each optimizer step; only as many are asked for as the picture shows.
        scales: what each curve multiplies them by, with its label; of several, those without a
            label are thin lines.

    Raises OSError.
    """
    figure = new_figure(10, 4.5)
    figure.suptitle(shown(title), x=0.012, ha="left", fontsize=12, parse_math=False)
    axes = figure.subplots()
    every = max(1, len(rates) // _POINTS)
    steps = [*range(0, len(rates), every), len(rates) - 1]
    # a step has one rate from its start to its end
    epochs = [*(step / steps_per_epoch for step in steps), len(rates) / steps_per_epoch]
    values = [rates[step] for step in (*steps, steps[-1])]
    colors = iter(SERIES)
    for label, scale in scales:
        y = [scale * value for value in values]
        if label or len(scales) == 1:
            color, width, order = next(colors), 1.6, 3
        else:
            color, width, order = FAINT, 0.5, 2
        axes.plot(
            epochs, y, color=color, lw=width, zorder=order, label=label, drawstyle="steps-post"
        )
    heading(axes, "Learning rate", legend=any(label for label, _ in scales))
    finish_axes(axes, unit="epoch", end=epochs[-1])
    axes.set_ylim(0, 1.05 * max(scale for _, scale in scales) * max(values))
    legend_above(axes, columns=4)
    save(figure, picture)


def draw_lr_search(
    picture: Path,
    *,
    title: str,
    rates: Sequence[float],
    losses: Sequence[float],
    suggestion: float,
) -> None:
    """Draw the loss over the learning rate as a PNG of 1000 x 450 pixels, the suggestion marked.

    Args:
        rates: ascending, greater than 0.
        losses: at each of them; those that are no finite numbers leave gaps.
        suggestion: one of the rates.

    Raises OSError.
    """
    figure = new_figure(10, 4.5)
    figure.suptitle(shown(title), x=0.012, ha="left", fontsize=12, parse_math=False)
    axes = figure.subplots()
    axes.plot(rates, losses, color=BLUE, lw=1.6)
    marked = losses[list(rates).index(suggestion)]
    axes.axvline(suggestion, color=FAINT, lw=0.9, ls="--")
    axes.plot([suggestion], [marked], "o", ms=7, color=VERMILLION)
    axes.annotate(
        f"{suggestion:.2g}",
        xy=(suggestion, marked),
        xytext=(-9, -4),  # below a curve that falls
        textcoords="offset points",
        ha="right",
        va="top",
        color=INK,
        fontsize=10,
    )
    # where it diverges it leaves the picture, or the fall would not be seen
    first, lowest = losses[0], min(loss for loss in losses if math.isfinite(loss))
    axes.set_ylim(lowest - 0.2 * (first - lowest), first + 0.6 * (first - lowest))
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    plain_axes(axes)
    heading(axes, "Loss, smoothed", legend=False)
    save(figure, picture)
