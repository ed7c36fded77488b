"""One pass over images: figures, and what the network said of each."""

from __future__ import annotations

import math

import lightning as L
import torch
from torch import nn

from res2net.callbacks.accuracy import Accuracy
from res2net.callbacks.evaluation_bar import EvaluationBar
from res2net.callbacks.predictions import NONE, Predictions
from res2net.data.dali.stream import MAX_PIXELS
from res2net.data.datamodule import ImageDataModule
from res2net.data.order import EvalOrder
from res2net.data.sources.source import Source
from res2net.memory import keep_freed_memory
from res2net.models.head import Res2NetClassifier
from res2net.preprocessing import Preprocessing
from res2net.training.classifier import ImageClassifier
from res2net.training.evaluation.recalibrate import Recalibration
from res2net.training.evaluation.report import Report
from res2net.training.plan import Plan
from res2net.training.trainer import build_trainer


def evaluate(
    model: Res2NetClassifier,
    source: Source,
    preprocessing: Preprocessing,
    *,
    plan: Plan,
    batch_size: int,
    precision: str,
    channels_last: bool,
    flip: bool = False,
    skip: bool = False,
    max_pixels: int = MAX_PIXELS,
    recalibrate_on: Source | None = None,
) -> tuple[dict[str, float], Report]:
    """Top-1, top-5, loss (means over the images) and the number of images, each counted once.

    Batches are full, the last one is filled up. The report holds each image's likeliest classes.
    Before, BN's statistics become those of the images of `recalibrate_on`, if given.
    """
    if plan.accelerator == "cpu":
        keep_freed_memory()
    accuracy = Accuracy(model.num_classes, images=len(source))
    order = EvalOrder(len(source), batch_size, world_size=plan.world_size)
    predictions = Predictions(order.in_order)

    def images_of(source: Source) -> ImageDataModule:
        return ImageDataModule(
            None,
            source,
            preprocessing=preprocessing,
            eval_batch_size=batch_size,
            threads=plan.threads,
            skip=skip,
            max_pixels=max_pixels,
            skip_hint="--skip-corrupt",
        )

    callbacks: list[L.Callback] = [accuracy, predictions, EvaluationBar()]
    if recalibrate_on is not None:
        callbacks.insert(0, Recalibration(images_of(recalibrate_on)))
    trainer = build_trainer(plan, precision=precision, logger=False, callbacks=callbacks)
    classifier = ImageClassifier(FlipAverage(model) if flip else model, channels_last=channels_last)
    try:
        trainer.validate(classifier, datamodule=images_of(source), verbose=False)
    except SystemExit as error:  # Lightning's way to end after what `cli.main` tells of
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise
    seen = predictions.classes[:, 0] != NONE
    report = Report(source.class_names, source.labels[seen], predictions.classes[seen], seen)
    return accuracy.results, report


class FlipAverage(nn.Module):
    """Logarithms of the mean class probabilities of each image and its mirror image."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) -> (N, num_classes)."""
        both = [self.model(view).float().log_softmax(1) for view in (images, images.flip(3))]
        return torch.stack(both).logsumexp(0) - math.log(2)
