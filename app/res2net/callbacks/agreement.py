"""Ranks agree on something at every step without waiting for each other."""

from typing import Any

import torch
from torch import distributed


class Agreement:
    """Each step every rank says a number and hears the greatest that any rank said one step before.

    The exchange runs beside the training step, in a process group of its own on the CPU, and is
    read one step later, when it has long been done: no rank waits. All ranks hear the same.
    """

    def __init__(self) -> None:
        """Collective: all ranks build it at the same place."""
        self._group: Any = None
        if distributed.is_initialized():
            self._group = distributed.new_group(backend="gloo")
        self._value = torch.zeros(1, dtype=torch.int64)
        self._work: distributed.Work | None = None

    def exchange(self, value: int) -> int:
        """Say `value`, hear the greatest of the last step (0 at the first)."""
        if self._group is None:
            return value
        heard = 0
        if self._work is not None:
            self._work.wait()
            heard = int(self._value.item())
        self._value = torch.tensor([value], dtype=torch.int64)
        self._work = distributed.all_reduce(
            self._value, op=distributed.ReduceOp.MAX, group=self._group, async_op=True
        )
        return heard
