"""Trainings of several ranks whose processes find everything imported: many starts, little time.

A rank is a process of its own that runs the command's `main`, told by the environment which rank it
is, as a cluster's launcher tells it. How the command itself starts its ranks: `test_ddp.py`.
"""

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest.mock import patch

from runs import COMMAND, heartbeat_step
from undrawn import draw_nothing

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["warm"])


def _ensure_server() -> None:
    # before Python 3.13 it does not take sys.path over, and does not tell what it did not find
    with patch.dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))):
        forkserver.ensure_running()


def _rank(
    arguments: list[str],
    folder: Path,
    environment: dict[str, str],
    log: Path,
    prepare: Callable[[], None] | None,
    drawn: bool,
    program: str = "res2net",
) -> None:
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [program, *arguments]
    from res2net.cli.main import main

    if not drawn:
        draw_nothing()
    if prepare is not None:
        prepare()
    sys.exit(main(arguments))


def start(
    folder: Path,
    environment: dict[str, str],
    *arguments: str,
    ranks: int = 2,
    prepare: Callable[[], None] | None = None,
    drawn: bool = False,
) -> list[BaseProcess]:
    """Start `res2net train ARGUMENT ...` in `folder` on so many ranks; they write to `log-RANK`.

    `prepare`, a function of a module, is called in each of them first. `drawn`: with the pictures
    at the end.
    """
    _ensure_server()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"}
    asked = ["train", *arguments, f"trainer.devices={ranks}"]
    processes = []
    for rank in range(ranks):
        place = environment | launcher | {"LOCAL_RANK": str(rank)} if ranks > 1 else environment
        process = _CONTEXT.Process(
            target=_rank, args=(asked, folder, place, folder / f"log-{rank}", prepare, drawn)
        )
        process.start()
        processes.append(process)
    return processes


def launch(
    folder: Path,
    environment: dict[str, str],
    *arguments: str,
    ranks: int = 2,
    prepare: Callable[[], None] | None = None,
) -> BaseProcess:
    """Start rank 0 alone, which starts the others by itself, as the command does: those import all.

    Their environment is rank 0's as it is after `prepare`.
    """
    _ensure_server()
    asked = ["train", *arguments, f"trainer.devices={ranks}"]
    process = _CONTEXT.Process(
        target=_rank,
        args=(asked, folder, environment, folder / "log-0", prepare, False, COMMAND),
    )
    process.start()
    return process


def process(target: Callable[..., None], *arguments: object) -> BaseProcess:
    """`target(*arguments)`, which a test then ends."""
    _ensure_server()
    started = _CONTEXT.Process(target=target, args=arguments)
    started.start()
    return started


def call(
    target: Callable[..., None], *arguments: object, ranks: int = 2, exit_code: int = 0
) -> None:
    """`target(rank, *arguments)` in a process for each rank, to the end."""
    _ensure_server()
    processes = [_CONTEXT.Process(target=target, args=(n, *arguments)) for n in range(ranks)]
    for process in processes:
        process.start()
    deadline = time.monotonic() + 100
    try:
        for process in processes:
            process.join(deadline - time.monotonic())
            assert process.exitcode == exit_code
    finally:
        for process in processes:
            if process.is_alive():
                os.kill(process.pid or 0, signal.SIGKILL)
            process.join()


def train(
    folder: Path,
    environment: dict[str, str],
    *arguments: str,
    ranks: int = 2,
    run: Path | None = None,
    kill_at: int = 0,
    seconds: float = 100,
    prepare: Callable[[], None] | None = None,
    drawn: bool = False,
) -> None:
    """To the end; or until the heartbeat of `run` says step `kill_at`, then SIGKILL."""
    processes = start(folder, environment, *arguments, ranks=ranks, prepare=prepare, drawn=drawn)
    deadline = time.monotonic() + seconds
    try:
        if run is None:
            for process in processes:
                process.join(deadline - time.monotonic())
                assert process.exitcode == 0, (folder / "log-0").read_text()
            return
        while heartbeat_step(run) < kill_at:
            assert all(process.is_alive() for process in processes), "it ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        for process in processes:
            if process.is_alive():
                os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
