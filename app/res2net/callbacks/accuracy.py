"""Top-1, top-5 and loss over the whole evaluation set, each image counted once.

Logs `val/top1`, `val/top5` (six classes or more) and `val/loss`; of averaged weights `val_ema/...`.
"""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torchmetrics import MetricCollection, SumMetric
from torchmetrics.classification import MulticlassAccuracy

from res2net.errors import WorkError

# Labels below 0: of no image, and below that of one that is left out (`data.order`).
_PADDING = -1
_COUNTS = ("images", "excluded")


class Accuracy(L.Callback):
    """Accumulates over batches and ranks; negative labels are masked.

    `results` holds the last evaluation: `top1`, `top5`, `loss` and `images`, fractions 0..1;
    `excluded` how many more images could not be decoded.
    """

    def __init__(self, num_classes: int, *, images: int, averaged: bool = False) -> None:
        """
        Args:
            num_classes: columns of the logits.
            images: how many the evaluation set has: another count is a bug and raises.
            averaged: of the averaged weights (`callbacks.ema`) instead of the weights.
        """
        self.images = images
        self.split, self._outputs = ("val_ema", "ema_") if averaged else ("val", "")
        self.results: dict[str, float] = {}
        self.excluded = 0
        metrics: dict[str, Any] = {
            f"top{k}": MulticlassAccuracy(
                num_classes,
                top_k=k,
                average="micro",
                ignore_index=_PADDING,
                validate_args=False,  # looking at values makes the host wait for a GPU
            )
            for k in (1, 5)
            if k == 1 or num_classes >= 6
        }
        # "disable": a NaN must show; the other strategies drop it without a word
        metrics |= {name: SumMetric(nan_strategy="disable") for name in ("loss", *_COUNTS)}
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
        counts = {"images": labels >= 0, "excluded": labels < _PADDING}
        for name, metric in self._metrics.items(copy_state=False):
            if name == "loss":
                metric.update(outputs[f"{self._outputs}losses"])  # zero where masked
            elif name in counts:
                metric.update(counts[name].sum())
            else:
                metric.update(outputs[f"{self._outputs}logits"], labels.clamp(min=_PADDING))

    @property
    def row(self) -> dict[str, float]:
        """The last evaluation's fractions and loss by the names of the log, as `val/top1`."""
        return {f"{self.split}/{k}": v for k, v in self.results.items() if k != "images"}

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        values = {name: value.item() for name, value in self._metrics.compute().items()}
        images, excluded = (round(values.pop(name)) for name in _COUNTS)
        if images + excluded != self.images:
            raise RuntimeError(f"counted {images} + {excluded} of {self.images} evaluation images")
        if not images:
            raise WorkError(f"none of the {self.images} evaluation images can be decoded")
        loss = values.pop("loss") / images
        # torchmetrics divides in float32: the number of correct images gives the exact fraction
        exact = {name: round(value * images) / images for name, value in values.items()}
        results = {"loss": loss} | exact
        self.results, self.excluded = results | {"images": images}, excluded
        for logger in trainer.loggers:
            logger.log_metrics(self.row | {"epoch": trainer.current_epoch}, trainer.global_step)
