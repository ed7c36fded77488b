"""`summary.json` over the starts of a run, in real fits of a toy."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch.nn import functional as F
from torch.utils.data import DataLoader

from disks import SmallDisk
from res2net.callbacks.accuracy import Accuracy
from res2net.callbacks.summary import PACKAGES, Summary
from res2net.errors import WorkError
from res2net.files.runs import RunDirectory

# Lightning's advice on loaders and intervals
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Toy(L.LightningModule):
    """Gets half of eight images right in the first epoch, three quarters later."""

    def __init__(self, fail_at: int = -1) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 3)
        self.fail_at = fail_at

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        if self.trainer.global_step == self.fail_at:
            raise OSError("the power went out")
        return self.layer.weight.sum()

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> dict[str, torch.Tensor]:
        right = torch.arange(8) < (4 if self.trainer.current_epoch == 0 else 6)
        return {"losses": torch.full((8,), 0.5), "logits": F.one_hot((~right).long(), 7).float()}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveAt(Checkpoint):
    def __init__(self, path: Path, step: int) -> None:
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory.of(str(tmp_path), "mine")
    run.path.mkdir()
    return run


def fit(
    run: RunDirectory,
    *callbacks: L.Callback,
    epochs: int = 2,
    fail_at: int = -1,
    resume: Path | None = None,
    accumulate: int = 1,
) -> tuple[Summary, L.Trainer]:
    """Epochs of four steps of 16 images."""
    accuracy = Accuracy(7, images=8)
    summary = Summary(run, [accuracy], global_batch_size=16)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        accumulate_grad_batches=accumulate,
        callbacks=[accuracy, summary, *callbacks],
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
    )
    validation = [(torch.zeros(8), torch.zeros(8, dtype=torch.long))]
    trainer.fit(
        Toy(fail_at),
        DataLoader(range(4 * accumulate), batch_size=None),  # type: ignore[arg-type]
        DataLoader(validation, batch_size=None),  # type: ignore[arg-type]
        ckpt_path=resume,
        weights_only=True,
    )
    return summary, trainer


def test_a_whole_run(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    begun = time.monotonic()
    summary, trainer = fit(run, accumulate=2)
    summary.best = {"epoch": 1, "val/top1": 0.75}
    summary.write(trainer, "completed")
    written = json.loads(run.summary.read_text())
    versions, seconds = written.pop("versions"), written.pop("wall_seconds")
    assert written == {
        "schema": 1,
        "status": "completed",
        "val/top1": 0.75,
        "val/top5": 1.0,
        "val/loss": 0.5,
        "best": {"epoch": 1, "val/top1": 0.75},
        "samples_seen": 128,
        "steps": 8,
        "steps_executed": 8,
        "steps_per_epoch": 4,
        "restarts": 0,
        "parameters": 9,
        "slurm_job": "77",
    }
    assert 0 <= seconds <= time.monotonic() - begun + 0.1
    assert list(versions) == ["python", *PACKAGES]
    assert versions["torch"] == torch.__version__.split("+")[0] and all(versions.values())


def test_at_the_start_there_are_no_results_yet(run: RunDirectory) -> None:
    class Look(L.Callback):
        def on_train_start(self, *_: object) -> None:
            seen.append(run.read_summary())

    seen: list[dict] = []
    fit(run, Look())
    (start,) = seen
    assert not [key for key in start if key.startswith("val/")]
    assert (start["status"], start["best"], start["steps"]) == ("running", {}, 0)


def test_a_failure_is_written_down_with_what_was_reached(run: RunDirectory) -> None:
    with pytest.raises(OSError, match="the power went out"):
        fit(run, fail_at=6)
    written = run.read_summary()
    assert (written["status"], written["steps"], written["val/top1"]) == ("failed", 6, 0.5)


def test_restarts_redone_steps_and_time_add_up(run: RunDirectory, tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    with pytest.raises(OSError, match="the power went out"):
        fit(run, SaveAt(path, 5), fail_at=7)
    first = run.read_summary()
    assert (first["steps"], first["steps_executed"], first["restarts"]) == (7, 7, 0)
    # as if it had taken an hour, and a best had been reached
    run.summary.write_text(
        json.dumps(first | {"wall_seconds": 3600.0, "best": {"epoch": 0, "val/top1": 0.5}})
    )

    class Look(L.Callback):
        def on_train_start(self, *_: object) -> None:
            seen.append(run.read_summary())

    seen: list[dict] = []
    summary, trainer = fit(run, Look(), epochs=2, resume=path)
    (start,) = seen
    assert (start["status"], start["steps"], start["steps_per_epoch"]) == ("running", 5, 4)
    summary.write(trainer, "completed")
    second = run.read_summary()
    # steps 6 and 7 were done twice
    assert (second["steps"], second["steps_executed"], second["restarts"]) == (8, 7 + 3, 1)
    assert 3600 <= second["wall_seconds"] < 3660
    assert (second["val/top1"], second["best"]["val/top1"]) == (0.75, 0.5)

    # nothing is left to do: the results stay
    summary, trainer = fit(run, epochs=2, resume=save(trainer, tmp_path / "b.ckpt"))
    summary.write(trainer, "completed")
    third = run.read_summary()
    assert (third["steps_executed"], third["restarts"]) == (10, 2)
    assert (third["val/top1"], third["best"]["val/top1"]) == (0.75, 0.5)


def save(trainer: L.Trainer, path: Path) -> Path:
    trainer.save_checkpoint(path)
    return path


def test_a_kill_does_not_lose_the_count_of_steps(run: RunDirectory) -> None:
    class Look(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
            seen.append([int(word) for word in run.heartbeat.read_text().split()[:2]])

    seen: list[list[int]] = []
    fit(run, Look(), epochs=1, accumulate=2)
    assert seen == [[], [1, 1], [1, 1], [2, 2], [2, 2], [3, 3], [3, 3], [4, 4]]
    # the summary, last written at the start, knows nothing of them; the next start does
    assert run.read_summary()["steps_executed"] == 0
    fit(run, epochs=1)
    summary, trainer = fit(run, epochs=1)
    summary.write(trainer, "running")
    assert run.read_summary()["steps_executed"] == 12
    assert len(run.heartbeat.read_text().splitlines()) == 1


def test_a_kill_before_the_first_step_does_no_harm(run: RunDirectory) -> None:
    run.heartbeat.touch()
    summary, trainer = fit(run, epochs=1)
    summary.write(trainer, "running")
    assert run.read_summary()["steps_executed"] == 4


@pytest.mark.parametrize("full_at", [0, 2])
def test_a_full_disk_does_not_end_the_run(
    small_disk: Callable[[float], SmallDisk], capsys: pytest.CaptureFixture[str], full_at: int
) -> None:
    disk = small_disk(1)
    run = RunDirectory(disk.path)
    stood: dict[int, list[str]] = {}

    class Disturb(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
            (summary,) = [c for c in trainer.callbacks if isinstance(c, Summary)]  # type: ignore[attr-defined]
            summary.write(trainer, "running")
            step = trainer.global_step
            stood[step] = run.heartbeat.read_text().split()[:2] if run.heartbeat.exists() else []
            if step == full_at:
                disk.fill()
            if step == 5:
                disk.free()

    if not full_at:
        disk.fill()
    summary, trainer = fit(run, Disturb())
    if full_at:
        # its page is there, and is written in place
        assert all(stood[step] == [str(step)] * 2 for step in range(1, 9))
    else:
        assert stood[5] == []
        assert all(stood[step] == [str(step)] * 2 for step in (6, 7, 8))
    assert run.read_summary()["steps"] == 8

    lines = capsys.readouterr().err.splitlines()
    # the empty file of the heartbeat could be made
    files = [run.summary] if full_at else [run.summary, run.heartbeat]
    fails = [f"{f} cannot be written (No space left on device): the run goes on" for f in files]
    again = [f"{f} is written again" for f in reversed(files)]
    assert [line for line in lines if line.startswith(str(run.path))] == [*fails, *again]

    disk.fill()
    before = run.summary.read_bytes()
    summary.write(trainer, "running")
    with pytest.raises(WorkError, match=r"trained to the end, but.*No space.*run\.resume=auto"):
        summary.write(trainer, "completed")
    assert run.summary.read_bytes() == before
    assert sorted(path.name for path in disk.path.iterdir() if path.name[0] == ".") == []
    disk.free()
    summary.write(trainer, "completed")
    assert run.read_summary()["status"] == "completed"


def test_a_failure_on_a_full_disk_is_still_told(
    small_disk: Callable[[float], SmallDisk],
) -> None:
    disk = small_disk(1)

    class Fill(L.Callback):
        def on_train_batch_end(self, *_: object) -> None:
            disk.fill()

    with pytest.raises(OSError, match="the power went out"):
        fit(RunDirectory(disk.path), Fill(), fail_at=2)


def test_a_heartbeat_whose_file_went_away_goes_on(run: RunDirectory) -> None:
    """As on a network disk that comes back: the open file is no longer known there."""

    class Lose(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
            if trainer.global_step == 3:
                (summary,) = [c for c in trainer.callbacks if isinstance(c, Summary)]  # type: ignore[attr-defined]
                assert summary._heartbeat is not None
                os.close(summary._heartbeat)  # EBADF, as ESTALE

    fit(run, Lose(), epochs=2)
    assert run.heartbeat.read_text().split()[:2] == ["8", "8"]
