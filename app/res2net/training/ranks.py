"""The ranks that rank 0 starts on its node: none is left behind when another is lost.

Lightning's launcher starts them, and kills rank 0 five seconds after one of them has failed,
whatever it does. Here rank 0 has time to tell and to give its lock back; and ranks end with it when
it is killed itself (`parent.py`).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import lightning as L
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from torch import distributed

from res2net import parent
from res2net.files.runs import say

STOPPED = 75
"""Exit code of a rank that a signal has ended before its first step (`cli.main`)."""

LOOK = 0.5
"""Seconds between two looks at the other ranks."""

GRACE, GRACE_BEFORE = 15.0, 2.0
"""Seconds for rank 0 to find out by itself that another rank is lost, which is more orderly. Before
the ranks have met it would wait for them without an end."""

CLOSING = 30.0
"""Seconds more to close what it has open; something may wait for the lost rank in that, too."""

FAREWELL = 5.0
"""Seconds that ranks may take to end after rank 0 has done its work."""


class RankLauncher(_SubprocessScriptLauncher):
    """Starts the other ranks of this node, and watches them while they work."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.on_loss: Callable[[], None] = lambda: None
        """Called before rank 0 ends because of another, perhaps in a thread of its own."""
        self._done = threading.Event()

    def launch(
        self,
        function: Callable[..., Any],
        *args: Any,
        trainer: L.Trainer | None = None,
        **kwargs: Any,
    ) -> Any:
        """As Lightning's, but for what watches."""
        self.cluster_environment.validate_settings(
            num_devices=self.num_processes, num_nodes=self.num_nodes
        )
        started = not self.cluster_environment.creates_processes_externally
        if started:
            os.environ[parent.LAUNCHER] = str(os.getpid())
            try:
                self._call_children_scripts()
            finally:
                del os.environ[parent.LAUNCHER]
            self._done.clear()
            threading.Thread(target=self._watch, name="ranks", daemon=True).start()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        try:
            return function(*args, **kwargs)
        finally:
            self._done.set()  # what ends from here on ends with this process

    def loss(self, seconds: float) -> str:
        """Which rank was lost and how, in words; nothing if none is within so many seconds."""
        deadline = time.monotonic() + seconds
        while self.procs:
            if failed := self._failed():
                return self._words(*failed)
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        return ""

    def join(self) -> None:
        """Let the ranks end by themselves: it is more orderly."""
        deadline = time.monotonic() + FAREWELL
        for process in self.procs:
            with suppress(Exception):
                process.wait(max(0.0, deadline - time.monotonic()))

    def _watch(self) -> None:
        while not self._done.wait(LOOK):
            if failed := self._failed():
                self._end_because_of(*failed)
                return

    def _failed(self) -> tuple[int, int] | None:
        """Local rank and exit code of one that did."""
        codes = ((rank, process.poll()) for rank, process in enumerate(self.procs, start=1))
        return next(((rank, code) for rank, code in codes if code), None)

    def _words(self, local_rank: int, code: int) -> str:
        rank = self.cluster_environment.node_rank() * self.num_processes + local_rank
        how = f"was ended by {_name(-code)}" if code < 0 else f"ended with exit code {code}"
        return f"rank {rank} {how}"

    def _end_because_of(self, local_rank: int, code: int) -> None:
        if code == STOPPED:  # all stop, as if the signal had come to this one
            os.kill(os.getpid(), signal.SIGTERM)
        met = distributed.is_available() and distributed.is_initialized()
        if self._done.wait(GRACE if met or code == STOPPED else GRACE_BEFORE):
            time.sleep(CLOSING)
            os._exit(1)
        with suppress(Exception):
            self.on_loss()
        for process in self.procs:
            process.kill()
        when = "" if met else " before all ranks had met"
        what = f"{self._words(local_rank, code)}{when}"
        say(f"error: {what}; what was saved before is kept: run.resume=auto goes on")
        os._exit(1)


class RankStrategy(DDPStrategy):
    """Lightning's DDP with this launcher."""

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        self._launcher = RankLauncher(self.cluster_environment, self.num_processes, self.num_nodes)


def launcher_of(trainer: L.Trainer) -> RankLauncher | None:
    """That which has started, or will start, other ranks from this process."""
    launcher = trainer.strategy.launcher
    return launcher if isinstance(launcher, RankLauncher) else None


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
