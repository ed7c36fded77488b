"""A run directory that is moved, deleted or replaced while it trains: it is not made anew.

The training ends with one line, and nothing appears where the directory was.
"""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ranks import start, train
from runs import heartbeat_step, read_state

SETTINGS = (
    "quickstart",
    "data.subset=0.3",
    "trainer.max_epochs=500",
    "checkpoint.every_steps=2",
    "logging.every_steps=1",
    "logging.tensorboard=true",
    "run.name=run",
)
ELSEWHERE = "elsewhere/moved"


def look_often() -> None:
    """At the directory, in a rank, and draw at each validation."""
    from res2net.callbacks import plots
    from res2net.files import lock

    lock.LOOK = 0.05
    plots.INTERVAL = 0.0


def move(run: Path) -> None:
    moved = run.parents[1] / ELSEWHERE
    moved.parent.mkdir()
    run.rename(moved)


def replace(run: Path) -> None:
    """By another run, which is somebody else's."""
    move(run)
    run.mkdir()
    (run / "config.yaml").write_text("theirs")


def delete(run: Path) -> None:
    shutil.rmtree(run)


def content(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize(
    ("change", "ranks", "wandb"),
    [(move, 2, "offline"), (delete, 1, "disabled"), (replace, 1, "offline")],
)
def test_changed_while_it_trains(
    tmp_path: Path,
    environment: dict[str, str],
    change: Callable[[Path], None],
    ranks: int,
    wandb: str,
) -> None:
    run = tmp_path / "checkpoints/run"
    asked = (*SETTINGS, f"logging.wandb={wandb}")
    processes = start(tmp_path, environment, *asked, ranks=ranks, prepare=look_often)
    deadline = time.monotonic() + 200
    while heartbeat_step(run) < 4:
        assert all(process.is_alive() for process in processes) and time.monotonic() < deadline
        time.sleep(0.01)
    for process in processes:  # what they are just writing is in nobody's way
        os.kill(process.pid or 0, signal.SIGSTOP)
    change(run)
    there = content(run) if run.exists() else {}
    for process in processes:
        os.kill(process.pid or 0, signal.SIGCONT)
    for process in processes:
        process.join(100)
    said = (tmp_path / "log-0").read_text()
    assert [process.exitcode for process in processes] == [1] * ranks, said
    assert (content(run) if run.exists() else {}) == there
    assert [path.name for path in run.parent.iterdir()] == (["run"] if there else [])
    assert "Traceback" not in said

    (line,) = [line for line in said.splitlines() if "run directory" in line]
    start_of_line = "error: the run directory checkpoints/run was moved, deleted or replaced"
    assert line.startswith(start_of_line) and said.splitlines()[-1] == line
    assert "cannot be written" not in said and "was not drawn" not in said
    if change is delete:
        assert "is nowhere on its disk any more" in line
        return
    moved = tmp_path / ELSEWHERE
    assert f"run.dir={moved.parent} run.name={moved.name} run.resume=auto" in line
    assert not (moved / "lock").exists()
    if ranks == 2:  # what the line says
        step = read_state(moved / "last.ckpt")["global_step"]
        go_on = (f"run.dir={moved.parent}", f"run.name={moved.name}", "run.resume=auto")
        train(tmp_path, environment, *asked, *go_on, run=moved, kill_at=heartbeat_step(moved) + 2)
        assert json.loads((moved / "summary.json").read_text())["restarts"] == 1
        assert read_state(moved / "last.ckpt")["global_step"] > step
        assert os.listdir(run.parent) == []
