"""Shards written by several processes, which end when the one that started them does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

from res2net.data.sharding.images import Images
from res2net.data.sharding.plan import Plan
from res2net.data.sharding.shard_file import Recipe, Stopped, write_shard
from res2net.errors import WorkError

_SECONDS_BETWEEN_REPORTS = 0.2


@dataclass(frozen=True)
class Job:
    """All that a worker needs to write any of the shards."""

    directory: Path
    plan: Plan
    inputs: Mapping[str, Images]
    keys: Mapping[str, Mapping[int, str]]
    """Split -> keys of images whose path does not give the key."""
    recipe: Recipe

    def write(self, split: str, number: int, on_image: Callable[[], None]) -> None:
        """See `write_shard`."""
        indices = self.plan.splits[split].range_of(number)
        images, keys = self.inputs[split], self.keys[split]
        write_shard(self.directory, split, number, indices, images, keys, self.recipe, on_image)


def run(
    job: Job, shards: Sequence[tuple[str, int]], workers: int, report: Callable[[int], None]
) -> None:
    """Write shards, and tell `report` now and then how many of their images are done.

    Raises what the first worker that fails raises; shards that others were writing are given up,
    finished ones stay.
    """
    if workers == 1 or len(shards) == 1:
        done = 0

        def on_image() -> None:
            nonlocal done
            done += 1
            report(done)

        for split, number in shards:
            job.write(split, number, on_image)
        return
    # Fresh processes, not forked ones: the threads of a progress bar or of pyarrow may hold locks.
    context = multiprocessing.get_context("spawn")
    counter, stop = context.Value("q", 0), context.Event()
    with ProcessPoolExecutor(
        min(workers, len(shards)), context, _begin, (job, counter, stop)
    ) as pool:
        try:
            # the keyboard's signal goes to all, also to workers that are still importing: they
            # inherit that it is ignored
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            try:
                running = {pool.submit(_write, split, number) for split, number in shards}
            finally:
                signal.signal(signal.SIGINT, before)
            while running:
                done_now, running = wait(
                    running, timeout=_SECONDS_BETWEEN_REPORTS, return_when=FIRST_EXCEPTION
                )
                report(counter.value)
                for future in done_now:
                    future.result()
        except BrokenProcessPool as error:
            raise WorkError(
                "a worker was killed (out of memory? --workers takes fewer of them)"
            ) from error
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


_job: Job
_counter: Any
_stop: Any


def _begin(job: Job, counter: Any, stop: Any) -> None:
    global _job, _counter, _stop
    _job, _counter, _stop = job, counter, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # from the keyboard to all: the parent says stop
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's workers outlive a parent that is killed, and would write beside its successor's."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for([parent.sentinel])
    os._exit(1)


def _write(split: str, number: int) -> None:
    def on_image() -> None:
        with _counter.get_lock():
            _counter.value += 1
        if _stop.is_set():
            raise Stopped

    _job.write(split, number, on_image)
