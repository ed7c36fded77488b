"""Who holds a lock, and whether that process is certainly dead."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from res2net.errors import InputError
from res2net.files import slurm
from res2net.files.foreign import parse_json

DEAD_AFTER = 180.0
"""Seconds without a sign of life after which a holder counts as dead if nothing better is known:
nine times what it lets pass between two signs (`lock.REFRESH`)."""

QUIET = 60.0
"""Seconds without a sign of life in which a living holder would have given three."""

_PROC = Path("/proc")


@dataclass(frozen=True)
class Holder:
    """The process that holds or held a lock."""

    host: str
    """Empty if the lock does not tell: its writer was cut off."""
    pid: int
    job: str = ""
    """SLURM's number of the job, empty outside one."""
    restart: int = 0
    """SLURM_RESTART_COUNT: the same job, requeued, has a greater one."""
    started: str = ""
    """When it took the lock: `2026-11-22 22:10:04`, UTC."""
    cluster: str = ""
    """SLURM's name of the cluster: job numbers are its own."""
    boot: str = ""
    """The kernel's id of the boot: process ids of another one mean nothing."""
    pid_namespace: str = ""
    """Process ids of another container mean nothing either."""
    born: str = ""
    """Start of the process in the kernel's ticks: ids are used again, with another start."""
    token: str = ""
    """Different for each claim that was ever made."""

    def __str__(self) -> str:
        if not self.host:
            return "an unknown process (its lock is cut off: it counts for three minutes)"
        job = f", SLURM job {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}, since {self.started} UTC"

    @property
    def since(self) -> float | None:
        """`started` in seconds since 1970, None if it is not known."""
        try:
            return datetime.strptime(f"{self.started}+0000", _TIME + "%z").timestamp()
        except (ValueError, OverflowError):
            return None

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self)) + "\n"


_LONGEST = 255
"""Characters of a value; a name of a host has no more (RFC 1035)."""
_TIME = "%Y-%m-%d %H:%M:%S"


def this_process() -> Holder:
    """A new claim of this process."""
    environment = os.environ
    job = environment.get("SLURM_JOB_ID", "")
    return Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        job=job,
        restart=_restart_count() if job else 0,
        started=datetime.now(UTC).strftime(_TIME),
        cluster=environment.get("SLURM_CLUSTER_NAME", ""),
        boot=_boot(),
        pid_namespace=_pid_namespace(),
        born=(_process(os.getpid()) or ("", "", ""))[2],
        token=uuid4().hex,
    )


def from_json(text: bytes) -> Holder | None:
    """What `to_json` wrote; None if it is anything else, such as the half of it."""
    try:
        read = parse_json(text, "lock")
        values = {field.name: read[field.name] for field in fields(Holder)}
    except (InputError, KeyError, TypeError):
        return None
    for field in fields(Holder):
        value = values[field.name]
        if type(value).__name__ != field.type or len(str(value)) > _LONGEST:
            return None
    holder = Holder(**values)
    # it becomes part of a file's name
    whole = holder.host and 0 < holder.pid < 2**31 and re.fullmatch("[0-9a-f]{32}", holder.token)
    return holder if whole else None


def is_dead(holder: Holder, *, silent: Callable[[], float]) -> bool:
    """Whether the holder is certainly gone; where that cannot be told, it is alive.

    1. The same boot of the same host and the same process ids: the process is asked for.
    2. The same host, booted since: dead if its last sign of life came before that. (A later one
       comes from another machine of the same name.)
    3. The same SLURM job, started again since: dead.
    4. Another SLURM job, if SLURM can be asked: alive if the job is suspended, dead if it waits,
       has ended or was started again. Where it may be another cluster's job of the same number, a
       sign of life in the last minute outweighs that.
    5. Else: dead after three minutes without a sign of life.

    Args:
        silent: tells the seconds since the last sign of life, by the clock of the file system.
    """
    same_host = bool(holder.host) and holder.host == socket.gethostname()
    if same_host and holder.boot and holder.boot == _boot():
        if holder.pid_namespace and holder.pid_namespace == _pid_namespace():
            alive = _is_alive(holder)
            if alive is not None:
                return not alive
    elif same_host and holder.boot and _boot() and silent() > _uptime():
        return True
    cluster = os.environ.get("SLURM_CLUSTER_NAME", "")
    known = bool(cluster) and cluster == holder.cluster
    if holder.job and (known or not cluster or not holder.cluster):
        if holder.job == os.environ.get("SLURM_JOB_ID"):
            if _restart_count() > holder.restart:
                return True
        elif job := slurm.ask(holder.job):
            if job.state in slurm.SUSPENDED:
                return False
            ended = job.state in (*slurm.PENDING, *slurm.ENDED) or job.restarts > holder.restart
            if ended and (known or silent() > QUIET):
                return True
    return silent() > DEAD_AFTER


def _is_alive(holder: Holder) -> bool | None:
    """Of a process of this machine; None if the kernel does not tell."""
    if found := _process(holder.pid):
        state, threads, born = found
        # of a killed one the first thread may be a zombie while others still end a write
        ended = state in "ZXx" and int(threads) <= 1
        return born == holder.born and not ended
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's, but there it is
        pass
    return None  # /proc may hide what others run


def _process(pid: int) -> tuple[str, str, str] | None:
    """State, number of threads and start of a process: the fields 3, 20 and 22 of proc(5)."""
    line = _read(_PROC / str(pid) / "stat")
    words = line.rpartition(")")[2].split()  # the name before it may hold blanks
    return (words[0], words[17], words[19]) if len(words) > 19 else None


def _restart_count() -> int:
    count = os.environ.get("SLURM_RESTART_COUNT", "")
    return int(count) if count.isdecimal() else 0


def _boot() -> str:
    return _read(_PROC / "sys/kernel/random/boot_id").strip()


def _uptime() -> float:
    """Seconds since this machine was started, infinite if it does not tell."""
    words = _read(_PROC / "uptime").split()
    return float(words[0]) if words else float("inf")


def _pid_namespace() -> str:
    try:
        return os.readlink(_PROC / "self/ns/pid")
    except OSError:
        return ""


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
