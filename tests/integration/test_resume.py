"""A run that is killed goes on as if it had not been: bit for bit."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ranks import train
from res2net.cli.main import main
from runs import COMMAND, Run, differences, heartbeat_step, read_state, rows

SETTINGS = (
    "quickstart",
    "trainer.max_epochs=3",
    "trainer.accumulate=2",
    "augment.crop=random_resized",
    "augment.mixup=0.4",
    "augment.cutmix=1",
    "augment.mix_probability=0.6",
    "loss.class_weights=balanced",
    "model.drop_path=0.1",
    "optim.ema_decay=0.9",
    "optim.ema_every=3",
    "checkpoint.every_steps=4",
    "logging.every_steps=3",
)
STEPS = 3 * 22


def test_killed_twice_equals_never_killed(
    tmp_path: Path,
    command: Run,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, killed = (tmp_path / "checkpoints" / name for name in ("whole", "killed"))
    train(tmp_path, environment, *SETTINGS, "run.name=whole", ranks=1)
    arguments = (*SETTINGS, "run.name=killed", "run.resume=auto")
    for step in (13, 47):  # in the middle of the first epoch, and of the third
        train(tmp_path, environment, *arguments, ranks=1, run=killed, kill_at=step)
    done = command("train", *arguments)
    assert "resuming from" in done.stderr

    state = read_state(whole / "last.ckpt")
    assert state["global_step"] == STEPS
    assert state["ema_updates"] == STEPS // 3
    assert differences(state, read_state(killed / "last.ckpt")) == []
    assert differences(read_state(whole / "best.ckpt"), read_state(killed / "best.ckpt")) == []
    assert rows(whole) == rows(killed)
    assert sum("val_ema,top1" in row for row in rows(whole)) == 3

    summary, again = (json.loads((run / "summary.json").read_text()) for run in (whole, killed))
    assert summary["steps_executed"] == STEPS
    assert again["restarts"] == 2
    # at most 4 steps since a save, and one that was under way when the heartbeat was read
    assert 0 < again["steps_executed"] - STEPS <= 2 * 5
    assert again["val/top1"] == summary["val/top1"]

    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 0
    assert "already complete" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (signal.SIGINT, 130, "interrupted at step"),
        (signal.SIGTERM, 1, "stopped by SIGTERM at step"),
    ],
)
def test_stopped_by_a_signal(
    tmp_path: Path, environment: dict[str, str], number: int, code: int, words: str
) -> None:
    arguments = (*SETTINGS, "trainer.max_epochs=99", "run.name=stopped", "checkpoint.every_steps=1")
    run = tmp_path / "checkpoints/stopped"
    process = subprocess.Popen(
        [COMMAND, "train", *arguments],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 100
    while heartbeat_step(run) < 5:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    last = err.strip().splitlines()[-1]
    assert words in last and "run.resume=auto" in last
    assert json.loads((run / "summary.json").read_text())["status"] == "interrupted"
