"""TensorBoard's files, read back by TensorBoard: they hold what `metrics.csv` holds."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from lightning.pytorch.demos.boring_classes import BoringModel
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from disks import SmallDisk
from res2net.callbacks import tensorboard
from res2net.callbacks.tensorboard import Events, TensorBoard
from res2net.errors import InputError
from res2net.files.runs import RunDirectory

# Lightning's advice on loaders and intervals
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Rows(L.Callback):
    """Logs the step times `factor` at each step."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        for logger in trainer.loggers:
            step = trainer.global_step
            logger.log_metrics({"train/loss": self.factor * step, "epoch": 0}, step)


def fit(run: RunDirectory, steps: int, factor: float, resume: Path | None = None) -> L.Trainer:
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=steps,
        logger=False,
        callbacks=[TensorBoard(run), Rows(factor)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(BoringModel(), ckpt_path=resume)
    return trainer


def read(run: RunDirectory) -> list[tuple[int, float]]:
    events = EventAccumulator(str(run.path / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == {"train/loss", "epoch"}
    return [(event.step, event.value) for event in events.Scalars("train/loss")]


def test_a_resumed_run_hides_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    first = fit(run, 3, factor=1)
    first.save_checkpoint(tmp_path / "three.ckpt")
    assert read(run) == [(1, 1), (2, 2), (3, 3)]
    fit(run, 6, factor=10, resume=tmp_path / "three.ckpt")  # killed, and its tail is lost
    fit(run, 5, factor=100, resume=tmp_path / "three.ckpt")
    assert read(run) == [(1, 1), (2, 2), (3, 3), (4, 400), (5, 500)]
    files = {path.name.split(".")[0] for path in (tmp_path / "tensorboard").iterdir()}
    assert files == {"events"}  # no second copy of the settings


def test_without_the_package_it_is_refused_before_anything_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        tensorboard, "find_spec", lambda name: None if "tensorboard" in name else find(name)
    )
    with pytest.raises(InputError, match=r"logging\.tensorboard=true: .*pip install") as error:
        TensorBoard(RunDirectory(tmp_path / "run"))
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    from types import SimpleNamespace

    other: Any = SimpleNamespace(is_global_zero=False, loggers=[], global_step=0)
    TensorBoard(RunDirectory(tmp_path)).on_train_start(other, BoringModel())
    assert other.loggers == []


def test_events_wait_for_a_full_disk(
    small_disk: Callable[[float], SmallDisk],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    disk = small_disk(1)
    run = RunDirectory(disk.path)
    events = Events(run.path / "tensorboard", 0)
    for step in range(1, 1001):  # 60 bytes each
        if step == 100:
            disk.fill()
        if step == 900:
            assert len(read(run)) < 300
            disk.free()
        events.log_metrics({"train/loss": step / 7, "epoch": step // 10}, step)
    assert read(run) == [(step, pytest.approx(step / 7)) for step in range(1, 1001)]
    fails, works = [line for line in capfd.readouterr().err.splitlines() if "disk-0" in line]
    assert "cannot be written (No space left on device)" in fails
    assert works.endswith("is written again")


def test_the_same_events_as_torch_writes(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from torch.utils.tensorboard import SummaryWriter

    torchs = SummaryWriter(str(tmp_path / "torch"), purge_step=4)
    ours = Events(tmp_path / "ours", 3)
    for step in (4, 5):
        torchs.add_scalar("train/loss", step / 7, step)
        ours.log_metrics({"train/loss": step / 7}, step)
    torchs.close()

    def events(folder: Path) -> list[Any]:
        (path,) = folder.iterdir()
        found = list(EventFileLoader(str(path)).Load())
        for event in found:
            event.ClearField("wall_time")
            event.ClearField("source_metadata")
        return found

    theirs = events(tmp_path / "torch")
    assert theirs[1].step == 4  # torch repeats the version there
    assert [theirs[0], *theirs[2:]] == events(tmp_path / "ours")
    assert len(theirs) == 5
