"""Fits of a toy whose losses are scripted: where they end, what is said and what is kept."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from disks import SmallDisk
from res2net.callbacks.accuracy import Accuracy
from res2net.callbacks.checkpoint import SaveCheckpoints
from res2net.callbacks.exact_resume import ExactResume
from res2net.callbacks.guard import Guard, out_of_memory
from res2net.callbacks.summary import Summary
from res2net.callbacks.train_metrics import TrainMetrics
from res2net.errors import WorkError
from res2net.files.lock import Lock
from res2net.files.runs import RunDirectory
from res2net.training.checkpoint_io import AtomicCheckpointIO

# Lightning's advice on loaders and intervals
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

NAN, INF = math.nan, math.inf


class Scripted(L.LightningModule):
    """The loss of each batch since the start of the run, and the weight after each step."""

    def __init__(self, losses: Sequence[float], weights: Sequence[float] = ()) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.register_buffer("statistic", torch.zeros(()))
        self.losses, self.weights = losses, weights
        self.validations = 0

    def training_step(self, batch: Sequence[torch.Tensor], batch_idx: int) -> dict:
        position = self.trainer.current_epoch * self.trainer.num_training_batches + batch_idx
        loss = torch.tensor(self.losses[position])
        return {
            "loss": self.weight * 0,
            "batch_loss": loss,
            "logits": torch.zeros(2, 7),
            "labels": batch[1],
        }

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer, optimizer_closure) -> None:  # type: ignore
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        with torch.no_grad():
            if self.weights:
                self.weight.fill_(self.weights[self.trainer.global_step])

    def validation_step(self, batch: Sequence[torch.Tensor], batch_idx: int) -> dict:
        self.validations += 1
        return {"losses": torch.zeros(2), "logits": torch.zeros(2, 7)}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([{"params": [self.weight], "lr_scale": 1.0}], lr=0.1)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    monkeypatch.chdir(tmp_path)
    run = RunDirectory.of("runs", "mine")
    run.path.mkdir(parents=True)
    return run


def names(position: int) -> list[str]:
    return [f"{position}/{letter}.png" for letter in "abcde"]


def fit(
    run: RunDirectory,
    module: Scripted,
    *,
    batches: int = 8,
    accumulate: int = 1,
    rows: int = 3,
    saves: int = 0,
    resume: Path | None = None,
    **options: object,
) -> L.Trainer:
    """As `training.run` puts the callbacks together; the trainer when it has ended well."""
    accuracy = Accuracy(7, images=2)
    summary = Summary(run, [accuracy], global_batch_size=2)
    metrics = TrainMetrics(every_steps=rows, accumulate=accumulate)
    guard = Guard(run, metrics, names=names)
    saver = SaveCheckpoints(
        run,
        [accuracy],
        summary,
        guard,
        Lock(run.lock),
        every_steps=saves,
        every_minutes=0,
        go_on=False,
    )
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=len(module.losses) // batches,
        accumulate_grad_batches=accumulate,
        plugins=[AtomicCheckpointIO()],
        callbacks=[
            accuracy,
            metrics,
            guard,
            summary,
            ExactResume({"train_metrics": metrics}, seed=0, image_size=8),
            saver,
        ],
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,  # type: ignore[arg-type]
    )
    batch = (torch.zeros(2), torch.zeros(2, dtype=torch.long))
    trainer.fit(
        module,
        DataLoader([batch] * batches, batch_size=None),  # type: ignore[arg-type]
        DataLoader([batch], batch_size=None),  # type: ignore[arg-type]
        ckpt_path=resume,
        weights_only=True,
    )
    return trainer


def script(count: int, **broken: float) -> list[float]:
    losses = [1.0] * count
    for place, value in broken.items():
        losses[int(place[1:])] = value
    return losses


def failure(run: RunDirectory, module: Scripted, **options: object) -> str:
    with pytest.raises(WorkError) as caught:
        fit(run, module, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("place", "rows", "looked", "ended"),
    [(0, 3, 1, 3), (2, 3, 1, 3), (3, 3, 4, 6), (7, 3, 8, 8), (7, 99, 8, 8), (10, 3, 10, 12)],
)
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_ends_at_the_next_row_or_the_end_of_the_epoch(
    run: RunDirectory, place: int, rows: int, looked: int, ended: int, value: float
) -> None:
    module = Scripted(script(16, **{f"_{place}": value}))
    message = failure(run, module, rows=rows)
    assert module.trainer.global_step == ended
    assert f"first at step {place + 1}, in steps {looked} to {ended};" in message
    assert f"{place}/a.png, {place}/b.png, {place}/c.png and 2 more" in message
    assert "runs/mine/nonfinite.txt" in message
    assert run.nonfinite.read_text().splitlines() == names(place)


def test_a_broken_network_is_not_evaluated(run: RunDirectory) -> None:
    module = Scripted(script(16, _12=NAN))
    failure(run, module, rows=99)
    assert module.validations == 1  # of the first epoch


def test_the_first_of_several(run: RunDirectory) -> None:
    message = failure(run, Scripted(script(8, _4=NAN, _5=INF, _6=NAN)), rows=7)
    assert "first at step 5, in steps 1 to 7" in message
    assert run.nonfinite.read_text().splitlines() == names(4)


def test_accumulated_batches_are_counted_in_steps_and_named_by_batch(run: RunDirectory) -> None:
    message = failure(run, Scripted(script(16, _13=NAN)), accumulate=2, rows=2)
    assert "first at step 7, in steps 7 to 7" in message
    assert run.nonfinite.read_text().splitlines() == names(13)


def test_finite_losses_end_well(run: RunDirectory) -> None:
    assert fit(run, Scripted([3e38] * 16)).global_step == 16
    assert not run.nonfinite.exists()


def test_names_that_are_no_utf8(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = b"caf\xe9\n.png".decode("utf-8", "surrogateescape")
    monkeypatch.setattr(f"{__name__}.names", lambda position: [odd])
    failure(run, Scripted(script(8, _0=NAN)))
    assert run.nonfinite.read_bytes() == b"caf\xe9\\n.png\n"


def test_a_full_disk_does_not_hide_why_the_run_ends(
    small_disk: Callable[[float], SmallDisk], capsys: pytest.CaptureFixture[str]
) -> None:
    disk = small_disk(1)
    run = RunDirectory(disk.path)
    disk.fill()
    message = failure(run, Scripted(script(8, _4=NAN)))
    assert "4/a.png, 4/b.png, 4/c.png and 2 more; checkpoint" in message
    assert f"{run.nonfinite} cannot be written (No space left" in capsys.readouterr().err
    assert not run.nonfinite.exists()


# What is kept


def saved(run: RunDirectory) -> dict[str, int]:
    files = sorted(run.path.glob("*.ckpt"))
    return {path.stem: torch.load(path, weights_only=True)["global_step"] for path in files}


def test_no_state_is_saved_after_a_loss_that_was_not_finite(run: RunDirectory) -> None:
    # 13 is between two rows
    message = failure(run, Scripted(script(16, _12=NAN)), rows=99, saves=2)
    assert saved(run) == {"best": 8, "last": 12, "previous": 10}
    assert "first at step 13, in steps 13 to 14" in message
    assert "checkpoint: runs/mine/last.ckpt is kept as it was" in message


@pytest.mark.parametrize("value", [NAN, INF])
def test_no_broken_state_is_saved_though_all_losses_were_finite(
    run: RunDirectory, value: float
) -> None:
    weights = [1.0, 1.0, 1.0, 1.0, 1.0, value, value, value]
    message = failure(run, Scripted([1.0] * 8, weights), rows=99, saves=2)
    assert saved(run) == {"last": 4, "previous": 2}
    assert message.startswith("weights or BN statistics are not finite: first at step 6")
    assert run.nonfinite.read_text().splitlines() == names(5)


def test_statistics_are_looked_at_too(run: RunDirectory) -> None:
    module = Scripted([1.0] * 8)
    module.statistic.fill_(INF)
    assert failure(run, module, saves=2).startswith("weights or BN statistics are not finite")
    assert saved(run) == {}


def test_nothing_was_saved_yet(run: RunDirectory) -> None:
    message = failure(run, Scripted(script(8, _0=NAN)))
    assert "checkpoint: none was saved" in message and not saved(run)


# What to try


def test_advice(run: RunDirectory) -> None:
    message = failure(run, Scripted(script(8, _0=NAN)))
    assert message.endswith("try another run with a lower optim.lr, or optim.clip_norm=1")
    message = failure(run, Scripted(script(8, _0=NAN)), gradient_clip_val=1.0)
    assert message.endswith("with a lower optim.lr")


# What it costs


def test_between_two_looks_it_asks_the_device_for_nothing() -> None:
    metrics = TrainMetrics(every_steps=5, accumulate=1)
    guard = Guard(RunDirectory(Path("unused")), metrics, names=names)
    module = SimpleNamespace(device=torch.device("meta"))  # holds no numbers: asking raises
    trainer = SimpleNamespace(
        num_training_batches=10,
        current_epoch=0,
        accumulate_grad_batches=1,
        global_step=0,
        strategy=SimpleNamespace(reduce=lambda tensor, reduce_op: tensor),
    )
    guard.on_train_start(trainer, module)  # type: ignore[arg-type]
    outputs = {"batch_loss": torch.zeros((), device="meta")}
    for index in range(4):
        trainer.global_step += 1
        guard.on_train_batch_end(trainer, module, outputs, None, index)  # type: ignore[arg-type]
    trainer.global_step += 1
    with pytest.raises((RuntimeError, NotImplementedError), match=r"[Mm]eta"):
        guard.on_train_batch_end(trainer, module, outputs, None, 4)  # type: ignore[arg-type]


# Warnings


def test_a_spike_in_the_rows(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    # rows of two batches: their means are watched
    fit(run, Scripted([1.0] * 24 + [1.0, 2.5] + [1.0] * 6), rows=2, batches=32)
    lines = [line for line in capsys.readouterr().err.splitlines() if "far above" in line]
    assert len(lines) == 1
    assert lines[0].startswith("train/loss 1.75 at step 26 is far above the last rows' 1 ")


def test_a_plateau_of_epochs_over_a_resume(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = [3.0, 2.0] + [1.0] * 26
    fit(run, Scripted(losses[:18]), batches=2, rows=99)  # nine epochs
    assert "fallen" not in capsys.readouterr().err
    states = torch.load(run.last, weights_only=True)["callbacks"]
    assert json.loads(json.dumps(states["Guard"]))  # plain values
    fit(run, Scripted(losses), batches=2, rows=99, resume=run.last)
    lines = [line for line in capsys.readouterr().err.splitlines() if "fallen" in line]
    # 1 since epoch 1, ten epochs more
    assert lines == [
        "train/epoch_loss has not fallen by 1% below 1 for 10 epochs (epoch 11)",
    ]


# Out of memory


def test_out_of_memory_says_what_to_change() -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has ...")
    raised = out_of_memory(error, batch_size=64, accumulate=2, precision="32-true")
    assert isinstance(raised, WorkError)
    assert str(raised) == (
        "out of memory with 64 images per device at once (asked for 2.50 GiB), "
        "trainer.accumulate=2, trainer.precision=32-true; try trainer.accumulate=4 takes 32 at "
        "once and learns from as many per step, or trainer.precision=bf16-mixed, or a smaller "
        "data.global_batch_size, or a smaller data.image_size"
    )


@pytest.mark.parametrize(("batch", "accumulate", "wanted"), [(9, 1, 3), (7, 2, 14), (6, 1, 2)])
def test_out_of_memory_proposes_a_number_that_divides(
    batch: int, accumulate: int, wanted: int
) -> None:
    raised = out_of_memory(
        RuntimeError(), batch_size=batch, accumulate=accumulate, precision="bf16-mixed"
    )
    assert f"trainer.accumulate={wanted} takes {batch * accumulate // wanted} " in str(raised)
    assert "trainer.precision=bf16-mixed;" in str(raised)  # as it is, not as advice
    assert str(raised).count("precision") == 1


def test_out_of_memory_with_one_image() -> None:
    raised = out_of_memory(RuntimeError(), batch_size=1, accumulate=8, precision="bf16-mixed")
    assert str(raised).startswith("out of memory with 1 image per device at once, ")
    assert str(raised).endswith("; try a smaller data.image_size")
