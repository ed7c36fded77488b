"""How fast a run went, and the GPU memory that it took."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from res2net.files.metrics import read_metrics
from res2net.files.names import shown
from res2net.plots.figure import (
    BLUE,
    FAINT,
    VERMILLION,
    finish_axes,
    heading,
    legend_above,
    line,
    new_figure,
    save,
)


def draw_throughput(metrics_csv: Path, picture: Path) -> bool:
    """Draw images per second, and GPU memory in GiB where logged, as a PNG 400 pixels high.

    Returns whether there was anything to draw. Raises as `draw_curves`.
    """
    metrics = read_metrics(metrics_csv)
    speeds = metrics.curves["train", "images_per_second"]
    memory = metrics.curves["train", "gpu_memory"]
    if not speeds:
        return False
    charts = 2 if memory else 1
    figure = new_figure(6 * charts, 4)
    name = metrics_csv.absolute().parent.name
    figure.suptitle(shown(name), x=0.02, ha="left", fontsize=12, parse_math=False)
    first, *second = figure.subplots(1, charts, squeeze=False)[0]

    line(first, speeds, "training", BLUE)
    middle = median(speed for _, speed in speeds)
    first.axhline(middle, color=FAINT, lw=0.9, ls="--", label=f"median {middle:,.0f}")
    heading(first, "Images per second")
    first.yaxis.set_major_formatter("{x:,.0f}")
    for axes in second:
        line(axes, memory, "highest so far, rank 0", VERMILLION)
        heading(axes, "GPU memory in GiB")
    for axes in (first, *second):
        finish_axes(axes, unit=metrics.unit, end=metrics.end)
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
        legend_above(axes)
    save(figure, picture)
    return True
