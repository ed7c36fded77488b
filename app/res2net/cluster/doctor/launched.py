"""Which of how many ranks this process is, and where they meet."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Launched:
    """What srun or torchrun says of this process."""

    rank: int
    world_size: int
    host: str
    address: str
    """Of rank 0's host."""
    port: int


def launched() -> Launched:
    """From the environment; one rank of one if nothing started several."""
    environment = os.environ
    host = environment.get("SLURMD_NODENAME") or socket.gethostname()
    rank, world_size = 0, 1
    if "LOCAL_WORLD_SIZE" in environment:  # torchrun
        rank, world_size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    elif "SLURM_STEP_ID" in environment:  # srun; a batch script alone does not have it
        rank = int(environment.get("SLURM_PROCID", 0))
        world_size = int(environment.get("SLURM_NTASKS", 1))
    # Lightning's port follows the job's number from 15000 on: a run on the same node is left alone
    port = 25000 + int(environment.get("SLURM_JOB_ID", 0)) % 10000
    if "LOCAL_WORLD_SIZE" in environment:
        port = 25000 + (int(environment["MASTER_PORT"]) + 1) % 10000  # torchrun listens on its own
    return Launched(rank, world_size, host, main_address(), port)


def main_address() -> str:
    """Where rank 0 is: MASTER_ADDR, or the job's first node, as Lightning has it."""
    address = os.environ.get("MASTER_ADDR", "")
    nodes = os.environ.get("SLURM_JOB_NODELIST", "")
    return address or (first_node(nodes) if nodes else "127.0.0.1")


def first_node(nodes: str) -> str:
    """The first of SLURM's list: `n[07-09,12],m1` begins with n07."""
    if shutil.which("scontrol") is not None:
        answer = subprocess.run(
            ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, timeout=30
        )
        if answer.returncode == 0 and answer.stdout.strip():
            return answer.stdout.split()[0]
    plain = re.sub(r"\[(\d+)[^\]]*\]", r"\1", nodes)  # each bracket by its first number
    return plain.split(",")[0]
