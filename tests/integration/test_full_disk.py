"""A disk that somebody else fills while a run trains, and frees again."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from disks import SmallDisk, fill, free
from ranks import start, train
from res2net.callbacks.summary import Summary
from runs import differences, read_state, rows

SETTINGS = (
    "quickstart",
    "trainer.max_epochs=2",
    "data.global_batch_size=32",
    "logging.every_steps=1",
    "logging.tensorboard=true",
    "checkpoint.on_error=continue",
)
STEPS = 2 * 44


def disturb() -> None:
    """Full from step 5 to 40, between two saves; and from step 50 to the end."""
    disk = Path(os.environ["SMALL_DISK"])
    beat = Summary.on_train_batch_end

    def then(self: Summary, trainer: Any, *arguments: Any) -> None:
        beat(self, trainer, *arguments)
        if trainer.global_step in (5, 50):
            fill(disk)
        if trainer.global_step == 40:
            free(disk)

    write = Summary.write

    def write_on_full(self: Summary, trainer: Any, status: str) -> None:
        if status == "completed":
            fill(disk)  # also where a file of the run itself has gone
        write(self, trainer, status)

    Summary.on_train_batch_end = then  # type: ignore[method-assign, assignment]
    Summary.write = write_on_full  # type: ignore[method-assign]


def losses(run: Path) -> list[tuple[int, float]]:
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return [(event.step, event.value) for event in events.Scalars("train/loss")]


def test_a_run_on_a_disk_that_is_full_for_a_while(
    tmp_path: Path,
    environment: dict[str, str],
    small_disk: Callable[[float], SmallDisk],
) -> None:
    disk = small_disk(64)
    train(tmp_path, environment, *SETTINGS, "run.name=whole", ranks=1, drawn=True)
    (tmp_path / "log-0").unlink()

    arguments = (*SETTINGS, f"run.dir={disk.path}", "run.name=full")
    run, whole = disk.path / "full", tmp_path / "checkpoints/whole"
    where = environment | {"SMALL_DISK": str(disk.path)}
    (process,) = start(tmp_path, where, *arguments, ranks=1, prepare=disturb, drawn=True)
    process.join(120)
    log = (tmp_path / "log-0").read_text()
    assert process.exitcode == 1, log
    assert "Traceback" not in log
    assert f"step {STEPS}/{STEPS}" in log
    *_, last = log.splitlines()
    assert re.fullmatch(r"error: .*(lacks \d+ rows|cannot write).* run\.resume=auto.*", last)
    full_once = f"{run / 'metrics.csv'} cannot be written (No space left on device)"
    assert log.count(full_once) == 2
    assert log.count(f"{run / 'metrics.csv'} is written again") == 1
    for picture in ("curves", "throughput", "confusion", "per_class", "worst"):
        assert log.count(f"{picture}.png was not drawn: ") == 1
    assert json.loads((run / "summary.json").read_text())["status"] == "running"
    # whole rows, those of the first time are there
    table = (run / "metrics.csv").read_text()
    assert table.endswith("\n")
    assert (whole / "metrics.csv").read_text().count("\n") > table.count("\n")
    assert rows(whole)[: len(rows(run))] == rows(run)
    assert any(row.startswith("50,1,train,loss,") for row in rows(run))

    disk.free()
    train(tmp_path, environment, *arguments, "run.resume=auto", ranks=1, drawn=True)
    assert rows(run) == rows(whole)
    assert losses(run) == losses(whole)
    assert len(losses(run)) == STEPS
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["val/top1"] == json.loads((whole / "summary.json").read_text())["val/top1"]
    assert sorted(path.name for path in (run / "plots").iterdir()) == sorted(
        path.name for path in (whole / "plots").iterdir()
    )
    assert not list(run.rglob(".*"))


SAVING = (
    "quickstart",
    "trainer.max_epochs=1",
    "data.global_batch_size=96",
    "augment.mixup=0.4",
    "optim.ema_decay=0.9",
    "checkpoint.every_steps=4",
    "logging.every_steps=3",
)


def full_while_two_are_saved() -> None:
    """From step 7 to 13: those of the steps 8 and 12 fail."""
    disk = Path(os.environ["SMALL_DISK"])
    beat = Summary.on_train_batch_end

    def then(self: Summary, trainer: Any, *arguments: Any) -> None:
        beat(self, trainer, *arguments)
        if trainer.is_global_zero and trainer.global_step == 7:
            fill(disk)
        if trainer.is_global_zero and trainer.global_step == 13:
            free(disk)

    Summary.on_train_batch_end = then  # type: ignore[method-assign, assignment]


def test_saves_that_fail(
    tmp_path: Path, environment: dict[str, str], small_disk: Callable[[float], SmallDisk]
) -> None:
    """On two ranks, of which one saves: the other hears of it."""
    disk = small_disk(16)
    train(tmp_path, environment, *SAVING, "run.name=whole")
    where = environment | {"SMALL_DISK": str(disk.path)}
    whole = tmp_path / "checkpoints/whole"
    for name, code in (("continue", 0), ("stop", 1)):
        (tmp_path / "log-0").unlink()
        arguments = (*SAVING, f"run.dir={disk.path}", f"run.name={name}")
        arguments += (f"checkpoint.on_error={name}",)
        processes = start(tmp_path, where, *arguments, ranks=2, prepare=full_while_two_are_saved)
        for process in processes:
            process.join(100)
        log = (tmp_path / "log-0").read_text()
        assert [process.exitcode for process in processes] == [code, code], log
        assert "Traceback" not in log
        assert (tmp_path / "log-1").read_text() == ""
        run = disk.path / name
        failed = f"cannot write the checkpoint {run / 'next.ckpt'}: [Errno 28] No space left"
        if name == "continue":
            for step in (8, 12):
                (line,) = [line for line in log.splitlines() if line.startswith(f"step {step}: ")]
                assert failed in line and line.endswith("; going on")
        else:
            *_, last = log.splitlines()
            assert last.startswith(f"error: {failed}") and "run.resume=auto" in last
            assert log.count("error: ") == 1
            assert read_state(run / "last.ckpt")["global_step"] == 4
            disk.free()
            train(tmp_path, environment, *arguments, "run.resume=auto")
        for file in ("last.ckpt", "best.ckpt"):
            assert differences(read_state(whole / file), read_state(run / file)) == []
        assert rows(run) == rows(whole)
        summary = json.loads((run / "summary.json").read_text())
        assert (summary["status"], summary["steps"]) == ("completed", 14)
        assert summary["best"] == json.loads((whole / "summary.json").read_text())["best"]
        assert not [path for path in run.rglob("*") if path.name.startswith(".")]
        assert not (run / "lock").exists() and not (run / "next.ckpt").exists()
