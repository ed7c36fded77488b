"""Means of windows and epochs against plain numpy, in a real fit; and over a resume."""

import io
import time
from collections.abc import Iterable
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from res2net.callbacks import train_metrics
from res2net.callbacks.metrics_csv import MetricsCSV
from res2net.callbacks.train_metrics import TrainMetrics

# Lightning's advice on loaders and intervals
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

Batch = tuple[torch.Tensor, torch.Tensor]


class Scores(L.LightningModule):
    """Its images are the logits; training changes nothing but the learning rate."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, torch.Tensor]:
        logits = batch[0] + 0 * self.weight
        loss = F.cross_entropy(logits, batch[1])
        return {
            "loss": loss,
            "batch_loss": loss.detach(),
            "logits": logits.detach(),
            "labels": batch[1],
        }

    def configure_optimizers(self) -> object:
        optimizer = torch.optim.SGD([{"params": [self.weight], "lr_scale": 1.0}], lr=1.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


# batches of several sizes, so that a mean of means would be another number
SIZES = [4, 1, 7, 3, 5, 2, 6, 4, 1, 9, 2, 8]


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(n, 5, generator=generator), torch.randint(5, (n,), generator=generator))
        for n in SIZES
    ]


def plain(batches: Iterable[Batch]) -> tuple[float, float]:
    """Mean loss and share of right answers over the images."""
    losses, right = [], []
    for logits, labels in batches:
        scores = logits.numpy().astype(np.float64)
        chosen = scores[np.arange(len(labels)), labels.numpy()]
        losses += list(np.log(np.exp(scores).sum(1)) - chosen)
        right += list(scores.argmax(1) == labels.numpy())
    return float(np.mean(losses)), float(np.mean(right))


def loader(batches: list[Batch]) -> DataLoader:
    return DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)  # type: ignore


def fit(metrics: TrainMetrics, batches: list[Batch], path: Path, epochs: int = 1) -> list[list]:
    """Rows of `metrics.csv`, speeds left out: step, epoch, key, value."""
    rows = MetricsCSV(path)
    rows.start()
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        callbacks=[metrics],
        logger=rows,
        accumulate_grad_batches=metrics.accumulate,
        max_epochs=epochs,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        log_every_n_steps=10**9,
    )
    trainer.fit(Scores(), loader(batches))
    table = [line.split(",") for line in path.read_text().splitlines()[1:]]
    assert {row[2] for row in table} == {"train"}
    return [
        [int(step), int(epoch), key, float(value)]
        for step, epoch, _, key, value in table
        if key != "images_per_second"
    ]


def assert_rows(rows: list[list], expected: list[list]) -> None:
    assert [row[:3] for row in rows] == [row[:3] for row in expected]
    np.testing.assert_allclose([row[3] for row in rows], [row[3] for row in expected], rtol=1e-6)


@pytest.mark.parametrize(("every_steps", "accumulate"), [(1, 1), (3, 1), (2, 2), (1, 3), (5, 1)])
def test_rows_hold_the_means_since_the_last_row_and_of_the_epoch(
    batches: list[Batch], every_steps: int, accumulate: int, tmp_path: Path
) -> None:
    metrics = TrainMetrics(every_steps=every_steps, accumulate=accumulate)
    rows = fit(metrics, batches, tmp_path / "metrics.csv", epochs=2)
    expected: list[list] = []
    since: list[Batch] = []
    steps = 0
    for epoch in range(2):
        for number, batch in enumerate(batches, start=1):
            since.append(batch)
            if number % accumulate == 0:
                steps += 1
                if steps % every_steps == 0:
                    loss, top1 = plain(since)
                    expected.append([steps, epoch, "loss", loss])
                    expected.append([steps, epoch, "top1", top1])
                    # of the next step: the scheduler has moved on
                    expected.append([steps, epoch, "lr", 1 / steps])  # that step's own
                    since = []
        loss, top1 = plain(batches)
        expected.append([steps, epoch, "epoch_loss", loss])
        expected.append([steps, epoch, "epoch_top1", top1])
    assert_rows(rows, expected)
    assert metrics.latest["epoch_loss"] == pytest.approx(plain(batches)[0])


def test_images_per_second_counts_the_images_of_the_window(
    batches: list[Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 10))  # each look at it comes ten seconds later
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    metrics = TrainMetrics(every_steps=4, accumulate=1)
    fit(metrics, batches, tmp_path / "metrics.csv")
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    speeds = [float(line.split(",")[-1]) for line in lines if "images_per_second" in line]
    assert speeds == [sum(SIZES[start : start + 4]) / 10 for start in (0, 4, 8)]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_memory_is_that_of_the_gpu_in_gib(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def allocated(device: torch.device) -> int:
        asked.append(device)
        return 3 * 2**29

    monkeypatch.setattr(torch.cuda, "max_memory_allocated", allocated)
    found = train_metrics._gpu_memory(torch.device(device))
    assert found == ({"gpu_memory": 1.5} if device == "cuda" else {})
    assert [str(device) for device in asked] == (["cuda"] if device == "cuda" else [])


# Over a resume


def through_a_file(state: dict) -> dict:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def state_after(batches: list[Batch], path: Path) -> dict:
    """What a checkpoint holds after these batches of an epoch."""
    stored = []

    class Saver(L.Callback):
        def on_train_batch_end(self, *_: object) -> None:
            stored.append(through_a_file(metrics.resume_state()))

    metrics = TrainMetrics(every_steps=4, accumulate=1)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        callbacks=[metrics, Saver()],
        logger=False,
        max_epochs=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(Scores(), loader(batches))
    return stored[-1]


def test_a_resumed_epoch_has_the_rows_of_one_that_went_through(
    batches: list[Batch], tmp_path: Path
) -> None:
    done = 6  # in the middle of a window of four
    metrics = TrainMetrics(every_steps=2, accumulate=1)
    metrics.load_resume_state([state_after(batches[:done], tmp_path)], 0)
    rows = fit(metrics, batches[done:], tmp_path / "metrics.csv")
    values = {(step, key): value for step, _, key, value in rows}
    assert values[2, "loss"] == pytest.approx(plain(batches[4:8])[0])
    assert values[4, "top1"] == pytest.approx(plain(batches[8:10])[1])
    loss, top1 = plain(batches)
    assert values[6, "epoch_loss"] == pytest.approx(loss)
    assert values[6, "epoch_top1"] == pytest.approx(top1)


def test_each_rank_takes_its_own_sums_or_rank_zero_all(
    batches: list[Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    states = [state_after(part, tmp_path) for part in (batches[:2], batches[2:5], batches[5:8])]
    metrics = TrainMetrics(every_steps=99, accumulate=1)

    metrics.load_resume_state(states, 1)
    assert torch.equal(metrics.resume_state()["sums"], states[1]["sums"])
    assert metrics.resume_state()["sums"][1, 2] == sum(SIZES[2:5])

    metrics.load_resume_state(states, None)
    (whole, _, _, top1) = fit(metrics, batches[8:], tmp_path / "metrics.csv")[-2]
    assert (whole, top1) == (4, pytest.approx(plain(batches)[0]))

    monkeypatch.setenv("RANK", "1")
    metrics.load_resume_state(states, None)
    assert metrics.resume_state()["sums"].tolist() == [[0.0] * 3] * 2
