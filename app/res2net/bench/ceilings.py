"""What a device does at best: a large matrix product, and a large copy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

_SIDE = {"cuda": 8192, "cpu": 2048}
_COPIED = {"cuda": 2**30, "cpu": 2**28}  # bytes, far beyond any cache
_REPEATS = 7


@dataclass(frozen=True)
class Ceilings:
    """Measured, not what a data sheet says."""

    tflops: float
    """10**12 floating point operations a second of a square matrix product, in the precision."""
    gb_per_second: float
    """10**9 bytes read and written a second by a copy."""


def measure_ceilings(device: str, dtype: torch.dtype) -> Ceilings:
    """Medians of some repeats after a warm-up; a second or two."""
    side, count = _SIDE[device], _COPIED[device]
    left, right = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    product = torch.empty_like(left)
    source = torch.ones(count, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return Ceilings(
        tflops=2 * side**3 / _seconds(lambda: torch.mm(left, right, out=product), device) / 1e12,
        gb_per_second=2 * count / _seconds(lambda: target.copy_(source), device) / 1e9,
    )


def synchronise(device: str) -> None:
    """Wait for the device, whose work the host only hands over."""
    if device == "cuda":
        torch.cuda.synchronize()


def _seconds(work: Callable[[], object], device: str) -> float:
    seconds: list[float] = []
    for _ in range(_REPEATS + 2):
        synchronise(device)
        start = time.perf_counter()
        work()
        synchronise(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])
