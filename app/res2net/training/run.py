"""Train: build the parts, hand them to the Trainer."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from functools import partial
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import LambdaCallback

from res2net.callbacks.accuracy import Accuracy
from res2net.callbacks.checkpoint import RunLostError, SaveCheckpoints
from res2net.callbacks.exact_resume import ExactResume, gather
from res2net.callbacks.guard import Guard, NotFiniteError
from res2net.callbacks.metrics_csv import MetricsCSV
from res2net.callbacks.pictures import Pictures
from res2net.callbacks.plots import Curves, Drawing
from res2net.callbacks.predictions import Predictions
from res2net.callbacks.progress import Progress
from res2net.callbacks.quarantine import Quarantine
from res2net.callbacks.requeue import requeue
from res2net.callbacks.summary import Summary
from res2net.callbacks.tensorboard import TensorBoard
from res2net.callbacks.train_metrics import TrainMetrics
from res2net.callbacks.wandb import wandb_logger
from res2net.callbacks.watchdog import Watchdog
from res2net.config.load import to_dict
from res2net.config.schema import Config
from res2net.data.datamodule import ImageDataModule
from res2net.data.order import EvalOrder
from res2net.data.tile import tile
from res2net.errors import InputError, Stopped, WorkError
from res2net.files.lock import Lock
from res2net.files.runs import RunDirectory, is_rank_zero, say
from res2net.memory import keep_freed_memory
from res2net.stopping import before_leaving, received
from res2net.training.failure import RankLostError, failure_of
from res2net.training.images import check_ranks, keep_undecodable, recognise
from res2net.training.logs import check_logs
from res2net.training.parts import Parts, build_parts
from res2net.training.plan import Plan, make_plan
from res2net.training.ranks import launcher_of
from res2net.training.start import Start, claim, find_start, remove_dead_lock
from res2net.training.trainer import training_trainer

KEPT = "what was saved is kept: run.resume=auto goes on from there"
NOTHING = "nothing was saved yet: run.resume=auto starts anew"


NAMED_WITHIN = 3.0
"""Seconds that a rank whose connections have closed may take to end."""


def train(config: Config, *, watching: Sequence[L.Callback] = ()) -> dict[str, Any]:
    """Train, or go on training, the run that `config` describes; returns its summary.

    Args:
        watching: callbacks beside those of a run; they are called after these.

    Raises:
        InputError: something in the configuration or the data cannot be used; nothing was created.
        WorkError: the run failed on the way; its last state is kept.
        Stopped: a signal asked for it; its state is saved and, under SLURM, the job requeued.
    """
    plan = make_plan(config.trainer, workers=config.data.workers)
    plan.batch_size(config)
    if plan.accelerator == "cpu":
        keep_freed_memory()
    check_logs(config.logging)
    run = RunDirectory.of(config.run.dir, config.run.name)
    start = find_start(config, run)
    if start.complete:
        for message in (f"already complete: {run.path}", *start.messages):
            say(message)
        if is_rank_zero():
            remove_dead_lock(run)
        return run.read_summary()

    parts = build_parts(config, plan, fresh=start.checkpoint is None)
    for message in (*parts.messages, *start.messages):
        say(message)
    if start.checkpoint is not None:
        say(f"resuming from {start.checkpoint}")
    if config.trainer.compile:
        parts.classifier.model.compile()  # in place: names in checkpoints stay as they are

    rows = MetricsCSV(run.metrics)
    lock = Lock(run.lock)
    before_leaving(lock.release)

    def begin(trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Change the first files. All ranks have met by now, so each has found its start."""
        _claim_together(config, run, start, lock, parts.data)
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

    def leave(again: bool) -> None:
        lock.release()
        if again:
            say(requeue() or _kept(run))

    drawing = Drawing()
    callbacks, summary = _callbacks(config, plan, parts, run, rows, drawing, lock)
    trainer = training_trainer(
        config,
        plan,
        logger=rows,
        callbacks=[
            LambdaCallback(setup=begin),
            Watchdog(run, minutes=config.trainer.stall_minutes, leave=leave),
            *callbacks,
            *watching,
        ],
    )
    if launcher := launcher_of(trainer):
        launcher.on_loss = lock.release
    try:
        _fit(trainer, parts, start, config, plan, run)
        # the last word, when all else is on the disk: until then the end is done again
        rows.complete()
        drawing.complete()
        if trainer.is_global_zero:
            summary.write(trainer, "completed")
        if launcher:
            launcher.join()
        return run.read_summary()  # while nobody else can go on with the run
    except Stopped as stopped:
        lock.release()  # the job that is requeued may start at once
        became = requeue() if stopped.number != signal.SIGINT and is_rank_zero() else ""
        raise Stopped(f"{stopped}; {became or _kept(run)}", number=stopped.number) from stopped
    finally:
        lock.release()


