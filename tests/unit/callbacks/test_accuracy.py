"""Against plain counting, with padding, in a real evaluation."""

from pathlib import Path

import lightning as L
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from res2net.callbacks.accuracy import Accuracy
from res2net.callbacks.metrics_csv import HEADER, MetricsCSV
from res2net.errors import WorkError

# Lightning's advice on loaders and intervals
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

Batch = tuple[torch.Tensor, torch.Tensor]


class Scores(L.LightningModule):
    """Its images are the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        return self.weight

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, torch.Tensor]:
        logits, labels = batch
        losses = F.cross_entropy(logits, labels.clamp(min=-1), ignore_index=-1, reduction="none")
        return {"losses": losses, "logits": batch[0]}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer_with(accuracy: Accuracy, **options: object) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        devices=1,
        callbacks=[accuracy],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        max_epochs=2,
        **{"logger": False, **options},  # type: ignore[arg-type]
    )


def batches_of(images: int, classes: int, batch_size: int = 8, seed: int = 0) -> list[Batch]:
    """Random scores, right more often than by chance; the last batch is padded."""
    generator = torch.Generator().manual_seed(seed)
    full = -(-images // batch_size) * batch_size
    labels = torch.randint(classes, (full,), generator=generator)
    logits = torch.randn(full, classes, generator=generator) + 2 * F.one_hot(labels, classes)
    labels[images:] = -1
    logits[images:] = 1e4  # counted anywhere, these would show
    return list(zip(logits.split(batch_size), labels.split(batch_size), strict=True))


def loader(batches: list[Batch]) -> DataLoader:
    return DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)  # type: ignore


def counted(batches: list[Batch], k: int) -> int:
    """Images with fewer than k classes scored above the right one."""
    pairs = [
        (row.tolist(), int(label))
        for logits, labels in batches
        for row, label in zip(logits, labels, strict=True)
        if label != -1
    ]
    return sum(sum(score > row[label] for score in row) < k for row, label in pairs)


@pytest.mark.parametrize(("images", "classes"), [(23, 10), (24, 6), (1, 7), (397, 100), (50, 5)])
def test_each_image_counts_once_and_padding_never(images: int, classes: int) -> None:
    batches = batches_of(images, classes)
    accuracy = Accuracy(classes, images=images)
    trainer_with(accuracy).validate(Scores(), loader(batches), verbose=False)
    results = accuracy.results
    assert results["images"] == images
    # not nearly: the exact fraction
    assert results["top1"] == counted(batches, 1) / images
    losses = torch.cat([F.cross_entropy(*batch, reduction="none", ignore_index=-1)
                        for batch in batches]).double()  # fmt: skip
    assert results["loss"] == pytest.approx(losses.sum().item() / images, rel=1e-12)
    if classes < 6:
        assert set(results) == {"top1", "loss", "images"}
    else:
        assert results["top5"] == counted(batches, 5) / images
        assert images == 1 or results["top5"] > results["top1"] > 0


@pytest.mark.parametrize("expected", [22, 24, 32])
def test_another_number_of_images_than_there_are_is_a_bug(expected: int) -> None:
    trainer = trainer_with(Accuracy(10, images=expected))
    with pytest.raises(RuntimeError, match=rf"^counted 23 \+ 0 of {expected} evaluation images$"):
        trainer.validate(Scores(), loader(batches_of(23, 10)), verbose=False)


def test_an_evaluation_starts_from_zero() -> None:
    accuracy = Accuracy(10, images=23)
    trainer = trainer_with(accuracy)
    first, second = batches_of(23, 10, seed=1), batches_of(23, 10, seed=2)
    assert counted(first, 1) != counted(second, 1)
    for batches in (first, second):
        trainer.validate(Scores(), loader(batches), verbose=False)
        assert accuracy.results["top1"] == counted(batches, 1) / 23


def test_images_that_were_left_out_are_counted_apart() -> None:
    batches = batches_of(23, 10)
    for _, labels in batches:
        labels[0] = -2
    accuracy = Accuracy(10, images=23)
    trainer_with(accuracy).validate(Scores(), loader(batches), verbose=False)
    assert accuracy.excluded == len(batches)
    images = accuracy.results["images"]
    assert images == 23 - len(batches)
    valid = [(logits, labels.clamp(min=-1)) for logits, labels in batches]
    assert accuracy.results["top1"] == counted(valid, 1) / images
    assert accuracy.results["top5"] == counted(valid, 5) / images


def test_an_evaluation_without_a_single_good_image_fails() -> None:
    batches = [(logits, torch.full_like(labels, -2)) for logits, labels in batches_of(8, 10)]
    with pytest.raises(WorkError, match="none of the 8 evaluation images can be decoded"):
        trainer_with(Accuracy(10, images=8)).validate(Scores(), loader(batches), verbose=False)


def test_a_fit_writes_its_rows_each_epoch(tmp_path: Path) -> None:
    rows = MetricsCSV(tmp_path / "metrics.csv")
    rows.start()
    batches = batches_of(23, 10)
    accuracy = Accuracy(10, images=23)
    trainer = trainer_with(accuracy, logger=rows)
    trainer.fit(Scores(), loader(batches), loader(batches))
    top1, top5 = (counted(batches, k) / 23 for k in (1, 5))
    loss = accuracy.results["loss"]
    assert rows.path.read_text() == HEADER + "".join(
        f"{3 * (epoch + 1)},{epoch},val,{key},{value!r}\n"
        for epoch in range(2)
        for key, value in (("loss", loss), ("top1", top1), ("top5", top5))
    )
