"""Errors of training that are no bugs, in words."""

from __future__ import annotations

import re

import torch
from torch import distributed

from res2net.callbacks.guard import out_of_memory
from res2net.config.schema import Config
from res2net.errors import WorkError
from res2net.training.plan import Plan

_NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"
"""torch's words for the CPU, a plain RuntimeError."""


class RankLostError(WorkError):
    """Another rank does not answer any more."""


def failure_of(error: Exception, config: Config, plan: Plan) -> WorkError | None:
    """What to say of an error that is no bug; None of one that is.

    Args:
        config, plan: of the steps that were made; they are asked for the size of a batch.
    """
    if isinstance(error, WorkError):
        return error
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or _NO_MEMORY in str(error):
        return out_of_memory(
            error,
            batch_size=plan.batch_size(config),
            accumulate=config.trainer.accumulate,
            precision=config.trainer.precision,
        )
    first_line = next(iter(str(error).strip().splitlines()), "")
    # their errors' names take seconds to import
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return WorkError(
            f"torch.compile failed, as without a C++ compiler: {first_line}; "
            "trainer.compile=false, with another run.name, runs without",
            of_all_ranks=True,
        )
    # gloo raises plain RuntimeErrors
    if isinstance(error, distributed.DistError) or "gloo" in first_line:
        why = re.sub(r"^\[\S+\] ", "", first_line).split(". ")[0]  # without the place in C++
        return RankLostError(
            f"another rank ended or cannot be reached any more ({why})", of_all_ranks=True
        )
    return None
