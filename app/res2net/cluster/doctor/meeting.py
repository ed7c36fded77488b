"""Ranks that were started together meet, and rank 0 hears what each has to say.

They talk through PyTorch's key-value store, which rank 0 holds: each wait has an end, and who did
not answer has a name. Collective calls, which may hang, come later and as a thing to be tried.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from res2net.cluster.doctor.check import one_line
from res2net.cluster.doctor.launched import Launched

WAIT = 60.0
"""Seconds that ranks wait for each other."""


class MeetingError(RuntimeError):
    """Ranks do not reach each other, or one has gone."""

    def __init__(self, message: str, advice: str) -> None:
        super().__init__(message)
        self.advice = advice


@dataclass(frozen=True)
class Answer:
    """What one rank said: a value, or why it has none."""

    rank: int
    value: Any = None
    error: str = ""


class Meeting:
    """All ranks, after every one has come.

    All ranks call the same methods in the same order; `name` is used once.

    Raises:
        MeetingError: they did not all come within `WAIT` seconds (every method: it no longer
            answers).
    """

    def __init__(self, me: Launched) -> None:
        self.me = me
        self.rank, self.world_size = me.rank, me.world_size
        self.wait = WAIT
        self.hosts: list[str] = []
        """By rank; known to rank 0 only."""
        where = f"{me.address}:{me.port}"
        try:
            socket.getaddrinfo(me.address, None)
        except OSError as error:
            raise MeetingError(
                f"{where}: {me.address} has no address: {error.strerror or error}",
                "set MASTER_ADDR to the first node's address",
            ) from error
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # one line is enough
        from torch.distributed import TCPStore

        try:
            self.store = TCPStore(
                me.address,
                me.port,
                is_master=me.rank == 0,
                timeout=timedelta(seconds=self.wait),
                wait_for_workers=False,
            )
        except RuntimeError as error:
            what = "cannot listen there" if me.rank == 0 else "nobody answers"
            raise MeetingError(
                f"{where}: {what} ({self.wait:.0f} s): {one_line(error)[:150]}",
                "is MASTER_ADDR rank 0's host, does it run, does a firewall close the port?",
            ) from error
        self.hosts = [str(answer.value) for answer in self.exchange("host", lambda: me.host)]
        self.tell("all here", True)

    def exchange(self, name: str, work: Callable[[], Any]) -> list[Answer]:
        """Every rank does `work` and says what came of it: plain values.

        Returns:
            The answers by rank, on rank 0; nothing on the others.
        """
        said: dict[str, Any]
        try:
            said = {"value": work()}
        except Exception as error:  # whatever is broken there is what is looked for
            said = {"error": one_line(error)}
        self._set(f"{name}/{self.rank}", said)
        if self.rank:
            return []
        deadline = time.monotonic() + self.wait
        answers, missing = [], []
        for rank in range(self.world_size):
            try:
                # those who are there already are heard after the deadline, too
                left = max(deadline - time.monotonic(), 0.1)
                answers.append(Answer(rank, **self._get(f"{name}/{rank}", left)))
            except RuntimeError:
                missing.append(rank)
        if missing:
            raise MeetingError(
                f"{self.world_size - len(missing)} of {self.world_size} ranks answered at "
                f"{self.me.address}:{self.me.port} within {self.wait:.0f} s ({name}); not "
                f"{self.names(missing)}",
                "look at what these ranks printed; can their hosts reach this address?",
            )
        return answers

    def tell(self, name: str, value: Any = None) -> Any:
        """Rank 0's `value`, on all ranks."""
        if self.rank == 0:
            self._set(name, value)
            return value
        try:
            # rank 0 may itself be waiting for another one, and before that for its own checks
            return self._get(name, 2 * self.wait)
        except RuntimeError as error:
            raise MeetingError(
                f"rank 0 at {self.me.address}:{self.me.port} no longer answers ({name})",
                "look at what rank 0 printed",
            ) from error

    def names(self, ranks: list[int]) -> str:
        """Ranks with their hosts, for people."""
        shown = [
            f"rank {rank}" + (f" ({self.hosts[rank]})" if self.hosts else "") for rank in ranks[:8]
        ]
        more = f" and {len(ranks) - 8} more" if len(ranks) > 8 else ""
        return ", ".join(shown) + more

    def _set(self, key: str, value: Any) -> None:
        try:
            self.store.set(key, json.dumps(value))
        except RuntimeError as error:
            raise MeetingError(
                f"rank 0 at {self.me.address}:{self.me.port} no longer answers ({key})",
                "look at what rank 0 printed",
            ) from error

    def _get(self, key: str, seconds: float) -> Any:
        self.store.wait([key], timedelta(seconds=seconds))
        return json.loads(self.store.get(key))
