"""Reading `metrics.csv`: its rows as curves over epochs."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

Points = list[tuple[float, float]]
"""Places on the x axis, and values there."""


@dataclass(frozen=True)
class Metrics:
    """All rows of a run."""

    curves: dict[tuple[str, str], Points]
    """By split and key, in the order of the rows; a key that no row has is an empty curve."""
    unit: str
    """What x counts: `epoch`, or `step` before the first epoch ended."""

    @property
    def end(self) -> float:
        """The greatest x, 0 where there are no rows."""
        return max((x for points in self.curves.values() for x, _ in points), default=0.0)


def read_metrics(path: Path) -> Metrics:
    """Read a table `step,epoch,split,key,value`.

    The rows at the end of an epoch tell how many steps it has.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is another table.
    """
    curves: dict[tuple[str, str], Points] = defaultdict(list)
    steps_per_epoch = 0.0
    with path.open(newline="") as file:
        rows = csv.reader(file)
        if next(rows, None) != ["step", "epoch", "split", "key", "value"]:
            raise ValueError(f"{path} does not begin with step,epoch,split,key,value")
        for step, epoch, split, key, value in rows:
            curves[split, key].append((int(step), float(value)))
            if split == "val" or key.startswith("epoch_"):
                steps_per_epoch = int(step) / (int(epoch) + 1)
    if not steps_per_epoch:
        return Metrics(curves, "step")
    for points in curves.values():
        points[:] = [(step / steps_per_epoch, value) for step, value in points]
    return Metrics(curves, "epoch")
