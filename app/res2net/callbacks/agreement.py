"""Ranks agree on something at every step without waiting for each other."""

from datetime import timedelta
from typing import Any

import torch
from torch import distributed


class Agreement:
    """Each step every rank says some numbers and hears the greatest that any rank said of each, one
    step before.

    The exchange runs beside the training step, in a process group of its own on the CPU, and is
    read one step later, when it has long been done: no rank waits. All ranks hear the same.
    """

    def __init__(self, timeout: timedelta) -> None:
        """Collective: all ranks build it at the same place. `timeout`: as `patience` has it."""
        self._group: Any = None
        if distributed.is_initialized():
            self._group = distributed.new_group(backend="gloo", timeout=timeout)
        self._values = torch.zeros(0, dtype=torch.int64)
        self._work: distributed.Work | None = None

    def exchange(self, *values: int) -> tuple[int, ...]:
        """Say `values`, hear the greatest of the last step (0 at the first)."""
        if self._group is None:
            return values
        heard = (0,) * len(values)
        if self._work is not None:
            self._work.wait()
            heard = tuple(self._values.tolist())
        self._values = torch.tensor(values, dtype=torch.int64)
        self._work = distributed.all_reduce(
            self._values, op=distributed.ReduceOp.MAX, group=self._group, async_op=True
        )
        return heard


def patience(stall_minutes: float) -> timedelta:
    """For how long ranks wait for each other.

    Longer than the watchdog, or they would give up as it awakes: then nobody tells where each
    stands, and nothing is started again. Also for how long they wait for one that never comes.
    """
    return timedelta(minutes=max(30.0, 2 * stall_minutes))
