"""The processes that a command has started, whatever became of it: they inherit a mark."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

_NAME = "RES2NET_TEST_MARK"


class Family:
    """All processes that were started with `environment`, by whomever."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._mark = f"{_NAME}={uuid4().hex}"
        name, value = self._mark.split("=")
        self.environment = environment | {name: value}

    def living(self) -> dict[int, str]:
        """Process id -> command line, of those that still run."""
        found = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdecimal():
                continue
            with suppress(OSError):  # it has just ended
                if self._mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    words = (folder / "cmdline").read_bytes().split(b"\0")
                    found[int(folder.name)] = b" ".join(words).decode(errors="replace")
        return found

    def rank(self, number: int) -> int | None:
        """That which Lightning's launcher has started for this local rank, if there is one."""
        for process in self.living():
            with suppress(OSError):
                variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
                if f"LOCAL_RANK={number}".encode() in variables:
                    return process
        return None

    def wait_until_gone(self, seconds: float = 60) -> None:
        """Fails where some are left."""
        deadline = time.monotonic() + seconds
        while left := self.living():
            assert time.monotonic() < deadline, left
            time.sleep(0.05)


@contextmanager
def family(environment: dict[str, str]) -> Iterator[Family]:
    """A mark for what is started in the block; whoever is left at its end is killed."""
    members = Family(environment)
    try:
        yield members
    finally:
        for process in members.living():
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