def _fit(
    trainer: L.Trainer, parts: Parts, start: Start, config: Config, plan: Plan, run: RunDirectory
) -> None:
    """Train to the end. Raises what `train` does, each error with what is kept."""
    try:
        trainer.fit(parts.classifier, parts.data, ckpt_path=start.checkpoint, weights_only=True)
    except (NotFiniteError, RunLostError):  # they say by themselves what is kept and what to do
        raise
    except (RuntimeError, MemoryError) as error:
        keep_undecodable(parts.data, run)
        failure = failure_of(error, config, plan)
        if failure is None:
            raise
        if isinstance(failure, RankLostError):
            if number := received():  # the other rank heard it earlier, or was killed with it
                name = signal.Signals(number).name
                at = f"by {name} at step {trainer.global_step}, as {failure}"
                raise Stopped(at, number=number) from error
            launcher = launcher_of(trainer)
            if launcher and (loss := launcher.loss(NAMED_WITHIN)):
                failure = RankLostError(loss, of_all_ranks=True)
        raise WorkError(f"{failure}; {_kept(run)}", of_all_ranks=failure.of_all_ranks) from error
    except SystemExit as error:  # Lightning's way to end after Ctrl-C
        raise KeyboardInterrupt(f"at step {trainer.global_step}; {_kept(run)}") from error


def _kept(run: RunDirectory) -> str:
    return KEPT if run.last.is_file() else NOTHING


def _claim_together(
    config: Config, run: RunDirectory, start: Start, lock: Lock, data: ImageDataModule
) -> None:
    """Rank 0 looks at the images and takes the run directory, or all ranks say why not.

    Raises:
        InputError: on all ranks alike, or the others would wait for the one that fails.
    """
    starts = gather(str(start.checkpoint))
    if len(set(starts)) > 1:
        raise InputError(
            f"ranks see different files in {run.path} (to start from: {', '.join(set(starts))}): "
            "the file system lags; start once more"
        )
    check_ranks(data, config.data.root)
    problem = ""
    if is_rank_zero():
        try:
            for line in recognise(data, start.checkpoint, run):
                say(line)
            claim(config, run, start, lock)
        except InputError as error:
            problem = str(error)
    problem, *_ = gather(problem)
    if problem:
        raise InputError(problem)


def _callbacks(
    config: Config,
    plan: Plan,
    parts: Parts,
    run: RunDirectory,
    rows: MetricsCSV,
    drawing: Drawing,
    lock: Lock,
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
    order = EvalOrder(images, data.eval_batch_size, world_size=plan.world_size)
    predictions = Predictions(order.in_order)
    summary = Summary(run, accuracies, global_batch_size=config.data.global_batch_size)
    callbacks = [
        *([average] if average is not None else []),
        *accuracies,
        predictions,
        metrics,
        summary,
        guard,
        Curves(run.metrics, run.plots / "curves.png", drawing),
        Pictures(
            run,
            predictions,
            drawing,
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
            guard,
            lock,
            every_steps=config.checkpoint.every_steps,
            every_minutes=config.checkpoint.every_minutes,
            go_on=config.checkpoint.on_error == "continue",
            stall_minutes=config.trainer.stall_minutes,
        ),
    ]
    return callbacks, summary
