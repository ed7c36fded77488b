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
    """What the last evaluation said of each image, on every rank; empty before the first.

    Checkpoints of a state that was just validated hold it, so that a run killed while its last
    pictures are drawn can draw them: 12 bytes an image. A resumed run knows the likeliest class
    alone, and the next epoch of training forgets it.

    `classes`: int64 (images, k), likeliest first; k is 5, or the number of classes where there
    are fewer. `probabilities`: float32 (images,), of the likeliest class. `losses`: float32
    (images,), cross-entropy.
    """

    def __init__(self, in_order: Callable[[np.ndarray], np.ndarray]) -> None:
        """`in_order`: of all ranks (ranks, batches * N, k) -> of the data set (images, k)."""
        self.in_order = in_order
        self._classes: list[torch.Tensor] = []
        self._numbers: list[torch.Tensor] = []
        self._forget()

    def _forget(self) -> None:
        self.classes = np.empty((0, TOP), dtype=np.int64)
        self.probabilities = self.losses = np.empty(0, dtype=np.float32)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._forget()  # states saved from here on are validated again before the end

    def state_dict(self) -> dict[str, Any]:
        return {
            "classes": torch.from_numpy(self.classes[:, 0].astype(np.int32)),
            "probabilities": torch.from_numpy(self.probabilities.copy()),
            "losses": torch.from_numpy(self.losses.copy()),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.classes = state_dict["classes"].numpy().astype(np.int64)[:, None]
        self.probabilities = state_dict["probabilities"].numpy()
        self.losses = state_dict["losses"].numpy()

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._classes, self._numbers = [], []

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        logits = outputs["logits"].float()  # (N, classes)
        scores, classes = logits.topk(min(TOP, logits.shape[1]), dim=1)
        probabilities = (scores[:, 0] - logits.logsumexp(dim=1)).exp()
        self._classes.append(classes.masked_fill_((batch[1] < 0)[:, None], NONE))
        self._numbers.append(torch.stack([probabilities, outputs["losses"].float()], dim=1))

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.classes = self._gathered(self._classes, trainer)
        self.probabilities, self.losses = self._gathered(self._numbers, trainer).T
        self._classes, self._numbers = [], []  # training has use for the memory

    def _gathered(self, batches: list[torch.Tensor], trainer: L.Trainer) -> np.ndarray:
        mine = torch.cat(batches)  # (batches * N, k), padding included: alike on all ranks
        gathered = gather_all_tensors(mine) if trainer.world_size > 1 else [mine]
        return self.in_order(torch.stack(gathered).cpu().numpy())
