"""A run that is asked to stop saves between two steps and ends; resumed, nothing was lost."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from processes import family
from ranks import launch, start, train
from runs import COMMAND, differences, heartbeat_step, read_state, rows

SETTINGS = (
    "quickstart",
    "data.subset=0.5",
    "trainer.max_epochs=2",
    "augment.mixup=0.4",
    "optim.ema_decay=0.9",
    "checkpoint.every_minutes=0",
    "logging.wandb=disabled",
)
STEPS = 2 * 11


def wait_until(condition: Callable[[], bool], process: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 100
    while not condition():
        assert process() and time.monotonic() < deadline
        time.sleep(0.002)


def look_at_handlers() -> None:
    """In every training step."""
    from res2net import stopping
    from res2net.training.classifier import ImageClassifier

    step = ImageClassifier.training_step

    def training_step(self: ImageClassifier, *arguments: object) -> object:
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            assert signal.getsignal(number) is stopping._note, number
        connector = self.trainer._signal_connector
        assert not connector._original_handlers and not self.trainer.received_sigterm
        return step(self, *arguments)  # type: ignore[arg-type]

    ImageClassifier.training_step = training_step  # type: ignore[method-assign,assignment]


def signalled(
    folder: Path, environment: dict[str, str], run: Path, number: int, *to: int, ranks: int
) -> list[BaseProcess]:
    """A training whose ranks `to` get a signal in full speed; the ended processes."""
    arguments = (*SETTINGS, f"run.name={run.name}", "run.resume=auto")
    processes = start(folder, environment, *arguments, ranks=ranks, prepare=look_at_handlers)
    wait_until(lambda: heartbeat_step(run) > 5, lambda: all(p.is_alive() for p in processes))
    for rank in to:
        os.kill(processes[rank].pid or 0, number)
    for process in processes:
        process.join(60)
    return processes


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_one_process(tmp_path: Path, environment: dict[str, str], number: int) -> None:
    run = tmp_path / "checkpoints/stopped"
    (process,) = signalled(tmp_path, environment, run, number, 0, ranks=1)
    said = (tmp_path / "log-0").read_text()
    assert process.exitcode == 75, said
    step = heartbeat_step(run)
    name = signal.Signals(number).name
    last = said.strip().splitlines()[-1]
    assert last.startswith(f"stopped by {name} at step {step}; ") and "run.resume=auto" in last
    assert read_state(run / "last.ckpt")["global_step"] == step
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["steps"]) == ("interrupted", step)
    assert not (run / "lock").exists()


def test_two_ranks_of_which_one_gets_the_signal(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    whole, stopped = (tmp_path / "checkpoints" / name for name in ("whole", "stopped"))
    train(tmp_path, environment, *SETTINGS, "run.name=whole")
    first, second = signalled(tmp_path, environment, stopped, signal.SIGTERM, 1, ranks=2)
    assert (first.exitcode, second.exitcode) == (75, 0)
    assert (tmp_path / "log-1").read_text() == ""
    train(tmp_path, environment, *SETTINGS, "run.name=stopped", "run.resume=auto")
    assert differences(read_state(whole / "last.ckpt"), read_state(stopped / "last.ckpt")) == []
    assert rows(whole) == rows(stopped)
    summary = json.loads((stopped / "summary.json").read_text())
    assert (summary["restarts"], summary["steps_executed"]) == (1, STEPS)


def step_slowly() -> None:
    from res2net.training.classifier import ImageClassifier

    step = ImageClassifier.training_step

    def training_step(self: ImageClassifier, *arguments: object) -> object:
        time.sleep(3)
        return step(self, *arguments)  # type: ignore[arg-type]

    ImageClassifier.training_step = training_step  # type: ignore[method-assign,assignment]


def test_ctrl_c_twice_ends_at_once(tmp_path: Path, environment: dict[str, str]) -> None:
    run = tmp_path / "checkpoints/stopped"
    arguments = (*SETTINGS, "run.name=stopped")
    (process,) = start(tmp_path, environment, *arguments, ranks=1, prepare=step_slowly)
    wait_until(lambda: heartbeat_step(run) > 0, process.is_alive)
    for _ in range(2):
        time.sleep(0.5)  # within the second step
        os.kill(process.pid or 0, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 130
    last = (tmp_path / "log-0").read_text().strip().splitlines()[-1]
    assert last.startswith("interrupted at step 1; "), last
    assert not (run / "last.ckpt").exists() and not (run / "lock").exists()


ENDLESS = (
    *SETTINGS,
    "trainer.max_epochs=99",
    "run.name=stopped",
    "checkpoint.every_steps=1",
)


def test_when_one_rank_dies_the_others_end(tmp_path: Path, environment: dict[str, str]) -> None:
    run = tmp_path / "checkpoints/stopped"
    with family(environment) as members:
        process = launch(tmp_path, members.environment, *ENDLESS)
        wait_until(lambda: heartbeat_step(run) > 3, process.is_alive)
        os.kill(members.rank(1) or 0, signal.SIGKILL)
        process.join(60)
        members.wait_until_gone()
    said = (tmp_path / "log-0").read_text()
    assert process.exitcode == 1 and "Traceback" not in said
    assert said.strip().splitlines()[-1] == (
        "error: rank 1 was ended by SIGKILL; "
        "what was saved is kept: run.resume=auto goes on from there"
    )
    assert not (run / "lock").exists()


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.soak)]
)
def test_torchrun_ends(tmp_path: Path, environment: dict[str, str], number: int) -> None:
    """It passes SIGTERM on; killed it can do nothing, but its ranks have each other and save."""
    torchrun = str(Path(COMMAND).with_name("torchrun"))
    run = tmp_path / "checkpoints/stopped"
    with family(environment) as members, (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [torchrun, "--nproc-per-node=2", "-m", "res2net", "train", *ENDLESS],
            cwd=tmp_path,
            env=members.environment,
            stderr=log,
        )
        wait_until(lambda: heartbeat_step(run) > 3, lambda: process.poll() is None)
        process.send_signal(number)
        process.wait(100)
        members.wait_until_gone()
    err = (tmp_path / "log").read_text()
    assert any(line.startswith("stopped by SIGTERM at step ") for line in err.splitlines()), err
    assert read_state(run / "last.ckpt")["global_step"] == heartbeat_step(run)
    assert json.loads((run / "summary.json").read_text())["status"] == "interrupted"
