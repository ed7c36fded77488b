"""What a pass computes and moves, counted operator by operator without computing anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Traffic:
    """Of one pass over a batch, each operator run by itself (eager)."""

    flops: int
    """Two for each multiply-accumulate of convolutions and matrix products."""
    bytes: int
    """Read and written: the tensors that each operator takes and gives, views left out."""


def count_traffic(work: Callable[[], object]) -> Traffic:
    """Of what `work` does, which may run on the meta device."""
    moved = _Moved()
    with FlopCounterMode(display=False) as counter, moved:
        work()
    return Traffic(counter.get_total_flops(), moved.bytes)


class _Moved(TorchDispatchMode):
    """Adds up the bytes of what operators take and give."""

    bytes = 0

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        taken = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        given = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        if not func.is_view and not func.name().startswith("aten::empty"):
            self.bytes += sum(tensor.nbytes for tensor in (*taken, *given))
        return result
