"""Two processes, started as the command: a new run, a refused one, a killed and resumed one."""

import json
import shutil
from pathlib import Path

import pytest

from ranks import train
from res2net.cli.main import main
from runs import Run, differences, read_state, rows

pytestmark = pytest.mark.usefixtures("undrawn")

SETTINGS = (
    "quickstart",
    "data.subset=0.5",
    "trainer.max_epochs=2",
    "trainer.devices=2",
    "checkpoint.every_steps=5",
    "optim.ema_decay=0.9",
)
STEPS = 2 * 11


def test_two_ranks(
    tmp_path: Path,
    command: Run,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    whole, killed = (tmp_path / "checkpoints" / name for name in ("whole", "killed"))
    done = command("train", *SETTINGS, "run.name=whole", "--json")
    summary = json.loads(done.stdout)  # one value, printed by one of the two processes
    assert summary["status"] == "completed"
    assert summary["steps"] == summary["steps_executed"] == STEPS

    assert main(["train", *SETTINGS, "run.name=whole"]) == 2
    assert capsys.readouterr().err.count("error: the run checkpoints/whole exists") == 1

    again = (*SETTINGS, "run.name=killed", "run.resume=auto")
    train(tmp_path, environment, *again, run=killed, kill_at=15)  # in the second epoch
    elastic = tmp_path / "elastic/killed"
    shutil.copytree(killed, elastic)
    train(tmp_path, environment, *again)
    assert differences(read_state(whole / "last.ckpt"), read_state(killed / "last.ckpt")) == []
    assert rows(whole) == rows(killed)

    # one process goes on with the run of two
    one = ("trainer.devices=1", "trainer.accumulate=2", "run.dir=elastic", "run.resume=auto")
    assert main(["train", *SETTINGS, "run.name=killed", *one, "--json"]) == 0
    out, err = capsys.readouterr()
    assert "trainer.devices was 2, now 1" in err
    assert "resumed on another layout" in err
    assert json.loads(out)["steps"] == STEPS
    assert [row.split(",")[:4] for row in rows(elastic)] == [
        row.split(",")[:4] for row in rows(whole)
    ]

    # two ranks counted while training; one process counts now
    assert main(["test", str(whole), "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert one["images"] == 360
    assert (one["top1"], one["top5"]) == (summary["val/top1"], summary["val/top5"])
