"""What SLURM says of this job, against what training needs."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator

from res2net.cluster.doctor.check import Check, good_or_warn
from res2net.cluster.doctor.launched import main_address

LITTLE_TIME = 600
"""Seconds left of the job's time."""


def slurm() -> Iterator[Check]:
    """The job, and the names that Lightning takes for a shell's."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        yield Check("slurm", "ok", f"not in a job; {shutil.which('sbatch') or 'no sbatch'}")
        return
    name = os.environ.get("SLURM_JOB_NAME", "")
    value = f"in job {job} ({name})"
    if restarts := int(os.environ.get("SLURM_RESTART_COUNT", 0)):
        value += f", restarted {restarts} times"
    if name in ("bash", "interactive"):
        yield Check(
            "slurm",
            # training with several tasks is refused then
            "fail" if _tasks() > 1 else "warn",
            value,
            "Lightning ignores SLURM in a job of this name, so that each task would train alone: "
            "choose another --job-name",
        )
    else:
        advice = "no scontrol on PATH: a stopped run cannot requeue itself"
        yield good_or_warn(shutil.which("scontrol") is not None, "slurm", value, advice)


def tasks() -> Iterator[Check]:
    """How many there are, and whether they would find each other in training."""
    environment = os.environ
    if "SLURM_JOB_ID" not in environment:
        return
    nodes = f"{environment.get('SLURM_NNODES', '?')} ({environment.get('SLURM_JOB_NODELIST', '?')})"
    if "SLURM_STEP_ID" not in environment:
        asked = int(environment.get("SLURM_NTASKS", 1))
        value = f"nodes: {nodes}; not started by srun"
        advice = f"start it by srun: the job has {asked} tasks, and this is one process"
        yield good_or_warn(asked == 1, "slurm tasks", value, advice)
        return
    per_node = environment.get("SLURM_NTASKS_PER_NODE")
    value = (
        f"nodes: {nodes}; tasks: {_tasks()}, per node: {per_node or 'not said'}; "
        f"this is {environment.get('SLURM_PROCID', '?')}"
    )
    if _tasks() > 1 and per_node is None:
        advice = "training refuses this: give --ntasks-per-node instead of --ntasks"
        yield Check("slurm tasks", "fail", value, advice)
    elif per_node is not None and _tasks() != int(per_node) * int(environment["SLURM_NNODES"]):
        advice = "every node must have the same number of tasks: give --ntasks-per-node alone"
        yield Check("slurm tasks", "fail", value, advice)
    else:
        yield Check("slurm tasks", "ok", value)


def gpus() -> Iterator[Check]:
    """What this task sees of the GPUs that the job has on this node."""
    environment = os.environ
    if "SLURM_JOB_ID" not in environment:
        return
    import torch

    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    allocated = int(environment.get("SLURM_GPUS_ON_NODE", 0))
    per_node = int(environment.get("SLURM_NTASKS_PER_NODE", 1))
    visible = environment.get("CUDA_VISIBLE_DEVICES", "not set")
    value = (
        f"{allocated} allocated on this node, {seen} seen by this task "
        f"(CUDA_VISIBLE_DEVICES: {visible})"
    )
    if seen < allocated and seen < per_node:
        advice = "each task must see all of its node's GPUs: no --gpus-per-task and no --gpu-bind"
        if seen == 0:
            advice = "PyTorch sees none: look at the driver, and at its CUDA build"
        yield Check("slurm gpus", "fail", value, advice)
    elif seen > allocated:
        advice = "they are not this job's: ask for them by --gpus-per-node"
        yield Check("slurm gpus", "warn", value, advice)
    elif allocated and per_node > allocated:
        advice = f"{per_node} tasks on this node need as many GPUs: --ntasks-per-node={allocated}"
        yield Check("slurm gpus", "fail", value, advice)
    else:
        advice = f"one task a GPU is used: --ntasks-per-node={allocated} uses all"
        yield good_or_warn(allocated in (0, per_node), "slurm gpus", value, advice)


def time_left() -> Iterator[Check]:
    """Until the job's time limit."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or shutil.which("squeue") is None:
        return
    answer = subprocess.run(
        ["squeue", "-h", "-j", job, "-o", "%L"], capture_output=True, text=True, timeout=30
    )
    lines = (answer.stdout if answer.returncode == 0 else answer.stderr).split("\n")
    value = lines[0].strip() or "not known"
    known = seconds(value) if answer.returncode == 0 else 0
    advice = "little: a longer --time, or let the run be requeued (slurm/README.md)"
    if answer.returncode:
        advice = "squeue does not answer"
    yield good_or_warn(known is None or known >= LITTLE_TIME, "slurm time left", value, advice)


def seconds(text: str) -> int | None:
    """SLURM's [days-][hours:]minutes:seconds; None for UNLIMITED and other words."""
    if re.fullmatch(r"(\d+-)?(\d+:){0,2}\d+", text) is None:
        return None
    days, _, rest = text.rpartition("-")
    total = 0
    for number in rest.split(":"):
        total = 60 * total + int(number)
    return 86400 * int(days or 0) + total


def master_address() -> Iterator[Check]:
    """Whether the name of rank 0's host has an address here."""
    if "SLURM_JOB_ID" not in os.environ and "MASTER_ADDR" not in os.environ:
        return
    name = main_address()
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError as error:
        yield Check(
            "master address",
            "fail",
            f"{name} has no address: {error.strerror or error}",
            "ranks would look for it for minutes: set MASTER_ADDR to the first node's address",
        )
        return
    yield Check("master address", "ok", f"{name} ({found[0][4][0]})")


def _tasks() -> int:
    return int(os.environ.get("SLURM_NTASKS", 1))
