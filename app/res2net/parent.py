"""Processes that end when the one that started them does, however that ended.

Whoever is killed (`kill -9`, out of memory) can take nobody along, and its children would wait for
it: ranks for the one that they have to meet, workers for work. So each child sees to it itself. The
kernel sends it a signal when its parent dies; where it cannot, a thread looks once a second.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from pathlib import Path

LAUNCHER = "RES2NET_LAUNCHER"
"""Environment variable of ranks that another rank has started: its process id."""

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
_LOOK = 1.0


def end_with_launcher() -> None:
    """End as soon as what has started this rank is gone; nothing in processes that are no rank.

    Where rank 0 has started the others (Lightning's way) they are lost without it, and are killed.
    torchrun is no rank: those that it has started have each other and may save, so they get the
    SIGTERM that it would send. srun's are ended by SLURM.
    """
    launcher = os.environ.get(LAUNCHER, "")
    if launcher.isdecimal():
        end_with(int(launcher), signal.SIGKILL)
    elif "LOCAL_WORLD_SIZE" in os.environ:  # torchrun
        end_with(os.getppid(), signal.SIGTERM)


def end_with(parent: int, number: int = signal.SIGKILL) -> None:
    """Get the signal when the process `parent`, which has started this one, ends; at once if it
    has ended already."""
    if _ask_the_kernel(number) and os.getppid() == parent:
        return  # in this order: it cannot have died unseen in between
    if os.getppid() != parent and not _is_alive(parent):
        os.kill(os.getpid(), number)
        return
    # another system, or a process stands between
    threading.Thread(
        target=_look, args=(parent, os.getppid(), number), name="parent", daemon=True
    ).start()


def _ask_the_kernel(number: int) -> bool:
    try:
        return ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0) == 0
    except (OSError, AttributeError, TypeError):
        return False


def _look(parent: int, direct: int, number: int) -> None:
    while os.getppid() == direct and _is_alive(parent):
        time.sleep(_LOOK)
    os.kill(os.getpid(), number)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's, but there it is
        pass
    try:  # one that has ended is there until it was asked how
        stat = Path(f"/proc/{process}/stat").read_text(errors="replace")
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[:1] != ["Z"]
