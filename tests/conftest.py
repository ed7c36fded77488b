"""The command as a user starts it."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runs import COMMAND, Run, heartbeat_step

# Tests run side by side, and OpenMP's threads spin while they wait: one each is faster. Nothing has
# imported torch yet, and the commands that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture
def environment() -> dict[str, str]:
    """Of a process that no launcher started and that is logged in nowhere."""
    launcher = ("SLURM_", "LOCAL_", "RANK", "WORLD_SIZE", "MASTER_", "WANDB_", "NODE_RANK")
    return {k: v for k, v in os.environ.items() if not k.startswith(launcher)} | {
        "WANDB_MODE": "offline",
        "COLUMNS": "200",
    }


@pytest.fixture
def command(tmp_path: Path, environment: dict[str, str]) -> Run:
    """Runs `res2net ARGUMENT ...` in the test's folder and returns what it did."""

    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [COMMAND, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=150,
        )
        assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture
def kill_at(tmp_path: Path, environment: dict[str, str]) -> Iterator[Callable[..., None]]:
    """Starts a training and SIGKILLs all its processes once its heartbeat says `step`."""
    started: list[subprocess.Popen[bytes]] = []

    def kill(step: int, run: Path, *arguments: str) -> None:
        process = subprocess.Popen(
            [COMMAND, "train", *arguments],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        started.append(process)
        deadline = time.monotonic() + 100
        while heartbeat_step(run) < step:
            assert process.poll() is None, "the run ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    yield kill
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
