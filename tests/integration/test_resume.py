"""A run that is killed goes on as if it had not been: bit for bit."""

import json
from collections.abc import Callable
from pathlib import Path

from runs import Run, differences, read_state, rows

SETTINGS = (
    "quickstart",
    "trainer.max_epochs=3",
    "trainer.accumulate=2",
    "augment.crop=random_resized",
    "checkpoint.every_steps=4",
    "logging.every_steps=3",
)
STEPS = 3 * 22


def test_killed_twice_equals_never_killed(
    tmp_path: Path, command: Run, kill_at: Callable[..., None]
) -> None:
    whole, killed = (tmp_path / "checkpoints" / name for name in ("whole", "killed"))
    command("train", *SETTINGS, "run.name=whole")
    arguments = (*SETTINGS, "run.name=killed", "run.resume=auto")
    kill_at(13, killed, *arguments)  # in the middle of the first epoch
    kill_at(47, killed, *arguments)  # in the middle of the third
    done = command("train", *arguments)
    assert "resuming from" in done.stderr

    state = read_state(whole / "last.ckpt")
    assert state["global_step"] == STEPS
    assert differences(state, read_state(killed / "last.ckpt")) == []
    assert differences(read_state(whole / "best.ckpt"), read_state(killed / "best.ckpt")) == []
    assert rows(whole) == rows(killed)

    summary, again = (json.loads((run / "summary.json").read_text()) for run in (whole, killed))
    assert summary["steps_executed"] == STEPS
    assert again["restarts"] == 2
    # at most 4 steps since a save, and one that was under way when the heartbeat was read
    assert 0 < again["steps_executed"] - STEPS <= 2 * 5
    assert again["val/top1"] == summary["val/top1"]

    complete = command("train", *arguments)
    assert "already complete" in complete.stderr
