"""Train and evaluate: build the parts, hand them to the Trainer."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.strategies import DDPStrategy, Strategy

from res2net.callbacks.accuracy import Accuracy
from res2net.callbacks.checkpoint import SaveCheckpoints
from res2net.callbacks.exact_resume import ExactResume
from res2net.callbacks.metrics_csv import MetricsCSV
from res2net.callbacks.plots import Curves
from res2net.callbacks.progress import Progress
from res2net.callbacks.summary import Summary
from res2net.callbacks.train_metrics import TrainMetrics
from res2net.callbacks.wandb import resolve_mode, wandb_logger
from res2net.config.load import to_dict
from res2net.config.schema import Config, DataConfig
from res2net.data.dali import Augmentation
from res2net.data.datamodule import ImageDataModule
from res2net.data.sources import Source, open_sources
from res2net.errors import InputError
from res2net.files.runs import RunDirectory, identity, is_rank_zero, say
from res2net.models.head import Res2NetClassifier
from res2net.models.variants import find_variant
from res2net.preprocessing import Preprocessing
from res2net.training.checkpoint_io import AtomicCheckpointIO
from res2net.training.classifier import ImageClassifier
from res2net.training.plan import Plan, make_plan
from res2net.training.start import find_start, prepare
from res2net.weights.read import apply_weights, read_weights
from res2net.zoo import create_model


def train(config: Config) -> dict[str, Any]:
    """Train, or go on training, the run that `config` describes; returns its summary.

    Raises:
        InputError: something in the configuration or the data cannot be used; nothing was created.
        WorkError: the run failed on the way; its last state is kept.
    """
    variant = find_variant(config.model.name)
    plan = make_plan(config.trainer, workers=config.data.workers)
    plan.batch_size(config)
    if config.logging.wandb == "online" and is_rank_zero():
        resolve_mode("online")  # refused before anything is created
    run = RunDirectory.of(config.run.dir, config.run.name)
    start = find_start(config, run)
    if start.complete:
        say(f"already complete: {run.path}")
        return run.read_summary()

    train_source, val_source = open_data(config.data)
    num_classes = _num_classes(config, train_source)
    torch.manual_seed(config.run.seed)  # the initialisation; every rank draws the same
    model = create_model(variant.name, num_classes=num_classes)
    if config.model.weights and start.checkpoint is None:
        replaced = apply_weights(model, read_weights(config.model.weights))
        say(replaced or f"weights: {config.model.weights}")
    preprocessing = preprocessing_of(config.data)
    for message in start.messages:
        say(message)
    if start.checkpoint is not None:
        say(f"resuming from {start.checkpoint}")

    data = ImageDataModule(
        train_source,
        val_source,
        preprocessing=preprocessing,
        augmentation=Augmentation(
            crop=config.augment.crop,
            area=config.augment.area,
            ratio=config.augment.ratio,
            pad=config.augment.pad,
            flip=config.augment.flip,
        ),
        global_batch_size=config.data.global_batch_size,
        eval_batch_size=config.data.eval_batch_size,
        accumulate=config.trainer.accumulate,
        threads=plan.threads,
        seed=config.run.seed,
    )
    classifier = ImageClassifier(
        model,
        identity=identity(
            variant.name,
            num_classes=num_classes,
            class_names=train_source.class_names,
            preprocessing=preprocessing.to_dict(),
            config=to_dict(config),
        ),
        optim=config.optim,
        schedule=config.schedule,
        steps_per_epoch=data.steps_per_epoch,
        max_epochs=config.trainer.max_epochs,
        channels_last=config.trainer.channels_last,
    )
    accuracy = Accuracy(num_classes, images=len(val_source))
    metrics = TrainMetrics(
        every_steps=config.logging.every_steps, accumulate=config.trainer.accumulate
    )
    rows = MetricsCSV(run.metrics)
    summary = Summary(run, accuracy, global_batch_size=config.data.global_batch_size)

    def begin(trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Change the first files. All ranks have met by now, so each has found its start."""
        prepare(config, run)
        if start.checkpoint is None:
            rows.start()
        board = wandb_logger(
            run,
            mode=config.logging.wandb,
            project=config.logging.wandb_project,
            config=to_dict(config),
        )
        trainer.loggers = [rows, *([board] if board else [])]

    trainer = _trainer(
        plan,
        precision=config.trainer.precision,
        max_epochs=config.trainer.max_epochs,
        accumulate_grad_batches=config.trainer.accumulate,
        gradient_clip_val=config.optim.clip_norm or None,
        logger=rows,
        callbacks=[
            LambdaCallback(setup=begin),
            accuracy,
            metrics,
            summary,
            Curves(run.metrics, run.plots / "curves.png"),
            Progress(
                metrics,
                accuracy,
                steps_per_epoch=data.steps_per_epoch,
                max_epochs=config.trainer.max_epochs,
            ),
            ExactResume(
                {"data": data, "train_metrics": metrics, "metrics_csv": rows},
                seed=config.run.seed,
                image_size=config.data.image_size,
            ),
            SaveCheckpoints(
                run,
                accuracy,
                summary,
                every_steps=config.checkpoint.every_steps,
                every_minutes=config.checkpoint.every_minutes,
            ),
        ],
    )
    trainer.fit(classifier, data, ckpt_path=start.checkpoint, weights_only=True)
    if trainer.is_global_zero:
        summary.write(trainer, "completed")
    return run.read_summary()


