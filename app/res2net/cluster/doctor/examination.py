"""All checks, in the order in which one thing needs another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from res2net.cluster.doctor import (
    accounts,
    decoding,
    devices,
    packages,
    resources,
    slurm,
    together,
)
from res2net.cluster.doctor.check import Check, one_line
from res2net.cluster.doctor.launched import launched
from res2net.cluster.doctor.meeting import Meeting, MeetingError


def examine(runs: str | os.PathLike[str] = "checkpoints") -> Iterator[Check]:
    """Look at everything. Raises nothing.

    A check that fails on the way says so as its own finding, and the others go on.

    Started on several ranks (srun, torchrun), they meet, and rank 0 alone finds: what it sees by
    itself, what is wrong on others, and what there is between them. The others find nothing; only
    where one does not reach rank 0 it has that to tell, as a failure.

    Args:
        runs: The folder that runs are written to; it is not created.
    """
    me = launched()
    if me.world_size == 1:
        yield from _alone(Path(runs))
        return
    try:
        meeting = Meeting(me)
    except MeetingError as error:
        if me.rank == 0:
            yield from _alone(Path(runs))
        yield Check("ranks", "fail", str(error), error.advice)
        return
    own = list(_alone(Path(runs)))
    if me.rank == 0:
        yield from own
    try:
        yield from together.examine(meeting, own, Path(runs))
    except MeetingError as error:
        yield Check("ranks", "fail", str(error), error.advice)


def _alone(runs: Path) -> Iterator[Check]:
    install = "install the project and its requirements: pip install -e ."
    steps: list[tuple[str, Callable[[], Iterable[Check]], str]] = [
        ("res2net", packages.res2net, install),
        ("packages", packages.packages, install),
        ("driver", devices.driver, "mend the NVIDIA driver: nvidia-smi does not answer"),
        ("cuda", devices.cuda, "mend PyTorch first"),
        ("nccl", devices.nccl, "mend PyTorch first"),
        ("cores", resources.cores, "set data.workers by hand"),
        ("memory", resources.memory, "look at the free memory by hand"),
        ("disk", lambda: resources.disk(runs), "write runs elsewhere: run.dir=PATH"),
        (
            "decode on the cpu",
            lambda: decoding.decode(None),
            "mend nvidia-dali first: training needs it",
        ),
        (
            "decode on the gpu",
            decoding.decode_on_gpu,
            "CUDA 13 needs NVIDIA's driver 580 or newer",
        ),
        ("wandb login", accounts.wandb_login, "set WANDB_API_KEY"),
        ("slurm", slurm.slurm, "look at the SLURM_* variables of this job"),
        ("slurm tasks", slurm.tasks, "look at the SLURM_* variables of this job"),
        ("slurm gpus", slurm.gpus, "look at the SLURM_* variables of this job"),
        ("slurm time left", slurm.time_left, "squeue does not answer"),
        ("master address", slurm.master_address, "set MASTER_ADDR"),
    ]
    for name, step, advice in steps:
        try:
            yield from step()
        # Broken installations fail in any way they can: that is what is looked for here.
        except Exception as error:
            yield Check(name, "fail", one_line(error), advice)
