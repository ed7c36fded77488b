"""Train: build the parts, hand them to the Trainer."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from res2net.callbacks.accuracy import Accuracy
from res2net.callbacks.checkpoint import SaveCheckpoints
from res2net.callbacks.exact_resume import ExactResume
from res2net.callbacks.metrics_csv import MetricsCSV
from res2net.callbacks.plots import Curves
from res2net.callbacks.progress import Progress
from res2net.callbacks.quarantine import Quarantine
from res2net.callbacks.summary import Summary
from res2net.callbacks.train_metrics import TrainMetrics
from res2net.callbacks.wandb import resolve_mode, wandb_logger
from res2net.config.load import to_dict
from res2net.config.schema import Config
from res2net.data.sources.source import Source
from res2net.errors import InputError, WorkError
from res2net.files.runs import RunDirectory, identity, is_rank_zero, say
from res2net.models.variants import find_variant
from res2net.training.classifier import ImageClassifier
from res2net.training.data import build_data, open_data
from res2net.training.plan import make_plan
from res2net.training.start import find_start, prepare
from res2net.training.trainer import build_trainer
from res2net.weights.catalog import resolve
from res2net.weights.read import Weights, apply_weights, read_weights
from res2net.zoo import create_model

KEPT = "what was saved is kept: run.resume=auto goes on from there"


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
    model = create_model(variant.name, num_classes=num_classes, drop_path=config.model.drop_path)
    if config.model.weights and start.checkpoint is None:
        replaced = apply_weights(model, _weights(config))
        say(replaced or f"weights: {config.model.weights}")
    for message in start.messages:
        say(message)
    if start.checkpoint is not None:
        say(f"resuming from {start.checkpoint}")

    data = build_data(config, plan, train_source, val_source)
    classifier = ImageClassifier(
        model,
        identity=identity(
            variant.name,
            num_classes=num_classes,
            class_names=_names(train_source.class_names, num_classes),
            preprocessing=data.preprocessing.to_dict(),
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

    trainer = build_trainer(
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
            Quarantine(data.quarantine, run.quarantine),
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
    try:
        trainer.fit(classifier, data, ckpt_path=start.checkpoint, weights_only=True)
    except SIGTERMException as error:
        raise WorkError(f"stopped by SIGTERM at step {trainer.global_step}; {KEPT}") from error
    except WorkError as error:
        saved = KEPT if run.last.is_file() else "nothing was saved yet: run.resume=auto starts anew"
        raise WorkError(f"{error}; {saved}") from error
    except SystemExit as error:  # Lightning's way to end after Ctrl-C
        raise KeyboardInterrupt(f"at step {trainer.global_step}; {KEPT}") from error
    if trainer.is_global_zero:
        summary.write(trainer, "completed")
    return run.read_summary()


def _names(classes: tuple[str, ...], outputs: int) -> list[str]:
    """A name for each output; those that the data do not use are called by their number."""
    return [*classes, *map(str, range(len(classes), outputs))]


def _weights(config: Config) -> Weights:
    """Those that a fresh run starts from; a backbone alone will do, as its head is replaced."""
    file = resolve(config.model.weights, find_variant(config.model.name).name)
    return read_weights(file, backbone_only=True)


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
