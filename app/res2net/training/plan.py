"""The arithmetic of a run: on what it runs, and how its batches are cut."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from res2net.config.schema import Config, TrainerConfig
from res2net.errors import InputError

CPU_PROCESSES_PER_CORE = 4


@dataclass(frozen=True)
class Plan:
    """The machine as this run uses it."""

    accelerator: str
    devices: int
    """Processes per node."""
    num_nodes: int
    threads: int
    """Decoding threads per process."""

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
        InputError: there are fewer devices than asked for.
    """
    gpus = torch.cuda.device_count()
    accelerator = trainer.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if gpus else "cpu"
    launched_devices, launched_nodes = _launched()
    devices = int(
        trainer.devices
        if trainer.devices != "auto"
        else launched_devices or (gpus if accelerator == "cuda" else 1)
    )
    num_nodes = int(trainer.num_nodes if trainer.num_nodes != "auto" else launched_nodes or 1)
    cores = len(os.sched_getaffinity(0))
    if accelerator == "cuda" and not 1 <= devices <= gpus:
        raise InputError(
            f"trainer.devices={devices}: this machine has {gpus} CUDA devices"
            + ("" if gpus else " (trainer.accelerator=cpu runs without)")
        )
    if accelerator == "cpu" and devices > CPU_PROCESSES_PER_CORE * cores:
        raise InputError(
            f"trainer.devices={devices}: this machine has {cores} cores, which makes at most "
            f"{CPU_PROCESSES_PER_CORE * cores} processes on the CPU"
        )
    return Plan(accelerator, devices, num_nodes, workers or max(1, cores // devices))


def _launched() -> tuple[int, int]:
    """Processes per node and nodes that srun or torchrun started, zeros where neither did."""
    environment = os.environ
    if "LOCAL_WORLD_SIZE" in environment:  # torchrun
        local = int(environment["LOCAL_WORLD_SIZE"])
        return local, int(environment["WORLD_SIZE"]) // local
    if "SLURM_STEP_ID" in environment and "SLURM_NTASKS_PER_NODE" in environment:
        return int(environment["SLURM_NTASKS_PER_NODE"]), int(environment["SLURM_NNODES"])
    return 0, 0
