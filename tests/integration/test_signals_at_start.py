"""A signal before the first step: nothing is to be saved, so the process does not wait for it.

Each start-up here would last for ever: whoever waits for its first step fails.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from ranks import start, train
from runs import COMMAND
from stillness import stand_still

SETTINGS = (
    "quickstart",
    "data.subset=0.3",
    "trainer.max_epochs=1",
    "logging.wandb=disabled",
    "run.name=run",
)
WORDS = "nothing was trained by this start, and nothing is in the way of the next"


def sleep() -> None:
    """In Python, which hears signals."""
    while True:
        time.sleep(0.1)


def stop_at(place: str, how: Callable[[], None], reached: Path) -> None:
    """In a process that is to train: stand still where it opens its data, where it has just taken
    its run, or in its first step."""
    from res2net.callbacks.watchdog import Watchdog
    from res2net.training import run
    from res2net.training.classifier import ImageClassifier

    def stop(*_: object, **__: object) -> None:
        reached.with_name(f"{reached.name}-{os.environ.get('LOCAL_RANK', '0')}").touch()
        how()

    if place == "data":
        run.build_parts = stop  # type: ignore[assignment]
    elif place == "claimed":
        Watchdog.setup = stop  # type: ignore[method-assign]
    elif place == "step":
        ImageClassifier.training_step = stop  # type: ignore[method-assign,assignment]
    elif place == "rendezvous" and os.environ["LOCAL_RANK"] == "1":
        run.build_parts = stop  # type: ignore[assignment]


def wait_for(*files: Path) -> None:
    deadline = time.monotonic() + 200
    while not all(file.exists() for file in files):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("place", "how", "number"),
    [
        ("data", sleep, signal.SIGHUP),
        ("claimed", stand_still, signal.SIGUSR1),
        ("step", stand_still, signal.SIGINT),
        ("step", sleep, signal.SIGTERM),
    ],
)
def test_one_process(
    tmp_path: Path, environment: dict[str, str], place: str, how: Callable[[], None], number: int
) -> None:
    reached = tmp_path / "reached"
    (process,) = start(
        tmp_path, environment, *SETTINGS, ranks=1, prepare=partial(stop_at, place, how, reached)
    )
    wait_for(tmp_path / "reached-0")
    os.kill(process.pid or 0, number)
    process.join(60)
    said = (tmp_path / "log-0").read_text()
    assert process.exitcode == 75, said
    name = signal.Signals(number).name
    assert said.splitlines()[-1] == f"stopped by {name} before the first step; {WORDS}"
    assert "Traceback" not in said
    run = tmp_path / "checkpoints/run"
    assert not (run / "lock").exists()
    assert run.exists() == (place != "data")
    if place == "step" and how is sleep:  # the same command again, without run.resume
        train(tmp_path, environment, *SETTINGS, ranks=1)
        assert (run / "last.ckpt").exists()


def test_ranks_that_wait_for_one_another(tmp_path: Path, environment: dict[str, str]) -> None:
    """Rank 0 in the rendezvous, which is C++ and never ends, as rank 1 does not come."""
    prepare = partial(stop_at, "rendezvous", stand_still, tmp_path / "reached")
    processes = start(tmp_path, environment, *SETTINGS, ranks=2, prepare=prepare)
    wait_for(tmp_path / "reached-1")
    wait_until_it_sleeps(processes[0].pid or 0)
    for process in processes:
        os.kill(process.pid or 0, signal.SIGTERM)
    for process in processes:
        process.join(60)
    said = (tmp_path / "log-0").read_text()
    assert [process.exitcode for process in processes] == [75, 75], said
    assert said.splitlines()[-1] == f"stopped by SIGTERM before the first step; {WORDS}"
    assert (tmp_path / "log-1").read_text() == ""
    assert not (tmp_path / "checkpoints").exists()


def wait_until_it_sleeps(process: int) -> None:
    """Until its main thread has used no processor for a second."""
    used, since, deadline = "", time.monotonic(), time.monotonic() + 200
    while time.monotonic() - since < 1:
        stat = Path(f"/proc/{process}/task/{process}/stat").read_text().rpartition(")")[2].split()
        if (now := f"{stat[11]} {stat[12]}") != used or stat[0] != "S":
            used, since = now, time.monotonic()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_while_it_imports(tmp_path: Path, environment: dict[str, str], stuck: str) -> None:
    """As a task of SLURM, which hands the job out again."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (tools / "scontrol").chmod(0o755)
    task = {
        "PYTHONPATH": stuck,
        "PATH": f"{tools}{os.pathsep}{environment['PATH']}",
        "SLURM_JOB_ID": "4711",
        "SLURM_STEP_ID": "0",
    }
    process = subprocess.Popen(
        [COMMAND, "train", *SETTINGS],
        cwd=tmp_path,
        env=environment | task,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(tmp_path / "stuck/reached")
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 75, said
    assert said == (
        "stopped by SIGTERM before the first step; "
        "SLURM job 4711 is requeued and goes on by itself\n"
    )
    assert (tmp_path / "asked").read_text().splitlines()[-1] == "requeue 4711"
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("option", "number", "code"),
    [("--dry-run", signal.SIGTERM, 143), ("--find-lr", signal.SIGHUP, 129)],
)
def test_what_only_tries_ends_as_other_verbs(
    tmp_path: Path, environment: dict[str, str], option: str, number: int, code: int
) -> None:
    """Nothing would ever be saved: it is interrupted, and no job is handed out again."""
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "import res2net.config.load as load\n"
        "def wait(*_):\n"
        "    Path('reached').touch()\n"
        "    while True: time.sleep(0.1)\n"
        "load.load_config = wait\n"
        "from res2net.cli.main import entry_point\n"
        "entry_point()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "train", *SETTINGS, option],
        cwd=tmp_path,
        env=environment | {"SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0"},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(tmp_path / "reached")
    process.send_signal(number)
    _, said = process.communicate(timeout=100)
    assert (process.returncode, said) == (code, f"ended by {signal.Signals(number).name}\n")
