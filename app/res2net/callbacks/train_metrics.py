"""What training steps tell.

Logs, every `every_steps` optimizer steps: `train/loss`, `train/top1` (means since the last row),
`train/lr`, `train/images_per_second`, and on a GPU `train/gpu_memory`, the most GiB that tensors
took on rank 0's since the process began; and at the end of an epoch `train/epoch_loss` and
`train/epoch_top1`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch

from res2net.files.runs import is_rank_zero


class TrainMetrics(L.Callback):
    """Sums on the device; the only synchronisation with it is at a row.

    Sums are kept here, not by `self.log(on_epoch=True)`, which loses the part of an epoch before
    a resume.
    """

    def __init__(self, *, every_steps: int, accumulate: int) -> None:
        self.every_steps = every_steps
        self.accumulate = accumulate
        self.latest: dict[str, float] = {}
        # rows: since the last row, since the start of the epoch; columns: loss, correct, images
        self._sums = torch.zeros(2, 3, dtype=torch.float64)
        self._since = time.perf_counter()
        self._images = 0
        self._lr = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._sums = self._sums.to(pl_module.device)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._since, self._images = time.perf_counter(), 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._lr = _lr(trainer)  # of this step: the schedule moves on before the step is logged

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        labels = outputs["labels"]
        correct = (outputs["logits"].argmax(dim=1) == labels).sum()
        images = torch.full_like(correct, len(labels))  # made on the device: nothing to wait for
        self._sums += torch.stack([outputs["batch_loss"].double() * images, correct, images])
        self._images += len(labels) * trainer.world_size
        stepped = (batch_idx + 1) % self.accumulate == 0
        if stepped and trainer.global_step % self.every_steps == 0:
            loss, top1 = self._take(trainer, 0)
            now = time.perf_counter()
            speed = self._images / (now - self._since)
            self._since, self._images = now, 0
            row = {"loss": loss, "top1": top1, "lr": self._lr, "images_per_second": speed}
            self._log(trainer, row | _gpu_memory(pl_module.device))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        loss, top1 = self._take(trainer, 1)
        self._log(trainer, {"epoch_loss": loss, "epoch_top1": top1})
        self.latest["lr"] = self._lr  # for those who show it: the last row may be long ago

    def _take(self, trainer: L.Trainer, row: int) -> tuple[float, float]:
        """Mean loss and top-1 of one row of sums over all ranks; the row starts again at zero."""
        total = trainer.strategy.reduce(self._sums[row].clone(), reduce_op="sum")
        assert isinstance(total, torch.Tensor)
        self._sums[row] = 0
        loss, correct, images = total.tolist()
        return loss / images, correct / images

    def _log(self, trainer: L.Trainer, values: dict[str, float]) -> None:
        self.latest |= values
        row = {f"train/{name}": value for name, value in values.items()}
        for logger in trainer.loggers:
            logger.log_metrics(row | {"epoch": trainer.current_epoch}, trainer.global_step)

    def resume_state(self) -> dict[str, Any]:
        """This rank's sums."""
        return {"sums": self._sums.cpu()}

    def load_resume_state(self, states: Sequence[dict[str, Any]], rank: int | None) -> None:
        """Take this rank's sums; where the ranks are cut otherwise, rank 0 takes all."""
        if rank is None:
            total = torch.stack([state["sums"] for state in states]).sum(dim=0)
            self._sums = total if is_rank_zero() else total * 0
        else:
            self._sums = states[rank]["sums"].clone()


def _lr(trainer: L.Trainer) -> float:
    """Of the run; groups of parameters may have a share or a multiple of it."""
    group = trainer.optimizers[0].param_groups[0]
    return float(group["lr"] / group["lr_scale"])


def _gpu_memory(device: torch.device) -> dict[str, float]:
    """The allocator's own count: asking it waits for nothing."""
    if device.type != "cuda":
        return {}
    return {"gpu_memory": torch.cuda.max_memory_allocated(device) / 2**30}
