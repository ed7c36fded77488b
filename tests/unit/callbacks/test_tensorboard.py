"""TensorBoard's files, read back by TensorBoard: they hold what `metrics.csv` holds."""

import importlib.util
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from lightning.pytorch.demos.boring_classes import BoringModel
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from res2net.callbacks import tensorboard
from res2net.callbacks.tensorboard import TensorBoard
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
