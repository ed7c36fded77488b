"""A run that is killed goes on as if it had not been: bit for bit."""

import json
from pathlib import Path

import pytest

from ranks import train
from res2net.cli.main import main
from runs import differences, read_state, rows

SETTINGS = (
    "quickstart",
    "data.subset=0.5",
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
STEPS = 3 * 11


def test_killed_twice_equals_never_killed(
    tmp_path: Path,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, killed = (tmp_path / "checkpoints" / name for name in ("whole", "killed"))
    train(tmp_path, environment, *SETTINGS, "run.name=whole", ranks=1)
    arguments = (*SETTINGS, "run.name=killed", "run.resume=auto")
    for step in (5, 25):  # in the middle of the first epoch, and of the third
        train(tmp_path, environment, *arguments, ranks=1, run=killed, kill_at=step)
    train(tmp_path, environment, *arguments, ranks=1)
    assert "resuming from" in (tmp_path / "log-0").read_text()

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
