"""The likeliest classes of every image of an evaluation, in the order of the data set.

Logs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
import torch
from torchmetrics.utilities.distributed import gather_all_tensors

TOP = 5
NONE = -1
"""In place of classes, for an image that could not be decoded."""


class Predictions(L.Callback):
    """`classes` holds the last evaluation: int64 (images, k), likeliest first, on every rank.

    k is 5, or the number of classes where there are fewer.
    """

    def __init__(self, in_order: Callable[[np.ndarray], np.ndarray]) -> None:
        """`in_order`: of all ranks (ranks, batches * N, k) -> of the data set (images, k)."""
        self.in_order = in_order
        self.classes = np.empty((0, TOP), dtype=np.int64)
        self._batches: list[torch.Tensor] = []

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._batches = []

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        logits = outputs["logits"]  # (N, classes)
        classes = logits.topk(min(TOP, logits.shape[1]), dim=1).indices
        self._batches.append(classes.masked_fill_((batch[1] < 0)[:, None], NONE))

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        mine = torch.cat(self._batches)  # (batches * N, k), padding included: alike on all ranks
        gathered = gather_all_tensors(mine) if trainer.world_size > 1 else [mine]
        self.classes = self.in_order(torch.stack(gathered).cpu().numpy())
