"""When the state is saved and which file holds which, in real fits of a toy."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import distributed
from torch.nn import functional as F
from torch.utils.data import DataLoader

from res2net.callbacks import checkpoint as module_under_test
from res2net.callbacks.accuracy import Accuracy
from res2net.callbacks.checkpoint import SaveCheckpoints
from res2net.callbacks.summary import Summary
from res2net.files.atomic import link_or_copy
from res2net.files.runs import RunDirectory, is_sound
from res2net.training.checkpoint_io import AtomicCheckpointIO

# Lightning's advice on loaders and intervals
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

STEPS = 4
"""Of an epoch."""


class Scripted(L.LightningModule):
    """Gets as many of eight images right in each epoch as the script says."""

    def __init__(self, script: Sequence[int]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.script = script
        self.trained = 0
        self.validated: list[int] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.trained += 1
        return self.weight

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> dict[str, torch.Tensor]:
        self.validated.append(self.trainer.global_step)
        right = torch.arange(8) < self.script[self.trainer.current_epoch]
        logits = F.one_hot((~right).long(), 7).float()
        return {"losses": torch.ones(8), "logits": logits}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Watch(Checkpoint):
    """Lists, after every batch and validation, the step at which each file was saved."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self.seen: list[tuple[str, int, dict[str, int]]] = []

    def look(self, when: str, trainer: L.Trainer) -> None:
        files = {
            path.stem: torch.load(path, weights_only=True)["global_step"]
            for path in sorted(self.run.path.glob("*.ckpt"))
        }
        self.seen.append((when, trainer.global_step, files))

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        self.look("batch", trainer)

    def on_validation_end(self, trainer: L.Trainer, *_: object) -> None:
        self.look("validation", trainer)

    def last_after_batches(self) -> list[int]:
        return [files.get("last", 0) for when, _, files in self.seen if when == "batch"]

    def after_validations(self) -> list[dict[str, int]]:
        return [files for when, _, files in self.seen if when == "validation"]


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory.of(str(tmp_path), "mine")
    run.path.mkdir()
    return run


def fit(
    run: RunDirectory,
    script: Sequence[int] = (4, 4),
    *,
    steps: int = STEPS,
    accumulate: int = 1,
    every_steps: int = 0,
    every_minutes: float = 0.0,
    resume: Path | None = None,
    extra: Sequence[L.Callback] = (),
) -> tuple[Watch, SaveCheckpoints, Scripted]:
    accuracy = Accuracy(7, images=8)
    summary = Summary(run, [accuracy], global_batch_size=1)
    saver = SaveCheckpoints(
        run, [accuracy], summary, every_steps=every_steps, every_minutes=every_minutes
    )
    watch = Watch(run)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=len(script),
        accumulate_grad_batches=accumulate,
        plugins=[AtomicCheckpointIO()],
        callbacks=[*extra, accuracy, summary, saver, watch],
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Scripted(script)
    validation = [(torch.zeros(8), torch.zeros(8, dtype=torch.long))]
    trainer.fit(
        module,
        DataLoader(range(steps * accumulate), batch_size=None),  # type: ignore[arg-type]
        DataLoader(validation, batch_size=None),  # type: ignore[arg-type]
        ckpt_path=resume,
        weights_only=True,
    )
    return watch, saver, module


# Files


def test_last_previous_and_best_at_the_ends_of_epochs(run: RunDirectory) -> None:
    watch, saver, _ = fit(run, [4, 6, 6, 2])
    assert watch.after_validations() == [
        {"last": 4, "best": 4},
        {"last": 8, "best": 8, "previous": 4},
        {"last": 12, "best": 8, "previous": 8},  # reached again is not better
        {"last": 16, "best": 8, "previous": 12},
    ]
    # nothing changes in between
    assert watch.last_after_batches() == [0] * 4 + [4] * 4 + [8] * 4 + [12] * 4
    best = {"epoch": 1, "val/top1": 0.75, "val/top5": 1.0, "val/loss": 1.0}
    assert saver.best == best
    assert run.read_summary()["best"] == best
    for path in (run.last, run.previous, run.best):
        assert is_sound(path)
    assert torch.load(run.best, weights_only=True)["epoch"] == 1
    assert not list(run.path.glob(".*")) and not run.next.exists()


def test_the_first_epoch_is_the_best_so_far_however_bad(run: RunDirectory) -> None:
    watch, saver, _ = fit(run, [0])
    assert watch.after_validations() == [{"last": 4, "best": 4}]
    assert saver.best["val/top1"] == 0


# Moments


@pytest.mark.parametrize(
    ("every_steps", "expected"),
    [
        (1, [1, 2, 3, 3, 5, 6, 7, 7]),
        (2, [0, 2, 2, 2, 4, 6, 6, 6]),
        (3, [0, 0, 3, 3, 4, 6, 6, 6]),
        (4, [0, 0, 0, 0, 4, 4, 4, 4]),
        (5, [0, 0, 0, 0, 5, 5, 5, 5]),
    ],
)
def test_every_steps_but_never_between_an_epochs_last_step_and_its_validation(
    run: RunDirectory, every_steps: int, expected: list[int]
) -> None:
    watch, *_ = fit(run, every_steps=every_steps)
    assert watch.last_after_batches() == expected
    assert [files["last"] for files in watch.after_validations()] == [4, 8]


