"""When the state is saved and which file holds which, in real fits of a toy."""

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import distributed
from torch.nn import functional as F
from torch.utils.data import DataLoader

from res2net import stopping
from res2net.callbacks import checkpoint as module_under_test
from res2net.callbacks.accuracy import Accuracy
from res2net.callbacks.checkpoint import SaveCheckpoints
from res2net.callbacks.guard import Guard
from res2net.callbacks.summary import Summary
from res2net.errors import Stopped, WorkError
from res2net.files.atomic import link_or_copy
from res2net.files.lock import Lock
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
    go_on: bool = False,
    lock: Lock | None = None,
    resume: Path | None = None,
    extra: Sequence[L.Callback] = (),
) -> tuple[Watch, SaveCheckpoints, Scripted]:
    accuracy = Accuracy(7, images=8)
    summary = Summary(run, [accuracy], global_batch_size=1)
    saver = SaveCheckpoints(
        run,
        [accuracy],
        summary,
        cast(Guard, SimpleNamespace(check=lambda trainer, saving: None)),
        lock or Lock(run.lock),
        every_steps=every_steps,
        every_minutes=every_minutes,
        go_on=go_on,
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
        {"last": 4, "best": 4, "previous": 3},
        {"last": 8, "best": 8, "previous": 7},
        {"last": 12, "best": 8, "previous": 11},  # reached again is not better
        {"last": 16, "best": 8, "previous": 15},
    ]
    # in between only the step before the validation is saved
    assert watch.last_after_batches() == [0, 0, 3, 3, 4, 4, 7, 7, 8, 8, 11, 11, 12, 12, 15, 15]
    best = {"epoch": 1, "val/top1": 0.75, "val/top5": 1.0, "val/loss": 1.0}
    assert saver.best == best
    assert run.read_summary()["best"] == best
    for path in (run.last, run.previous, run.best):
        assert is_sound(path)
    assert torch.load(run.best, weights_only=True)["epoch"] == 1
    assert not list(run.path.glob(".*")) and not run.next.exists()


def test_the_first_epoch_is_the_best_so_far_however_bad(run: RunDirectory) -> None:
    watch, saver, _ = fit(run, [0])
    assert watch.after_validations() == [{"last": 4, "best": 4, "previous": 3}]
    assert saver.best["val/top1"] == 0


# Moments


