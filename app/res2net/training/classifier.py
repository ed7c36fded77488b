"""The LightningModule: a network, what it learns from, and how it is evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning as L
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from res2net.callbacks.ema import Average
from res2net.config.schema_learning import OptimConfig, ScheduleConfig
from res2net.data.order import PADDING
from res2net.models.head import Res2NetClassifier
from res2net.training.loss.distillation import Teacher, distillation_loss
from res2net.training.loss.mixing import Mixing
from res2net.training.optim.freezing import hold_still
from res2net.training.optim.optimizers import build_optimizer
from res2net.training.optim.schedules import lr_factor

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Distillation:
    """A teacher, and how much it counts (`loss.distill`, `loss.temperature`)."""

    teacher: Teacher
    share: float
    temperature: float


@dataclass(frozen=True)
class Learning:
    """What training adds to a network.

    Attributes:
        loss: (logits (N, K), targets (N,) or (N, K)) -> scalar.
        lr: peak learning rate for the global batch.
        steps_per_epoch, max_epochs: the length of the run, for the schedule.
        frozen: parts of the network that stay in evaluation mode; they have no gradients.
    """

    loss: nn.Module
    optim: OptimConfig
    schedule: ScheduleConfig
    lr: float
    steps_per_epoch: int
    max_epochs: int
    mixing: Mixing | None = None
    distillation: Distillation | None = None
    frozen: Sequence[nn.Module] = ()


class ImageClassifier(L.LightningModule):
    """Trains and evaluates a classifier on (images (N, 3, H, W) float, labels (N,) int64).

    Args:
        model: (N, 3, H, W) -> logits (N, num_classes).
        identity: what a checkpoint says of itself under the key `res2net` (`files.runs.identity`).
        learning: None for evaluation alone.
        average: its network is evaluated beside the model, once there is one.
        channels_last: memory format of the network.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        identity: dict[str, Any] | None = None,
        learning: Learning | None = None,
        average: Average | None = None,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        if channels_last:
            model = model.to(memory_format=torch.channels_last)
        self.model = model
        self.loss = learning.loss if learning else None  # its class weights move with the module
        self.identity = identity
        self.learning = learning
        self.average = average
        self.lr = learning.lr if learning else 0.0
        self.train(self.training)  # Lightning takes modules as they are

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) -> logits (N, num_classes)."""
        return self.model(images)

    def train(self, mode: bool = True) -> ImageClassifier:
        """As of any module, but frozen parts stay in evaluation mode."""
        super().train(mode)
        if self.learning is not None:
            hold_still(self.learning.frozen)
        return self

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, torch.Tensor]:
        images, labels = batch
        assert self.learning is not None and self.loss is not None
        targets = labels
        if self.learning.mixing is not None:
            images, targets = self.learning.mixing(images, labels)
        logits = self(images)
        taught = self.learning.distillation
        loss = logits.new_zeros((), dtype=torch.float32)
        if taught is None or taught.share < 1:
            loss = self.loss(logits, targets)
        if taught is not None:
            soft = distillation_loss(logits, taught.teacher(images), taught.temperature)
            loss = (1 - taught.share) * loss + taught.share * soft
        if targets.ndim > 1:
            labels = targets.argmax(dim=1)  # of a mixed image, what there is more of
        return {
            "loss": loss,
            # Lightning divides "loss" by the accumulated batches: metrics read "batch_loss"
            "batch_loss": loss.detach(),
            "logits": logits.detach(),
            "labels": labels,
        }

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, torch.Tensor]:
        images, labels = batch
        outputs = _evaluate(self.model, images, labels)
        if self.average is not None and self.average.network is not None:
            averaged = _evaluate(self.average.network, images, labels)
            outputs |= {f"ema_{name}": value for name, value in averaged.items()}
        return outputs

    def configure_optimizers(self) -> Any:
        assert self.learning is not None and isinstance(self.model, Res2NetClassifier)
        optimizer = build_optimizer(self.model, self.learning.optim, lr=self.lr)
        factor = partial(
            lr_factor,
            schedule=self.learning.schedule,
            steps_per_epoch=self.learning.steps_per_epoch,
            max_epochs=self.learning.max_epochs,
        )
        scheduler = LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def on_train_start(self) -> None:
        """A stored optimizer has the learning rate of the run as it was; it may be longer now."""
        scheduler = self.lr_schedulers()
        if isinstance(scheduler, LambdaLR):  # a search for the learning rate has its own
            for group, base, factor in zip(
                scheduler.optimizer.param_groups,
                scheduler.base_lrs,
                scheduler.lr_lambdas,
                strict=True,
            ):
                group["lr"] = base * factor(scheduler.last_epoch)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["res2net"] = self.identity


def _evaluate(
    network: nn.Module, images: torch.Tensor, labels: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Logits, and the loss of each image: zero where its label is masked."""
    logits = network(images).float()
    masked = labels.clamp(min=PADDING)  # left out is masked as well
    losses = F.cross_entropy(logits, masked, ignore_index=PADDING, reduction="none")
    return {"losses": losses, "logits": logits}
