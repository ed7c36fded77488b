"""The LightningModule: a network, its loss and its optimizer."""

from __future__ import annotations

from functools import partial
from typing import Any

import lightning as L
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from res2net.config.schema import OptimConfig, ScheduleConfig
from res2net.data.order import PADDING
from res2net.training.optim import build_optimizer
from res2net.training.schedule import lr_factor

Batch = tuple[torch.Tensor, torch.Tensor]


class ImageClassifier(L.LightningModule):
    """Trains and evaluates a classifier on (images (N, 3, H, W) float, labels (N,) int64).

    Args:
        model: (N, 3, H, W) -> logits (N, num_classes).
        identity: what a checkpoint says of itself under the key `res2net` (`files.runs.identity`).
        optim, schedule: configuration groups; None for evaluation alone.
        steps_per_epoch, max_epochs: the length of the run, for the schedule.
        channels_last: memory format of the network.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        identity: dict[str, Any] | None = None,
        optim: OptimConfig | None = None,
        schedule: ScheduleConfig | None = None,
        steps_per_epoch: int = 1,
        max_epochs: int = 1,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        if channels_last:
            model = model.to(memory_format=torch.channels_last)
        self.model = model
        self.identity = identity
        self.optim = optim
        self.schedule = schedule
        self.steps_per_epoch = steps_per_epoch
        self.max_epochs = max_epochs

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) -> logits (N, num_classes)."""
        return self.model(images)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, torch.Tensor]:
        images, labels = batch
        assert self.optim is not None
        logits = self(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.optim.label_smoothing)
        # Lightning divides "loss" by the accumulated batches: metrics read "batch_loss"
        return {"loss": loss, "batch_loss": loss.detach(), "logits": logits.detach()}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, torch.Tensor]:
        images, labels = batch
        logits = self(images).float()
        masked = labels.clamp(min=PADDING)  # left out is masked as well
        losses = F.cross_entropy(logits, masked, ignore_index=PADDING, reduction="none")
        return {"losses": losses, "logits": logits}

    def configure_optimizers(self) -> Any:
        assert self.optim is not None and self.schedule is not None
        optimizer = build_optimizer(
            self.model,
            lr=self.optim.lr,
            momentum=self.optim.momentum,
            nesterov=self.optim.nesterov,
            weight_decay=self.optim.weight_decay,
            decay_norm_and_bias=self.optim.decay_norm_and_bias,
        )
        factor = partial(
            lr_factor,
            name=self.schedule.name,
            total_steps=self.steps_per_epoch * self.max_epochs,
            steps_per_epoch=self.steps_per_epoch,
            warmup_epochs=self.schedule.warmup_epochs,
            end_factor=self.schedule.end_factor,
            step_epochs=self.schedule.step_epochs,
            gamma=self.schedule.gamma,
        )
        scheduler = LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["res2net"] = self.identity