@pytest.mark.parametrize(
    ("every_steps", "expected"),
    [
        (1, [1, 2, 3, 3, 5, 6, 7, 7]),
        (2, [0, 2, 3, 3, 4, 6, 7, 7]),
        (3, [0, 0, 3, 3, 4, 6, 7, 7]),
        (4, [0, 0, 3, 3, 4, 4, 7, 7]),
        (5, [0, 0, 3, 3, 5, 5, 7, 7]),
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


def test_the_step_before_a_validation_is_saved_when_batches_are_gathered_too(
    run: RunDirectory,
) -> None:
    watch, *_ = fit(run, [4], accumulate=3)
    assert watch.last_after_batches() == [0, 0, 0, 0, 0, 0, 0, 0, 3, 3, 3, 3]


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
    assert watch.last_after_batches() == [0, 0, 3, 3, 3, 6, 6, 6, 9, 9, 11, 11]


@pytest.mark.usefixtures("group")
def test_ranks_save_one_step_later_together_and_once(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, *_ = fit(run, [4], steps=14, every_minutes=3, extra=[Minute(monkeypatch)])
    assert watch.last_after_batches() == [0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 13, 13]


@pytest.mark.usefixtures("group")
def test_a_wish_that_a_save_by_steps_has_met_is_forgotten(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"every_minutes": 3, "every_steps": 4, "extra": [Minute(monkeypatch)]}
    watch, *_ = fit(run, [4], steps=10, **options)  # type: ignore[arg-type]
    assert watch.last_after_batches() == [0, 0, 0, 4, 4, 4, 4, 8, 9, 9]


# Resuming


@pytest.mark.parametrize(("step", "validated"), [(2, [4, 8]), (3, [4, 8]), (4, [8]), (7, [8])])
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
    assert watch.after_validations() == [{"last": 8, "best": 4, "previous": 7}]
    assert saver.best["epoch"] == 0
    watch, saver, _ = fit(run, [6, 5, 7], resume=run.last)
    assert watch.after_validations() == [{"last": 12, "best": 12, "previous": 11}]


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
    files = {"last": 12, "best": 12, "previous": 11}
    assert watch.after_validations() == [files]


# Signals


@pytest.fixture
def listening() -> Iterator[None]:
    stopping.listen()
    yield
    stopping.stop_listening()


class Signal(L.Callback):
    """Sends this process a signal in a step or in the validation after it."""

    def __init__(self, step: int, *, validation: bool = False) -> None:
        self.step = step
        self.validation = validation

    def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step + 1 == self.step and not self.validation:
            os.kill(os.getpid(), signal.SIGUSR1)

    def on_validation_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step == self.step and self.validation:
            os.kill(os.getpid(), signal.SIGUSR1)


def saved(run: RunDirectory) -> int:
    return int(torch.load(run.last, weights_only=True)["global_step"])


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_a_signal_is_answered_at_the_end_of_the_step(run: RunDirectory, step: int) -> None:
    with pytest.raises(Stopped, match=f"by SIGUSR1 at step {step}$") as stopped:
        fit(run, extra=[Signal(step)])
    assert stopped.value.number == signal.SIGUSR1
    assert saved(run) == step
    stopping.listen()
    _, _, module = fit(run, resume=run.last)
    assert module.trained == 8 - step


@pytest.mark.usefixtures("listening", "group")
def test_ranks_answer_a_signal_one_step_later(run: RunDirectory) -> None:
    with pytest.raises(Stopped, match=r"at step 2$"):
        fit(run, extra=[Signal(1)])
    assert saved(run) == 2


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize("validation", [False, True])
def test_a_validation_is_left_and_repeated(run: RunDirectory, validation: bool) -> None:
    with pytest.raises(
        Stopped, match="at step 8 in its validation"
    ):  # in its last step: heard in the validation
        fit(run, [4, 6, 4], extra=[Signal(8, validation=validation)])
    assert saved(run) == 7
    stopping.listen()
    _, saver, module = fit(run, [4, 6, 4], resume=run.last)
    assert (module.trained, module.validated) == (5, [8, 12])
    assert saver.best["epoch"] == 1


# Saves that fail


class Full(L.Callback):
    """The disk takes no checkpoint in these steps."""

    def __init__(self, steps: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
        write = AtomicCheckpointIO.save_checkpoint

        def fail(io: AtomicCheckpointIO, checkpoint: dict, path: Path, **_: object) -> None:
            if checkpoint["global_step"] in steps:
                raise WorkError(f"cannot write the checkpoint {path}: no room")
            write(io, checkpoint, path)

        monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", fail)


def test_a_save_that_fails_ends_the_run_and_loses_nothing(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WorkError, match="no room") as failed:
        fit(run, extra=[Full({7}, monkeypatch)])
    assert failed.value.of_all_ranks
    assert saved(run) == 4 and is_sound(run.last)


def test_a_save_that_fails_is_tried_again_later(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    watch, saver, _ = fit(run, [4, 6, 5], go_on=True, extra=[Full({2, 3, 8}, monkeypatch)])
    assert watch.last_after_batches() == [0, 0, 0, 0, 4, 4, 7, 7, 7, 7, 11, 11]
    # the best is what the file says: the second epoch's was never written
    assert watch.after_validations()[1:] == [
        {"last": 7, "best": 4, "previous": 4},
        {"last": 12, "best": 12, "previous": 11},
    ]
    assert saver.best["epoch"] == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in said] == ["step 3", "step 8"]
    assert all("no room; going on" in line for line in said)


def test_a_last_save_that_fails_is_no_end(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WorkError, match="trained to the end, but cannot write the checkpoint"):
        fit(run, go_on=True, extra=[Full({8}, monkeypatch)])
    assert saved(run) == 7


def test_who_has_lost_the_run_writes_no_more(run: RunDirectory) -> None:
    class Lose(L.Callback):
        def on_validation_start(self, *_: object) -> None:
            lock.lost = True

    lock = Lock(run.lock)
    with pytest.raises(WorkError, match="was taken over by another process"):
        fit(run, go_on=True, lock=lock, extra=[Lose()])
    assert saved(run) == 3 and not run.best.exists()
