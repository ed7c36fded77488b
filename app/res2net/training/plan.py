"""The arithmetic of a run: on what it runs, and how its batches are cut."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Literal

import torch
from lightning.pytorch.plugins.environments import SLURMEnvironment

from res2net.config.schema import Config, TrainerConfig
from res2net.errors import InputError

CPU_PROCESSES_PER_CORE = 4

_MEETING = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What Lightning's launcher needs to know on each of several nodes."""

Launcher = Literal["srun", "torchrun", ""]
"""What started this process and the other ranks; nothing: the first rank starts the others."""


@dataclass(frozen=True)
class Plan:
    """The machine as this run uses it."""

    accelerator: str
    devices: int
    """Processes per node."""
    num_nodes: int
    threads: int
    """Decoding threads per process."""
    launcher: Launcher = ""

    @property
    def world_size(self) -> int:
        return self.devices * self.num_nodes

    def batch_size(self, config: Config) -> int:
        """Images per device and batch.

        Raises:
            InputError: the global batch cannot be cut into equal parts; names the nearest sizes.
        """
        size, accumulate = config.data.global_batch_size, config.trainer.accumulate
        parts = self.world_size * accumulate
        if size % parts:
            nearest = [n for n in (size // parts * parts, (size // parts + 1) * parts) if n]
            raise InputError(
                f"data.global_batch_size={size} cannot be cut into {parts} equal parts "
                f"({self.devices} devices x {self.num_nodes} nodes x {accumulate} accumulated): "
                f"the nearest sizes are {' and '.join(map(str, nearest))}"
            )
        return size // parts


def make_plan(trainer: TrainerConfig, *, workers: int) -> Plan:
    """Settle what is `auto`.

    Raises:
        InputError: there are fewer devices than asked for, other processes were started, or the
            precision cannot be had there.
    """
    gpus = torch.cuda.device_count()
    accelerator = trainer.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if gpus else "cpu"
    if accelerator == "cpu" and trainer.precision == "16-mixed":
        # Lightning would silently take another precision
        raise InputError(
            "trainer.precision=16-mixed needs a GPU: on the CPU choose 32-true or bf16-mixed"
        )
    if accelerator == "cpu" and trainer.sync_batchnorm:
        raise InputError("trainer.sync_batchnorm=true needs GPUs: on the CPU torch has no such BN")
    launcher, *launched = _launched()
    if accelerator == "cuda" and not gpus:
        raise InputError(
            "trainer.accelerator=cuda: this machine has no CUDA device; auto or cpu runs without"
        )
    alone = (gpus if accelerator == "cuda" else 1, 1)
    devices, num_nodes = (
        int(asked) if asked != "auto" else found
        for asked, found in zip(
            (trainer.devices, trainer.num_nodes), launched if launcher else alone, strict=True
        )
    )
    if launcher and [devices, num_nodes] != launched:
        raise InputError(
            f"trainer.devices={trainer.devices} trainer.num_nodes={trainer.num_nodes}: {launcher} "
            f"started {launched[0]} processes on each of {launched[1]} nodes; leave both auto"
        )
    lacking = [key for key in _MEETING if key not in os.environ]
    if num_nodes > 1 and not launcher and lacking:
        raise InputError(  # it would wait for the other nodes for ever
            f"trainer.num_nodes={num_nodes}: nothing started the command on the other nodes: "
            "`res2net submit --nodes` does (SLURM), or torchrun; or start it on each and set "
            f"{', '.join(_MEETING)} (not set: {', '.join(lacking)})"
        )
    cores = len(os.sched_getaffinity(0))
    if accelerator == "cuda" and not 1 <= devices <= gpus:
        raise InputError(f"trainer.devices={devices}: this machine has {gpus} CUDA devices")
    if accelerator == "cpu" and not launcher and devices > CPU_PROCESSES_PER_CORE * cores:
        raise InputError(
            f"trainer.devices={devices}: this machine has {cores} cores, which makes at most "
            f"{CPU_PROCESSES_PER_CORE * cores} processes on the CPU"
        )
    # SLURM may bind each task to its own cores: then those seen are not to be shared.
    own = int(os.environ.get("SLURM_CPUS_PER_TASK", 0)) if launcher == "srun" else 0
    threads = min(own, cores) or max(1, cores // devices)
    return Plan(accelerator, devices, num_nodes, workers or threads, launcher)


def _launched() -> tuple[Launcher, int, int]:
    """What started this process, and how many on each of how many nodes (0 if nothing did).

    Raises:
        InputError: ranks that would not find each other.
    """
    environment = os.environ
    if "LOCAL_WORLD_SIZE" in environment:
        local, world = int(environment["LOCAL_WORLD_SIZE"]), int(environment["WORLD_SIZE"])
        _check_meeting_place(world, environment.get("MASTER_ADDR", ""))
        return "torchrun", local, world // local
    if "SLURM_STEP_ID" not in environment:  # srun sets it; a batch script alone does not have it
        return "", 0, 0
    tasks = int(environment["SLURM_NTASKS"])
    job = environment.get("SLURM_JOB_NAME")
    if job in ("bash", "interactive"):  # Lightning takes these for a shell in an allocation
        if tasks > 1:
            raise InputError(
                f"SLURM's job name {job!r} means a shell to Lightning, and each of the {tasks} "
                "tasks would train alone: choose another --job-name"
            )
        return "", 0, 0
    if "SLURM_NTASKS_PER_NODE" not in environment and tasks > 1:
        raise InputError(
            f"{tasks} tasks of SLURM without --ntasks-per-node: give it instead of --ntasks"
        )
    each = int(environment.get("SLURM_NTASKS_PER_NODE", 1))
    nodes = int(environment.get("SLURM_NNODES", 1))
    if each * nodes != tasks:
        raise InputError(
            f"SLURM started {tasks} tasks, but --ntasks-per-node={each} on {nodes} nodes makes "
            f"{each * nodes}: give --nodes and --ntasks-per-node, not --ntasks"
        )
    first = SLURMEnvironment.resolve_root_node_address(environment.get("SLURM_NODELIST", ""))
    _check_meeting_place(tasks, environment.get("MASTER_ADDR") or first)
    return "srun", each, nodes


def _check_meeting_place(world_size: int, address: str) -> None:
    """Raises InputError if it has no address: ranks would ask for it for minutes, silently."""
    if world_size == 1:
        return
    try:
        socket.getaddrinfo(address, None)
    except OSError as error:
        raise InputError(
            f"MASTER_ADDR={address}, where the ranks meet, cannot be resolved ({error.strerror}): "
            "set MASTER_ADDR to a name or address of the first node that all nodes know"
        ) from error
