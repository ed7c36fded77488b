"""Ends a run that has stood still for too long, and says where each of its ranks stood.

Logs nothing; writes `stalled-rank<N>.txt`.
"""

from __future__ import annotations

import faulthandler
import os
import socket
import time
from collections.abc import Callable
from datetime import datetime
from threading import Event, Thread
from typing import Any

import lightning as L

from res2net.files.place import check
from res2net.files.runs import RunDirectory, say

LOOK = 5.0
"""Seconds between two looks of the watching thread."""
GRACE = 10.0
"""Seconds in which the other ranks hear of the stall and write down where they stand."""
PATIENCE = 10.0
"""Seconds that one file may take: the file system may be what hangs."""
RANK_ZERO_FIRST = 45.0
"""Seconds that the other ranks wait for it: srun and torchrun end all when the first one goes."""
LEAVE = 60.0
"""Seconds that the farewell on rank 0 (releasing the lock, requeueing) may take."""
BACKSTOP = 90.0
"""Seconds more for a process whose threads cannot run; longer than rank 0 takes to leave."""

STDERR = 2
TEMPFAIL = 75
"""Exit code: stopped, to be gone on with."""


class Watchdog(L.Callback):
    """Ends all ranks if the training has made no progress for some minutes.

    Every rank watches itself, from a thread of its own: progress is any of the hooks below. The
    rank that has stood still writes the stacks of all its threads to `stalled-rank<N>.txt`, the
    others see that file grow and write theirs, then rank 0 takes its leave and all processes end:
    with exit code 75 to be requeued, or with 1 if no step was made since the start of this process,
    so that a run which always stalls at its start is not requeued for ever.

    A call that keeps Python's global lock stops the watching thread as well. A timer of the C
    library then writes the stacks to stderr and ends the process with exit code 1, without
    `leave`, `BACKSTOP` seconds later. It cannot tell such a call from a process that was
    suspended (Ctrl-Z, scontrol suspend) for as long.

    Args:
        run: gets the files.
        minutes: without progress, after which the run ends; 0 for never.
        leave: called on global rank 0 before it ends, with whether to requeue the run. Its main
            thread stands still: it must need nothing of it. Given up after `LEAVE` seconds.
    """

    def __init__(self, run: RunDirectory, *, minutes: float, leave: Callable[[bool], None]) -> None:
        self.run = run
        self.seconds = 60 * minutes
        self.leave = leave
        self._moved = 0.0  # read by the thread; all that a step pays for
        self._first_step: int | None = None
        self._wake = Event()
        self._ended = False
        self._told = ""  # the file of another rank, if it has grown
        self._thread: Thread | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit" or not self.seconds or self._thread is not None:
            return
        self._moved, self._first_step, self._told = time.monotonic(), None, ""
        self._wake, self._ended = Event(), False
        self._look = min(LOOK, self.seconds / 4)
        # daemons: a process whose main thread has ended goes without them
        self._thread = Thread(
            target=self._watch, args=(trainer, trainer.global_rank), name="watchdog", daemon=True
        )
        self._thread.start()
        if trainer.world_size > 1:
            Thread(target=self._listen, name="watchdog-listens", daemon=True).start()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._end()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._end()

    def _end(self) -> None:
        """Stop watching. Does not come back if the decision to leave was made already."""
        if self._thread is None:
            return
        self._ended = True
        self._wake.set()
        self._thread.join()
        self._thread = None
        faulthandler.cancel_dump_traceback_later()

    # --- Progress --------------------------------------------------------------------------------

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._first_step = trainer.global_step  # after a checkpoint was loaded
        self._moved = time.monotonic()

    def _progress(self, *args: Any, **kwargs: Any) -> None:
        self._moved = time.monotonic()

    on_fit_start = on_train_epoch_start = on_train_batch_start = on_train_batch_end = _progress
    on_train_epoch_end = on_train_end = on_save_checkpoint = on_load_checkpoint = _progress
    on_validation_start = on_validation_epoch_start = on_validation_end = _progress
    on_validation_batch_start = on_validation_batch_end = on_validation_epoch_end = _progress

    # --- Watching --------------------------------------------------------------------------------

    def _watch(self, trainer: L.Trainer, rank: int) -> None:
        silent, moved, before = 0.0, self._moved, time.monotonic()
        while silent < self.seconds and not self._told:
            faulthandler.dump_traceback_later(self.seconds + BACKSTOP, exit=True, file=STDERR)
            self._wake.wait(self._look)
            if self._ended:
                return
            now = time.monotonic()
            if self._moved != moved:
                silent, moved, before = 0.0, self._moved, self._moved
            # of a time in which this thread did not run either, only so much counts: the process
            # was suspended
            silent += min(now - before, 2 * self._look)
            before = now
        faulthandler.dump_traceback_later(
            2 * PATIENCE + GRACE + max(LEAVE, RANK_ZERO_FIRST) + BACKSTOP, exit=True, file=STDERR
        )
        step = trainer.global_step
        stepped = self._first_step is not None and step > self._first_step
        if rank == 0:
            _within(PATIENCE, lambda: self._speak(step, stepped=stepped))
        _within(PATIENCE, lambda: self._dump(rank, step, silent))
        time.sleep(GRACE)
        if rank == 0:
            _within(LEAVE, lambda: self.leave(stepped))
        else:
            time.sleep(RANK_ZERO_FIRST)
        os._exit(TEMPFAIL if stepped else 1)

    def _listen(self) -> None:
        """Notice that another rank has stood still. A thread of its own: file systems may hang."""
        known: dict[str, int] | None = None
        wake = self._wake  # of this fit
        while not wake.wait(self._look):
            try:
                sizes = {file.name: file.stat().st_size for file in self.run.stalled_files()}
            except OSError:
                continue
            known = sizes if known is None else known
            for name, size in sizes.items():
                if size > known.get(name, 0):
                    self._told = name
                    wake.set()
                    return

    def _speak(self, step: int, *, stepped: bool) -> None:
        minutes = f"{self.seconds / 60:g} minutes"
        told = f" ({self._told} came first)" if self._told else ""
        files = self.run.stalled(0).with_name("stalled-rank*.txt")
        next_ = (
            "ending with exit code 75: run.resume=auto goes on from the last checkpoint"
            if stepped
            else "ending with exit code 1: no step was made, so that another try would stall too"
        )
        say(
            f"no progress for {minutes}{told} at step {step}: where all ranks stand is written to "
            f"{files}; {next_}",
            every_rank=True,
        )

    def _dump(self, rank: int, step: int, silent: float) -> None:
        why = f", because {self._told} grew" if self._told else ""
        head = (
            f"{datetime.now().astimezone().isoformat(timespec='seconds')} rank {rank}, "
            f"host {socket.gethostname()}, pid {os.getpid()}, step {step}: "
            f"no progress for {silent:.0f} s{why}\n"
        )
        try:
            check(self.run.stalled(rank))
            with self.run.stalled(rank).open("a") as file:
                file.write(head)
                file.flush()
                faulthandler.dump_traceback(file, all_threads=True)
                file.write("\n")
        except OSError:  # a full disk, or it was moved: the job's log may still take it
            os.write(STDERR, head.encode())
            faulthandler.dump_traceback(STDERR, all_threads=True)


def _within(seconds: float, work: Callable[[], None]) -> None:
    """Do `work`, but wait no longer than that for it. What it raises is printed by `threading`."""
    thread = Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