def test_every_minutes_too(run: RunDirectory) -> None:
    watch, *_ = fit(run, every_minutes=1e-9)
    assert watch.last_after_batches() == [1, 2, 3, 3, 5, 6, 7, 7]


def test_never_while_gradients_are_gathered(run: RunDirectory) -> None:
    class Look(L.Callback):
        def on_train_batch_start(self, *_: object) -> None:
            if run.last.exists():
                loop = torch.load(run.last, weights_only=True)["loops"]["fit_loop"]
                batches.append(loop["epoch_loop.batch_progress"]["total"]["ready"])

    batches: list[int] = []
    watch, *_ = fit(run, accumulate=3, every_minutes=1e-9, every_steps=1, extra=[Look()])
    # after each of three batches
    assert watch.last_after_batches() == [
        0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3,
        4, 4, 5, 5, 5, 6, 6, 6, 7, 7, 7, 7,
    ]  # fmt: skip
    assert set(batches) == {3, 6, 9, 12, 15, 18, 21}


@pytest.fixture
def group() -> Iterator[None]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


class Minute(L.Callback):
    """Each step takes a minute."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        clock = SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr(module_under_test, "time", clock)

    def on_train_batch_start(self, *_: object) -> None:
        self.now += 60


def test_a_save_every_three_minutes(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    watch, *_ = fit(run, [4], steps=12, every_minutes=3, extra=[Minute(monkeypatch)])
    assert watch.last_after_batches() == [0, 0, 3, 3, 3, 6, 6, 6, 9, 9, 9, 9]


@pytest.mark.usefixtures("group")
def test_ranks_save_one_step_later_together_and_once(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, *_ = fit(run, [4], steps=14, every_minutes=3, extra=[Minute(monkeypatch)])
    assert watch.last_after_batches() == [0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12]


@pytest.mark.usefixtures("group")
def test_a_wish_that_a_save_by_steps_has_met_is_forgotten(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"every_minutes": 3, "every_steps": 4, "extra": [Minute(monkeypatch)]}
    watch, *_ = fit(run, [4], steps=10, **options)  # type: ignore[arg-type]
    assert watch.last_after_batches() == [0, 0, 0, 4, 4, 4, 4, 8, 8, 8]


# Resuming


@pytest.mark.parametrize(("step", "validated"), [(2, [4, 8]), (4, [8]), (6, [8])])
def test_each_saved_state_goes_on_with_neither_step_nor_validation_lost_or_repeated(
    run: RunDirectory, tmp_path: Path, step: int, validated: list[int]
) -> None:
    class Keep(Checkpoint):
        def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
            self.on_validation_end(trainer)

        def on_validation_end(self, trainer: L.Trainer, *_: object) -> None:
            if run.last.exists():
                saved = torch.load(run.last, weights_only=True)["global_step"]
                link_or_copy(run.last, tmp_path / f"{saved}.ckpt")

    fit(run, every_steps=2, extra=[Keep()])
    watch, _, module = fit(run, every_steps=2, resume=tmp_path / f"{step}.ckpt")
    assert module.trained == 8 - step
    assert module.validated == validated
    assert watch.seen[-1][:2] == ("validation", 8)


def test_the_best_is_known_after_a_resume(run: RunDirectory) -> None:
    fit(run, [6])
    watch, saver, _ = fit(run, [6, 5], resume=run.last)
    assert watch.after_validations() == [{"last": 8, "best": 4, "previous": 4}]
    assert saver.best["epoch"] == 0
    watch, saver, _ = fit(run, [6, 5, 7], resume=run.last)
    assert watch.after_validations() == [{"last": 12, "best": 12, "previous": 8}]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("place", ["best", "previous", "last"])
def test_a_kill_between_two_names_leaves_whole_files(
    run: RunDirectory, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(run, [4, 4])
    replace = Path.replace

    def die_before(source: Path, target: Path) -> None:
        if target.stem == place:
            raise Killed
        link_or_copy(source, target)

    def die_before_last(source: Path, target: Path) -> Path:
        if place == "last" and target == run.last:
            raise Killed
        return replace(source, target)

    monkeypatch.setattr(module_under_test, "link_or_copy", die_before)
    monkeypatch.setattr(Path, "replace", die_before_last)
    with pytest.raises(Killed):
        fit(run, [4, 4, 8], resume=run.last)
    monkeypatch.undo()

    assert run.newest_checkpoint() == (run.last, "")
    assert all(is_sound(path) for path in run.path.glob("*.ckpt"))
    watch, *_ = fit(run, [4, 4, 8], resume=run.last)
    files = {"last": 12, "best": 12, "previous": 8}
    assert watch.after_validations() == [files]
