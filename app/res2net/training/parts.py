"""What a configuration describes, opened and built: nothing of it is on the disk yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from res2net.callbacks.ema import Average
from res2net.config.load import to_dict
from res2net.config.schema import Config
from res2net.data.datamodule import ImageDataModule
from res2net.data.sources.source import Source
from res2net.data.staging import Staging
from res2net.errors import InputError, Problems
from res2net.files.runs import identity
from res2net.models.head import Res2NetClassifier
from res2net.models.variants import find_variant
from res2net.training.batch_norm import check_batch_norm
from res2net.training.classifier import Distillation, ImageClassifier, Learning
from res2net.training.data import build_data, check_global_batch, open_data, stage_data
from res2net.training.loss.distillation import open_teacher
from res2net.training.loss.losses import Loss
from res2net.training.loss.mixing import build_mixing
from res2net.training.optim.freezing import freeze_parts, frozen_parts
from res2net.training.optim.optimizers import scaled_lr
from res2net.training.optim.schedules import check_schedule
from res2net.training.plan import Plan
from res2net.training.remarks import remarks
from res2net.weights.catalog import resolve
from res2net.weights.read import apply_weights, read_weights
from res2net.zoo import create_model


@dataclass(frozen=True)
class Parts:
    """The parts of a training, and what there is to say of them."""

    train: Source
    val: Source
    data: ImageDataModule
    classifier: ImageClassifier
    class_names: tuple[str, ...]
    """One for each output."""
    average: Average | None
    messages: tuple[str, ...]


def build_parts(
    config: Config,
    plan: Plan,
    *,
    fresh: bool = True,
    kind: type[ImageClassifier] = ImageClassifier,
    stage: bool = True,
) -> Parts:
    """Open the data, build the network and what it learns with.

    Args:
        fresh: whether the weights that the configuration names are read; a resumed run has its own.
        kind: of LightningModule.
        stage: whether shards are copied to `data.stage_to`, once all else is found right.

    Raises:
        InputError: something in the configuration or the data cannot be used.
        WorkError: copying the data failed on the way.
    """
    problems = Problems()
    problems.attempt(lambda: _check_balance(config))
    problems.attempt(lambda: check_schedule(config.schedule, max_epochs=config.trainer.max_epochs))
    opened = problems.attempt(lambda: _open(config, stage))
    found = problems.attempt(lambda: find_variant(config.model.name))
    if found is not None:
        problems.attempt(lambda: check_batch_norm(config, plan))
    weights = None
    if found is not None and config.model.weights and fresh:
        # a backbone alone will do, as its head is replaced
        weights = problems.attempt(
            lambda: read_weights(resolve(config.model.weights, found.name), backbone_only=True)
        )
    problems.tell()
    assert opened is not None and found is not None
    (train, val, names, staging), variant = opened, found.name
    messages = remarks(config)
    torch.manual_seed(config.run.seed)  # the initialisation; every rank draws the same
    model = create_model(
        variant,
        num_classes=len(names),
        drop_path=config.model.drop_path,
        zero_init_last=config.model.zero_init_last,
    )
    if weights is not None:
        messages.append(apply_weights(model, weights) or f"weights: {config.model.weights}")
    data = build_data(config, plan, train, val)
    frozen = problems.attempt(lambda: frozen_parts(model, config.optim.freeze))
    loss = problems.attempt(lambda: _loss(config, train, names))
    teacher = problems.attempt(
        lambda: open_teacher(
            config.loss,
            class_names=names,
            preprocessing=data.preprocessing,
            channels_last=config.trainer.channels_last,
        )
    )
    problems.tell()
    assert frozen is not None and loss is not None
    freeze_parts(frozen)
    if frozen:
        messages.append(_frozen(model, config.optim.freeze))

    lr, announcement = scaled_lr(config.optim, config.data.global_batch_size)
    messages += filter(None, [announcement])
    average = None
    if config.optim.ema_decay:
        average = Average(decay=config.optim.ema_decay, every=config.optim.ema_every)
    distillation = None
    if teacher is not None:
        distillation = Distillation(teacher, config.loss.distill, config.loss.temperature)
    classifier = kind(
        model,
        identity=identity(
            variant,
            num_classes=len(names),
            class_names=names,
            preprocessing=data.preprocessing.to_dict(),
            config=to_dict(config),
        ),
        learning=Learning(
            loss=loss,
            optim=config.optim,
            schedule=config.schedule,
            lr=lr,
            steps_per_epoch=data.steps_per_epoch,
            max_epochs=config.trainer.max_epochs,
            mixing=build_mixing(config.augment, num_classes=len(names)),
            distillation=distillation,
            frozen=frozen,
        ),
        average=average,
        channels_last=config.trainer.channels_last,
    )
    if staging is not None:
        staging.copy()  # may take long: nothing is refused after it
    return Parts(train, val, data, classifier, names, average, tuple(messages))


def _check_balance(config: Config) -> None:
    if config.loss.class_weights == "balanced" and config.data.sampling == "balanced":
        raise InputError(
            "loss.class_weights=balanced, data.sampling=balanced: each makes up for classes of "
            "different sizes, together they do it twice; choose one"
        )


def _open(config: Config, stage: bool) -> tuple[Source, Source, tuple[str, ...], Staging | None]:
    """Images for training and validation, names of the outputs, and what is to be copied first."""
    train, val = open_data(config.data)
    names = output_names(config, train)
    staging, train, val = stage_data(config.data, train, val, here=stage)
    return train, val, names, staging


def output_names(config: Config, source: Source) -> tuple[str, ...]:
    """A name for each output; those that the data do not use are called by their number.

    Raises InputError: there are more classes than outputs, or too few images for a batch.
    """
    classes, outputs = source.class_names, config.model.num_classes
    if outputs and outputs < len(classes):
        raise InputError(
            f"model.num_classes={outputs}: the data have {len(classes)} classes; 0 takes as many"
        )
    check_global_batch(config.data, source)
    return (*classes, *map(str, range(len(classes), outputs)))


def _loss(config: Config, train: Source, names: Sequence[str]) -> Loss:
    counts = np.bincount(train.labels, minlength=len(names))
    return Loss(config.loss, num_classes=len(names), counts=counts)


def _frozen(model: Res2NetClassifier, freeze: str) -> str:
    parameters = list(model.parameters())
    learning = sum(p.numel() for p in parameters if p.requires_grad)
    return (
        f"optim.freeze={freeze}: {learning:,} of {sum(p.numel() for p in parameters):,} "
        "parameters learn"
    )
