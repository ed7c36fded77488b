"""Reading `metrics.csv`: its rows as curves over epochs."""

from __future__ import annotations

import math
import os
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from res2net.files.foreign import opened

Points = Sequence[tuple[float, float]]
"""Places on the x axis, and values there."""

_HEADER = b"step,epoch,split,key,value"
_LONGEST_LINE = 1000
"""Bytes; a row has some fifty."""
_MOST_BYTES = 2**28
_MOST_CURVES = 1000
_MOST_STEPS = 2**53
_LARGEST = 1e39
"""Nothing that was reckoned in 32 bits is greater; pictures cannot show it."""


class Curve(Points):
    """Points that take 16 bytes each, as many as a long run has."""

    def __init__(self, points: Points = ()) -> None:
        self.x = array("d", (x for x, _ in points))
        self.y = array("d", (y for _, y in points))

    def __len__(self) -> int:
        return len(self.x)

    def __iter__(self) -> Iterator[tuple[float, float]]:
        return zip(self.x, self.y, strict=True)

    @overload
    def __getitem__(self, place: int) -> tuple[float, float]: ...

    @overload
    def __getitem__(self, place: slice) -> list[tuple[float, float]]: ...

    def __getitem__(self, place: int | slice) -> tuple[float, float] | list[tuple[float, float]]:
        if isinstance(place, slice):
            return list(zip(self.x[place], self.y[place], strict=True))
        return self.x[place], self.y[place]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


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
    curves: dict[tuple[str, str], Curve] = defaultdict(Curve)
    steps_per_epoch = 0.0
    with opened(path) as file:
        if os.fstat(file.fileno()).st_size > _MOST_BYTES:
            raise ValueError(f"{path} has more than {_MOST_BYTES:,} bytes")
        if file.readline(_LONGEST_LINE).strip() != _HEADER:
            raise ValueError(f"{path} does not begin with {_HEADER.decode()}")
        for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), start=2):
            try:
                step, epoch, split, key, value = _row(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: is no row of metrics") from error
            curve = curves[split, key]
            curve.x.append(step)
            curve.y.append(value)
            if len(curves) > _MOST_CURVES:
                raise ValueError(f"{path} has more than {_MOST_CURVES:,} curves")
            if split == "val" or key.startswith("epoch_"):
                steps_per_epoch = step / (epoch + 1)
    if not steps_per_epoch:
        return Metrics(curves, "step")  # type: ignore[arg-type]
    for curve in curves.values():
        curve.x = array("d", (x / steps_per_epoch for x in curve.x))
    return Metrics(curves, "epoch")  # type: ignore[arg-type]


def _row(line: bytes) -> tuple[int, int, str, str, float]:
    """Raises ValueError if it is none, or its numbers are none that a run has."""
    if len(line) >= _LONGEST_LINE:
        raise ValueError("too long")
    step, epoch, split, key, value = line.decode().strip("\r\n").split(",")
    counted, passed, figure = int(step), int(epoch), float(value)
    if not (0 <= counted < _MOST_STEPS and 0 <= passed < _MOST_STEPS):
        raise ValueError("no numbers of a step and an epoch")
    if abs(figure) > _LARGEST:
        figure = math.copysign(math.inf, figure)
    return counted, passed, split, key, figure
