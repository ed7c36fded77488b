"""Losses that are not finite end the command, and all of two ranks; nothing broken is saved."""

import os
import re
import socket
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch.nn import functional as F

from ranks import call
from res2net.callbacks.accuracy import Accuracy
from res2net.callbacks.checkpoint import SaveCheckpoints
from res2net.callbacks.guard import Guard
from res2net.callbacks.summary import Summary
from res2net.callbacks.train_metrics import TrainMetrics
from res2net.cli.main import main
from res2net.data.augmentation import Augmentation
from res2net.data.datamodule import ImageDataModule
from res2net.data.order import PADDING, TrainOrder
from res2net.data.sources.opening import open_sources
from res2net.errors import WorkError
from res2net.files.lock import Lock
from res2net.files.runs import RunDirectory
from res2net.preprocessing import Preprocessing
from res2net.training.checkpoint_io import AtomicCheckpointIO
from res2net.zoo import create_model

HALF = (0.5, 0.5, 0.5)
BATCH = 64
"""Over all ranks."""


class Classifier(L.LightningModule):
    """`nan_at`: a batch whose loss is not finite, on the last rank alone."""

    def __init__(self, nan_at: int) -> None:
        super().__init__()
        self.model = create_model("res2net20_cifar", num_classes=10)
        self.nan_at = nan_at

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, torch.Tensor]:
        logits = self(batch[0])
        loss = F.cross_entropy(logits, batch[1])
        if batch_idx == self.nan_at and self.trainer.global_rank == self.trainer.world_size - 1:
            loss = loss * float("nan")
        return {
            "loss": loss,
            "batch_loss": loss.detach(),
            "logits": logits.detach(),
            "labels": batch[1],
        }

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, torch.Tensor]:
        logits = self(batch[0])
        losses = F.cross_entropy(logits, batch[1], ignore_index=PADDING, reduction="none")
        return {"losses": losses, "logits": logits}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        groups = [{"params": list(self.parameters()), "lr_scale": 1.0}]
        return torch.optim.SGD(groups, lr=0.1)


def fit(nan_at: int) -> str:
    """What the run of this rank of two ended with."""
    run = RunDirectory.of("runs", "digits")
    run.path.mkdir(parents=True, exist_ok=True)
    train, val = open_sources("digits", "")
    data = ImageDataModule(
        train,
        val,
        preprocessing=Preprocessing(16, crop_fraction=1.0, mean=HALF, std=HALF),
        augmentation=Augmentation(crop="pad", pad=1, flip=0.0),
        global_batch_size=BATCH,
    )
    accuracy = Accuracy(10, images=len(val))
    summary = Summary(run, [accuracy], global_batch_size=BATCH)
    metrics = TrainMetrics(every_steps=5, accumulate=1)
    guard = Guard(run, metrics, names=data.names)
    lock = Lock(run.lock)
    saver = SaveCheckpoints(
        run, [accuracy], summary, guard, lock, every_steps=1, every_minutes=0, go_on=False
    )
    torch.manual_seed(0)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=DDPStrategy(),
        max_epochs=1,
        plugins=[AtomicCheckpointIO(), LightningEnvironment()],
        callbacks=[accuracy, metrics, guard, summary, saver],
        logger=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    try:
        trainer.fit(Classifier(nan_at), data)
    except WorkError as error:
        return str(error)
    return "ended well"


def _rank(rank: int, folder: Path, port: int, nan_at: int) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "NODE_RANK": "0",
        "LOCAL_RANK": str(rank),
    }
    torch.set_num_threads(1)
    os.chdir(folder)
    (folder / f"said-{rank}").write_text(fit(nan_at))


def assert_finite(file: Path) -> None:
    tensors = torch.load(file, weights_only=True)["state_dict"].values()
    assert all(tensor.isfinite().all() for tensor in tensors)


def test_an_absurd_learning_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = ["trainer.devices=1", "checkpoint.every_steps=1", "schedule.warmup_epochs=0"]
    assert main(["train", "quickstart", "optim.lr=1000", "optim.weight_decay=1", *settings]) == 1
    out, err = capfd.readouterr()
    assert out == "" and "Traceback" not in err
    said = err.splitlines()[-1]
    assert re.match(r"error: .* not finite: first at step \d+, in steps", said)
    listed = Path("checkpoints/quickstart/nonfinite.txt").read_text().splitlines()
    train, _ = open_sources("digits", "")
    assert len(listed) == BATCH
    assert set(listed) <= {train.name(index) for index in range(len(train))}
    assert listed[0] in said
    for file in Path("checkpoints/quickstart").glob("*.ckpt"):
        assert_finite(file)


def test_two_ranks_end_together_and_name_the_images_of_the_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    call(_rank, tmp_path, port, 2)
    said = [(tmp_path / f"said-{rank}").read_text() for rank in range(2)]
    assert said[0] == said[1]
    # all look at the second rank's third batch when the state after it is to be saved
    assert said[0].startswith("the training loss is not finite: first at step 3, in steps 3 to 3;")
    listed = (tmp_path / "runs/digits/nonfinite.txt").read_text().splitlines()
    train, _ = open_sources("digits", "")
    order = TrainOrder(count=len(train), seed=0, batch_size=BATCH // 2, world_size=2, rank=1)
    assert listed == [train.name(index) for index in order.batch(2).tolist()]
    last = tmp_path / "runs/digits/last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 2
    assert_finite(last)
