"""Whatever rank is killed, and whenever: no process of the run is left, and the run goes on.

Rank 0 starts the other ranks itself, as the command does; then one of them gets SIGKILL.
`make test` kills in a few places, `make soak` at random moments from the start to the end.
"""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest.mock import patch

import pytest

import ranks
from processes import family
from runs import COMMAND, heartbeat_step
from stillness import stand_still

STEPS = 2 * 6
SETTINGS = (
    "quickstart",
    "data.subset=0.3",
    "trainer.max_epochs=2",
    "checkpoint.every_steps=2",
    "logging.wandb=offline",
    "run.resume=auto",
)


def wait_until(condition: Callable[[], object], is_alive: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert is_alive() and time.monotonic() < deadline
        time.sleep(0.005)


def set_path(value: str) -> None:
    os.environ["PYTHONPATH"] = value


def test_the_launcher_is_killed(tmp_path: Path, environment: dict[str, str], stuck: str) -> None:
    """While the other rank starts, and in the midst of the training."""
    run = tmp_path / "checkpoints/run"
    asked = (*SETTINGS, "run.name=run")
    with family(environment) as members:
        begin = partial(ranks.launch, tmp_path, members.environment, *asked)
        process = begin(prepare=partial(set_path, stuck))
        wait_until(lambda: members.rank(1), process.is_alive)
        process.kill()
        process.join()
        members.wait_until_gone()
        assert not run.exists()

        process = begin()
        wait_until(lambda: heartbeat_step(run) > 2, process.is_alive)
        process.kill()
        process.join()
        members.wait_until_gone()
        assert (run / "last.ckpt").exists()
    ranks.train(tmp_path, environment, *asked)
    assert json.loads((run / "summary.json").read_text())["status"] == "completed"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_another_rank_is_ended_before_all_have_met(
    tmp_path: Path, environment: dict[str, str], stuck: str, number: int
) -> None:
    """Which rank 0 would wait for; it tells which one, and stops where that was told to stop."""
    with family(environment) as members:
        process = ranks.launch(
            tmp_path, members.environment, *SETTINGS, prepare=partial(set_path, stuck)
        )
        wait_until((tmp_path / "stuck/reached").exists, process.is_alive)
        os.kill(members.rank(1) or 0, number)
        process.join(60)
        members.wait_until_gone()
    said = (tmp_path / "log-0").read_text()
    last = said.strip().splitlines()[-1]
    if number == signal.SIGKILL:
        assert process.exitcode == 1, said
        assert last.startswith("error: rank 1 was ended by SIGKILL before all ranks had met; ")
    else:
        assert process.exitcode == 75, said
        assert last.startswith("stopped by SIGTERM before the first step; ")
    assert not (tmp_path / "checkpoints").exists()


def test_a_launcher_is_gone_before_its_rank_begins(
    tmp_path: Path, environment: dict[str, str], stuck: str
) -> None:
    """Nobody would tell the rank later: it looks by itself."""
    gone = subprocess.Popen(["true"])  # not waited for: it is a zombie
    while Path(f"/proc/{gone.pid}/stat").read_text().split()[2] != "Z":
        time.sleep(0.01)
    launched = {"RES2NET_LAUNCHER": str(gone.pid), "LOCAL_RANK": "1", "PYTHONPATH": stuck}
    orphan = subprocess.run(
        [COMMAND, "train", *SETTINGS], cwd=tmp_path, env=environment | launched, timeout=100
    )
    gone.wait()
    assert orphan.returncode == -signal.SIGKILL


def measure(reached: Path) -> None:
    """A benchmark of something that stands still; its process writes down which one it is."""
    from res2net.bench import contender

    def open_contender(*_: object) -> None:
        reached.write_text(str(os.getpid()))
        stand_still()

    contender.open_contender = open_contender  # type: ignore[assignment]
    fork = multiprocessing.get_context("fork")  # has everything imported
    with patch.object(multiprocessing, "get_context", lambda method: fork):
        contender.Contender("loader", None)._answer()  # type: ignore[arg-type]


def test_a_benchmark_is_killed(tmp_path: Path) -> None:
    reached = tmp_path / "reached"
    process = ranks.process(measure, reached)
    wait_until(lambda: reached.exists() and reached.read_text(), process.is_alive)
    child = int(reached.read_text())
    assert command_line(child)
    process.kill()
    process.join()
    wait_until(lambda: not command_line(child), lambda: True)


def command_line(process: int) -> bytes:
    """Empty for one that has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.soak
@pytest.mark.timeout(4000)
@pytest.mark.parametrize(("rank", "kills"), [(0, 20), (1, 10)])
def test_killed_at_any_moment(
    tmp_path: Path, environment: dict[str, str], rank: int, kills: int
) -> None:
    """Each time of a run of its own, which then goes on to its end."""
    chance = random.Random(rank)
    killed: list[tuple[int, int]] = []
    with family(environment) as members:

        def begin(name: str) -> BaseProcess:
            return ranks.launch(tmp_path, members.environment, *SETTINGS, f"run.name={name}")

        start, process = time.monotonic(), begin("whole")
        process.join()
        whole = time.monotonic() - start
        number = 0
        while len(killed) < kills:  # who ends before does not count
            number += 1
            run = tmp_path / f"checkpoints/run-{number}"
            start, process = time.monotonic(), begin(run.name)
            if len(killed) % 2:  # most of the time is start-up
                step = chance.randrange(1, STEPS + 1)
                while process.is_alive() and heartbeat_step(run) < step:
                    time.sleep(0.002)
                process.join(chance.uniform(0.0, 1.0))
            else:
                process.join(chance.uniform(0.0, whole))
            victim = members.rank(rank) if rank else process.pid
            if process.is_alive():  # the others may not be started yet: then the launcher
                killed.append((round(time.monotonic() - start), heartbeat_step(run)))
                os.kill(victim or process.pid or 0, signal.SIGKILL)
            else:
                whole = min(whole, time.monotonic() - start)
            process.join(60)
            assert not process.is_alive()
            members.wait_until_gone()
            ranks.train(tmp_path, environment, *SETTINGS, f"run.name={run.name}", seconds=300)
            assert json.loads((run / "summary.json").read_text())["status"] == "completed"
    print(f"rank {rank}, {whole:.0f} s from start to end, (second, step) of the kills: {killed}")
