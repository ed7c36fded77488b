"""What a measurement ran on, and what processes took of it."""

from __future__ import annotations

import multiprocessing
import os
import platform
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "torchvision", "nvidia-dali-cuda130", "pillow", "numpy", "lightning")
_TICK = 1 / os.sysconf("SC_CLK_TCK")
_SETTLED, _AT_MOST = 0.1, 5.0
"""Seconds without work after which a process has come to rest, and how long to wait for it."""


def machine() -> dict[str, Any]:
    """Cores that this process may use, the processor's name, versions."""
    import torch

    packages = {}
    for name in (*_PACKAGES, "res2net-lightning"):
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    cuda = torch.cuda.is_available()
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _processor(),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 10**6,
        "system": platform.platform(),
        "versions": {"python": platform.python_version(), **packages},
    }


def cpu_seconds() -> float:
    """Taken so far by this process, all its threads and its children."""
    return time.process_time() + sum(map(_taken, _children()))


def machine_seconds() -> float:
    """Taken so far by all processes of this machine; what runs beside a measurement spoils it."""
    user, nice, system, _, _, irq, softirq = map(int, _read("/proc/stat").split()[1:8])
    return (user + nice + system + irq + softirq) * _TICK


def memory() -> tuple[float, float]:
    """Of this process and its children in MB: pages that several hold counted once, and as often
    as they are held (RSS)."""
    shared = resident = 0
    for process in (os.getpid(), *_children()):
        for line in _read(f"/proc/{process}/smaps_rollup").splitlines()[1:]:
            name, kilobytes, *_ = line.split()
            shared += int(kilobytes) if name == "Pss:" else 0
            resident += int(kilobytes) if name == "Rss:" else 0
    return shared * 1024 / 1e6, resident * 1024 / 1e6


def settle() -> None:
    """Wait until this process and its children have filled their queues and rest."""
    end = time.monotonic() + _AT_MOST
    before = -1.0
    while (now := cpu_seconds()) > before + _TICK and time.monotonic() < end:
        before = now
        time.sleep(_SETTLED)


def _children() -> Sequence[int]:
    return [child.pid for child in multiprocessing.active_children() if child.pid]


def _taken(process: int) -> float:
    # the name stands in brackets and may hold blanks; user and system time are fields 14 and 15
    fields = _read(f"/proc/{process}/stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK


def _processor() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _read(path: str) -> str:
    return Path(path).read_text()
