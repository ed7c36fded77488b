"""Top-1, top-5 and loss over the whole evaluation set, each image counted once.

Logs `val/top1`, `val/top5` (six classes or more) and `val/loss`.
"""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torchmetrics import MetricCollection, SumMetric
from torchmetrics.classification import MulticlassAccuracy


class Accuracy(L.Callback):
    """Accumulates over batches and ranks; labels equal to `padding` are masked.

    `results` holds the last evaluation: `top1`, `top5`, `loss` and `images`, fractions 0..1.
    """

    def __init__(self, num_classes: int, *, images: int, padding: int = -1) -> None:
        """`images` is how many the evaluation set has: another count is a bug and raises."""
        self.padding = padding
        self.images = images
        self.results: dict[str, float] = {}
        metrics: dict[str, Any] = {
            f"top{k}": MulticlassAccuracy(
                num_classes, top_k=k, average="micro", ignore_index=padding
            )
            for k in (1, 5)
            if k == 1 or num_classes >= 6
        }
        # "disable": a NaN must show; the other strategies drop it without a word
        metrics |= {name: SumMetric(nan_strategy="disable") for name in ("loss", "images")}
        self._metrics = MetricCollection(metrics, compute_groups=False)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # or losses and counts would be summed in float32; moving it to a device undoes it
        self._metrics.to(pl_module.device).set_dtype(torch.float64).reset()

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        labels = batch[1]
        counted = labels != self.padding
        for name, metric in self._metrics.items(copy_state=False):
            if name == "loss":
                metric.update(outputs["losses"])  # zero where masked
            elif name == "images":
                metric.update(counted.sum())
            else:
                metric.update(outputs["logits"], labels)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        values = {name: value.item() for name, value in self._metrics.compute().items()}
        images = round(values.pop("images"))
        if images != self.images:
            raise RuntimeError(f"counted {images} of {self.images} evaluation images")
        loss = values.pop("loss") / images
        # torchmetrics divides in float32: the number of correct images gives the exact fraction
        exact = {name: round(value * images) / images for name, value in values.items()}
        results = {"loss": loss} | exact
        self.results = results | {"images": images}
        row = {f"val/{name}": value for name, value in results.items()}
        for logger in trainer.loggers:
            logger.log_metrics(row | {"epoch": trainer.current_epoch}, trainer.global_step)
