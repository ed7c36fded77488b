"""Cores, memory, disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from res2net.cluster.doctor.check import Check, good_or_warn
from res2net.files.atomic import atomic_write

GIB = 2**30
LITTLE_MEMORY = 4 * GIB
LITTLE_DISK = 5 * GIB
"""A run of res2net50 keeps four checkpoints of 200 MB, and W&B its own files."""


def cores() -> Iterator[Check]:
    present = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else present
    value = f"{usable} of {present} may be used"
    advice = "decoding will be slow; in SLURM ask for more --cpus-per-task"
    yield good_or_warn(usable > 1 or present == 1, "cores", value, advice)


def memory() -> Iterator[Check]:
    if not Path("/proc/meminfo").is_file():
        yield Check("memory", "ok", "not known on this system")
        return
    bytes_of = _numbers("/proc/meminfo", unit=1024)
    free, total = bytes_of["MemAvailable:"], bytes_of["MemTotal:"]
    limit = Path("/sys/fs/cgroup/memory.max")  # a container's
    if limit.is_file() and (allowed := limit.read_text().strip()) != "max":
        used = int(limit.with_name("memory.current").read_text())
        used -= _numbers("/sys/fs/cgroup/memory.stat")["inactive_file"]  # given back on demand
        free, total = min(free, int(allowed) - used), min(total, int(allowed))
    value = f"{free / GIB:.1f} of {total / GIB:.1f} GiB free"
    advice = "a smaller data.global_batch_size needs less"
    yield good_or_warn(free >= LITTLE_MEMORY, "memory", value, advice)


def _numbers(file: str, unit: int = 1) -> dict[str, int]:
    """Lines of a name and a number."""
    lines = (line.split() for line in Path(file).read_text().splitlines())
    return {words[0]: int(words[1]) * unit for words in lines}


def disk(runs: Path) -> Iterator[Check]:
    folder = existing(runs)
    probe = folder / f".doctor-{os.getpid()}"
    try:
        with atomic_write(probe) as file:
            file.write(bytes(2**20))
        probe.unlink()
    except OSError as error:
        yield Check(
            "disk",
            "fail",
            f"{folder} cannot be written: {error.strerror or error}",
            "get access or make room, or write runs elsewhere: run.dir=PATH",
        )
        return
    free = shutil.disk_usage(folder).free
    value = f"{free / GIB:.1f} GiB free in {folder}, writing works"
    advice = "make room, or write runs elsewhere: run.dir=PATH"
    yield good_or_warn(free >= LITTLE_DISK, "disk", value, advice)


def existing(runs: Path) -> Path:
    """The folder itself, or the nearest above it that is there."""
    folder = runs.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder
