"""Train: build the parts, hand them to the Trainer."""

from __future__ import annotations

from functools import partial
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from res2net.callbacks.accuracy import Accuracy
from res2net.callbacks.checkpoint import SaveCheckpoints
from res2net.callbacks.exact_resume import ExactResume
from res2net.callbacks.guard import Guard, NotFiniteError, out_of_memory
from res2net.callbacks.metrics_csv import MetricsCSV
from res2net.callbacks.pictures import Pictures
from res2net.callbacks.plots import Curves
from res2net.callbacks.predictions import Predictions
from res2net.callbacks.progress import Progress
from res2net.callbacks.quarantine import Quarantine
from res2net.callbacks.summary import Summary
from res2net.callbacks.tensorboard import TensorBoard
from res2net.callbacks.train_metrics import TrainMetrics
from res2net.callbacks.wandb import resolve_mode, wandb_logger
from res2net.config.load import to_dict
from res2net.config.schema import Config
from res2net.data.order import EvalOrder
from res2net.data.tile import tile
from res2net.errors import WorkError
from res2net.files.runs import RunDirectory, is_rank_zero, say
from res2net.training.parts import Parts, build_parts
from res2net.training.plan import Plan, make_plan
from res2net.training.start import find_start, prepare
from res2net.training.trainer import training_trainer

KEPT = "what was saved is kept: run.resume=auto goes on from there"


def train(config: Config) -> dict[str, Any]:
    """Train, or go on training, the run that `config` describes; returns its summary.

    Raises:
        InputError: something in the configuration or the data cannot be used; nothing was created.
        WorkError: the run failed on the way; its last state is kept.
    """
    plan = make_plan(config.trainer, workers=config.data.workers)
    plan.batch_size(config)
    if config.logging.wandb == "online" and is_rank_zero():
        resolve_mode("online")  # refused before anything is created
    run = RunDirectory.of(config.run.dir, config.run.name)
    start = find_start(config, run)
    if start.complete:
        say(f"already complete: {run.path}")
        return run.read_summary()

    parts = build_parts(config, plan, fresh=start.checkpoint is None)
    for message in (*parts.messages, *start.messages):
        say(message)
    if start.checkpoint is not None:
        say(f"resuming from {start.checkpoint}")
    if config.trainer.compile:
        parts.classifier.model.compile()  # in place: names in checkpoints stay as they are

    rows = MetricsCSV(run.metrics)

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
            checkpoint=config.logging.wandb_checkpoint,
        )
        trainer.loggers = [rows, *([board] if board else [])]

    callbacks, summary = _callbacks(config, plan, parts, run, rows)
    trainer = training_trainer(
        config, plan, logger=rows, callbacks=[LambdaCallback(setup=begin), *callbacks]
    )
    try:
        trainer.fit(parts.classifier, parts.data, ckpt_path=start.checkpoint, weights_only=True)
    except SIGTERMException as error:
        raise WorkError(f"stopped by SIGTERM at step {trainer.global_step}; {KEPT}") from error
    except NotFiniteError:  # resumed it would come to the same place: what it says is enough
        raise
    except (WorkError, torch.OutOfMemoryError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            error = out_of_memory(
                error,
                batch_size=plan.batch_size(config),
                accumulate=config.trainer.accumulate,
                precision=config.trainer.precision,
            )
        saved = KEPT if run.last.is_file() else "nothing was saved yet: run.resume=auto starts anew"
        raise WorkError(f"{error}; {saved}") from error
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise  # the names of its errors take seconds to import
        why = next(iter(str(error).strip().splitlines()), "")
        raise WorkError(
            f"torch.compile failed, as without a C++ compiler: {why}; nothing was trained: "
            "trainer.compile=false, with another run.name, runs without"
        ) from error
    except SystemExit as error:  # Lightning's way to end after Ctrl-C
        raise KeyboardInterrupt(f"at step {trainer.global_step}; {KEPT}") from error
    if trainer.is_global_zero:
        summary.write(trainer, "completed")
    return run.read_summary()


def _callbacks(
    config: Config, plan: Plan, parts: Parts, run: RunDirectory, rows: MetricsCSV
) -> tuple[list[L.Callback], Summary]:
    """In the order in which they are called: what is measured, what shows it, what saves it."""
    data, average, images = parts.data, parts.average, len(parts.val)
    metrics = TrainMetrics(
        every_steps=config.logging.every_steps, accumulate=config.trainer.accumulate
    )
    accuracy = Accuracy(len(parts.class_names), images=images)
    accuracies = [accuracy]
    if average is not None:
        accuracies.append(Accuracy(len(parts.class_names), images=images, averaged=True))
    guard = Guard(run, metrics, names=data.names)
    order = EvalOrder(images, config.data.eval_batch_size, world_size=plan.world_size)
    predictions = Predictions(order.in_order)
    summary = Summary(run, accuracies, global_batch_size=config.data.global_batch_size)
    callbacks = [
        *([average] if average is not None else []),
        *accuracies,
        predictions,
        metrics,
        summary,
        guard,
        Curves(run.metrics, run.plots / "curves.png"),
        Pictures(
            run,
            predictions,
            labels=parts.val.labels,
            names=parts.class_names,
            tile=partial(tile, parts.val),
        ),
        *([TensorBoard(run)] if config.logging.tensorboard else []),
        Quarantine(data.quarantine, run.quarantine),
        Progress(
            metrics,
            *accuracies,
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
            accuracies,
            summary,
            every_steps=config.checkpoint.every_steps,
            every_minutes=config.checkpoint.every_minutes,
            guard=guard,
        ),
    ]
    return callbacks, summary