def evaluate(
    model: Res2NetClassifier,
    source: Source,
    preprocessing: Preprocessing,
    *,
    plan: Plan,
    batch_size: int,
    precision: str = "32-true",
    channels_last: bool = True,
) -> dict[str, float]:
    """Top-1, top-5, loss (means over the images) and the number of images, each counted once."""
    accuracy = Accuracy(model.num_classes, images=len(source))
    data = ImageDataModule(
        None,
        source,
        preprocessing=preprocessing,
        eval_batch_size=batch_size,
        threads=plan.threads,
    )
    trainer = _trainer(plan, precision=precision, logger=False, callbacks=[accuracy])
    trainer.validate(
        ImageClassifier(model, channels_last=channels_last), datamodule=data, verbose=False
    )
    return accuracy.results


def open_data(
    data: DataConfig, *, class_names: tuple[str, ...] | None = None
) -> tuple[Source, Source]:
    """Training and validation images."""
    return open_sources(
        data.source,
        data.root,
        train_dir=data.train_dir,
        val_dir=data.val_dir,
        val_fraction=data.val_fraction,
        split_seed=data.split_seed,
        class_names=class_names,
    )


def preprocessing_of(data: DataConfig) -> Preprocessing:
    """The evaluation preprocessing that a configuration describes."""
    return Preprocessing(
        image_size=data.image_size,
        crop_fraction=data.crop_fraction,
        interpolation=data.interpolation,
        mean=data.mean,
        std=data.std,
    )


def _num_classes(config: Config, source: Source) -> int:
    classes, outputs = len(source.class_names), config.model.num_classes
    if outputs and outputs < classes:
        raise InputError(
            f"model.num_classes={outputs}: the data have {classes} classes; 0 takes as many"
        )
    if len(source) < config.data.global_batch_size:
        raise InputError(
            f"data.global_batch_size={config.data.global_batch_size}: there are only "
            f"{len(source)} training images"
        )
    return outputs or classes


def _trainer(
    plan: Plan, *, precision: Any, callbacks: list[L.Callback], **options: Any
) -> L.Trainer:
    _quieten()
    environments: dict[str, Callable[[], ClusterEnvironment]] = {
        "srun": lambda: SLURMEnvironment(auto_requeue=False),
        "torchrun": TorchElasticEnvironment,
        "": LightningEnvironment,
    }
    plugins: list[Any] = [AtomicCheckpointIO(), environments[plan.launcher]()]
    strategy: str | Strategy = "auto"
    if plan.world_size > 1:
        strategy = DDPStrategy(gradient_as_bucket_view=True)
    return L.Trainer(
        accelerator="gpu" if plan.accelerator == "cuda" else "cpu",
        devices=plan.devices,
        num_nodes=plan.num_nodes,
        strategy=strategy,
        precision=precision,
        plugins=plugins,
        callbacks=callbacks,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=10**9,  # callbacks log by themselves, before the state is saved
        **options,
    )


def _quieten() -> None:
    """Silence Lightning's hints that do not apply here."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # the workers are DALI's threads
        ".*dataloader is not resumable.*",  # ExactResume resumes it
        ".*smaller than the logging interval.*",  # callbacks log by themselves
        ".*`srun` command is available.*",  # one process on a login node is what was asked for
        ".*LeafSpec.* is deprecated.*",  # Lightning's own use of torch
    ):
        warnings.filterwarnings("ignore", message)
