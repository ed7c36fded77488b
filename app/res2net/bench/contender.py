"""One contender in a process of its own, so that no threads and no allocator meet another's."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from res2net import parent
from res2net.bench.machine import cpu_seconds, machine_seconds, memory, settle
from res2net.bench.work import Batches, Work
from res2net.errors import InputError, WorkError

CONTENDERS = {
    "loader": "dali_loaders:whole_loader",
    "dali": "dali_loaders:bare_pipeline",
    "torchvision": "torchvision_loader:torchvision_loader",
}
"""Imported in their own processes only: torchvision's shall not hold DALI's memory."""


def open_contender(name: str, work: Work) -> Batches:
    """The batches of one contender."""
    module, _, function = CONTENDERS[name].partition(":")
    start: Callable[[Work], Batches] = getattr(import_module(f"res2net.bench.{module}"), function)
    return start(work)


@dataclass(frozen=True)
class Turn:
    """One measurement."""

    images: int
    seconds: float
    cpu_seconds: float
    """Of the contender and its children."""
    cpu_seconds_elsewhere: float
    """Of everything else on the machine in that time."""
    memory_mb: float
    """Of the contender and its children; pages that several hold count once."""
    rss_mb: float
    """The same with such pages counted as often as they are held."""

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds


class Contender:
    """A handle on the process; it rests between turns.

    Raises:
        InputError, WorkError: what the process met, or that it ended.
    """

    def __init__(self, name: str, work: Work) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, work), name=name)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Contender:
        self._answer()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()  # which ends it
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def turn(self, *, images: int, seconds: float) -> Turn:
        """Take so many images, or of 0 as many as come in so many seconds, after a warm-up."""
        return Turn(*self._answer((images, seconds)))

    def _answer(self, asked: tuple[int, float] | None = None) -> Any:
        try:
            if asked:
                self._connection.send(asked)
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            self._process.join()
            code = self._process.exitcode
            raise WorkError(f"{self.name}: its process ended (exit code {code})") from error
        if isinstance(answer, InputError | WorkError):
            raise answer
        return answer


def _serve(connection: Connection, name: str, work: Work) -> None:
    """The process: open, then a turn for each (images, seconds) that comes, until none comes."""
    if command := multiprocessing.parent_process():
        parent.end_with(command.pid or 0)  # in the midst of a turn, too

    import torch

    try:
        batches = open_contender(name, work)
        _take(batches, work, images=1, seconds=0.0)
        settle()
        connection.send(None)
        while True:
            try:
                images, seconds = connection.recv()
            except EOFError:
                return
            # what lies ready when a turn begins has been paid for before it
            _take(batches, work, images=_warm_up(work) * work.batch_size, seconds=0.0)
            machine, own, start = machine_seconds(), cpu_seconds(), time.perf_counter()
            taken = _take(batches, work, images=images, seconds=seconds)
            if work.device == "cuda":
                torch.cuda.synchronize()
            elapsed = time.perf_counter() - start
            own, machine = cpu_seconds() - own, machine_seconds() - machine
            used = memory()
            settle()
            connection.send((taken, elapsed, own, max(0.0, machine - own), *used))
    except (InputError, WorkError) as error:
        connection.send(error)
    except KeyboardInterrupt:
        pass  # told by the command


def _warm_up(work: Work) -> int:
    """Batches: more than any contender keeps ready (DataLoader: two a worker)."""
    return 2 * work.threads + 4


def _take(batches: Batches, work: Work, *, images: int, seconds: float) -> int:
    """Take `images` (rounded up to batches), else for so many seconds; how many were taken."""
    taken = 0
    end = time.perf_counter() + seconds
    while taken < images or (not images and time.perf_counter() < end):
        next(batches)
        taken += work.batch_size
    return taken
