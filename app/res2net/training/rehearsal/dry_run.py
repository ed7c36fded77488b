"""`res2net train --dry-run`: all that a run of days needs, tried in seconds."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch

from res2net.config.schema import Config
from res2net.data.datamodule import ImageDataModule
from res2net.errors import Problems, WorkError
from res2net.files.runs import RunDirectory, is_sound
from res2net.models.head import Res2NetClassifier
from res2net.training.classifier import ImageClassifier
from res2net.training.data import build_data
from res2net.training.failure import failure_of
from res2net.training.logs import check_logs
from res2net.training.parts import Parts, build_parts
from res2net.training.plan import Plan, make_plan
from res2net.training.rehearsal.plot_schedule import rates_of
from res2net.training.start import find_start
from res2net.training.trainer import training_trainer
from res2net.weights.read import apply_weights, read_weights

STEPS = 3
"""Real optimizer steps; the first is not timed."""
CPU_IMAGES = 8
"""At most so many images a step where there is no GPU; time and memory are scaled up."""
KEPT = 3
"""Checkpoints that a run keeps: last, previous, best."""


@dataclass(frozen=True)
class DryRun:
    """What the run will be. Bytes, seconds and hours are of one device; see `lines`."""

    run: str
    starts: str
    model: str
    parameters: int
    learning_parameters: int
    classes: int
    train_images: int
    val_images: int
    samples_per_epoch: int
    steps_per_epoch: int
    steps: int
    global_batch_size: int
    devices: int
    num_nodes: int
    accumulate: int
    batch_per_device: int
    lr_first: float
    lr_peak: float
    lr_last: float
    checkpoint_bytes: int
    kept_bytes: int
    accelerator: str
    measured_batch: int
    step_seconds: float
    memory_bytes: int
    hours: float
    messages: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        cut = f"{self.devices} devices x {self.num_nodes} nodes x {self.accumulate} accumulated"
        some = self.learning_parameters != self.parameters
        learning = f", {self.learning_parameters:,} of them learn" if some else ""
        scaled = self.measured_batch != self.batch_per_device
        images = "1 image" if self.measured_batch == 1 else f"{self.measured_batch} images"
        how = f"measured with {images} on one {self.accelerator.upper()}"
        how += f", scaled to {self.batch_per_device}" if scaled else ""
        return [
            *self.messages,
            f"run          {self.run} ({self.starts})",
            f"network      {self.model}, {self.parameters:,} parameters{learning}",
            f"data         {self.train_images:,} training and {self.val_images:,} validation "
            f"images of {self.classes} classes",
            f"epoch        {self.samples_per_epoch:,} samples, {self.steps_per_epoch:,} steps; "
            f"{self.steps:,} steps in all",
            f"batch        {self.global_batch_size:,} = {self.batch_per_device} per device x {cut}",
            f"lr           {self.lr_first:.3g} at first, {self.lr_peak:.3g} at its peak, "
            f"{self.lr_last:.3g} at last",
            f"checkpoints  {_size(self.checkpoint_bytes)} each, {_size(self.kept_bytes)} kept "
            f"({KEPT} files)",
            f"memory       about {_size(self.memory_bytes)} per device, {how}",
            f"time         about {_time(self.hours)} of training, {self.step_seconds:.3g} s "
            f"a step, {how}; validations and waiting for others come on top",
        ]


def dry_run(config: Config, *, devices: int | None, num_nodes: int | None) -> DryRun:
    """Open everything, train some steps on one device of this machine, save, load, and reckon.

    Args:
        devices: per node, that the run will have; None: as it would start here.
        num_nodes: likewise.

    Raises:
        InputError: all problems that were found.
        WorkError: as `training.run.train`.
    """
    problems = Problems()
    attempt = problems.attempt
    here = replace(config.trainer, devices="1", num_nodes="1")
    plan = attempt(lambda: make_plan(here, workers=config.data.workers))
    asked = attempt(lambda: _asked(config, devices, num_nodes))
    planned = None
    if plan is not None:
        planned = replace(plan, devices=asked[0], num_nodes=asked[1]) if asked else plan
        attempt(lambda: planned.batch_size(config))
    attempt(lambda: check_logs(config.logging))
    run = RunDirectory.of(config.run.dir, config.run.name)
    start = attempt(lambda: find_start(config, run))
    parts = None
    if planned is not None:
        # of the run as it will be: only the steps that are tried are of one device
        fresh = start is None or (start.checkpoint is None and not start.complete)
        parts = attempt(
            lambda: build_parts(config, planned, fresh=fresh, kind=_Measured, stage=False)
        )
    problems.tell()
    assert plan and planned and start is not None and parts
    starts = "is complete" if start.complete else "a new run"
    if start.checkpoint is not None:
        starts = f"goes on from {start.checkpoint.name}"
    try:
        return _rehearse(config, plan, planned, parts, f"{run.path}", starts)
    except (RuntimeError, MemoryError) as error:
        failure = failure_of(error, tried_config(config, plan, planned), plan)
        if failure is None:
            raise
        raise WorkError(f"--dry-run: {failure}", of_all_ranks=failure.of_all_ranks) from error


class _Measured(ImageClassifier):
    """Counts what is kept for the backward pass: most of the memory that training takes."""

    activations = 0

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, torch.Tensor]:
        if self.activations:
            return super().training_step(batch, batch_idx)
        own = {tensor.untyped_storage().data_ptr() for tensor in self.state_dict().values()}
        seen: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            outputs = super().training_step(batch, batch_idx)
        self.activations = sum(seen.values())
        return outputs


class _Clock(L.Callback):
    """Seconds of each optimizer step but the first."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: list[float] = []
        self._since = 0.0
        self._first = True

    def on_train_batch_start(self, *_: Any) -> None:
        self._since = self._now()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if not self._first:
            self.seconds.append(self._now() - self._since)
        self._first = False

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def _asked(config: Config, devices: int | None, num_nodes: int | None) -> tuple[int, int]:
    """Devices per node and nodes of the run to come."""
    if devices is not None and num_nodes is not None:
        return devices, num_nodes
    plan = make_plan(config.trainer, workers=config.data.workers)
    return devices or plan.devices, num_nodes or plan.num_nodes


def tried_config(config: Config, plan: Plan, planned: Plan) -> Config:
    """The same run on one device, with the batch that a device will have, or a part of it.

    What can go wrong by the shape of a batch goes wrong alike: one image stays one image, and
    images have the largest size that they grow to (the smallest is `check_batch_norm`'s matter).
    """
    batch = planned.batch_size(config)
    if plan.accelerator == "cpu":
        batch = min(batch, CPU_IMAGES)
    if config.trainer.sync_batchnorm and planned.world_size > 1:
        batch = max(2, batch)  # batch norm sees those of the other devices, too
    return replace(
        config,
        data=replace(config.data, global_batch_size=batch),
        augment=replace(config.augment, start_size=0, grow_from=0.0, grow_until=0.0),
        trainer=replace(config.trainer, devices="1", num_nodes="1", accumulate=1),
    )


def _rehearse(
    config: Config, plan: Plan, planned: Plan, parts: Parts, run: str, starts: str
) -> DryRun:
    model = parts.classifier.model
    assert isinstance(model, Res2NetClassifier)
    tried = tried_config(config, plan, planned)
    images = build_data(tried, plan, parts.train, parts.val)
    if config.trainer.compile:
        model.compile()
    clock = _Clock(torch.device(plan.accelerator))
    if plan.accelerator == "cuda":
        torch.cuda.reset_peak_memory_stats()
    average = [parts.average] if parts.average is not None else []
    with tempfile.TemporaryDirectory() as directory:
        trainer = training_trainer(
            tried,
            plan,
            callbacks=[clock, *average],
            logger=False,
            enable_checkpointing=False,
            default_root_dir=directory,
            max_steps=STEPS,
            max_epochs=-1,  # an epoch may have one step
            limit_val_batches=1,
            check_val_every_n_epoch=10**9,  # the steps are timed without it
        )
        trainer.fit(parts.classifier, images)
        file = Path(directory) / "last.ckpt"
        trainer.save_checkpoint(file, weights_only=False)
        assert is_sound(file)
        apply_weights(model, read_weights(file, backbone_only=True))
        checkpoint_bytes = file.stat().st_size
        trainer.validate(parts.classifier, images, verbose=False)

    planned_rates = rates_of(config, parts.data.steps_per_epoch)
    rates = planned_rates.rates
    batch = planned.batch_size(config)
    share = batch / tried.data.global_batch_size
    parameters = sum(p.numel() for p in model.parameters())
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if plan.accelerator == "cuda":
        memory = int(torch.cuda.max_memory_allocated() * max(1.0, share))
    else:
        assert isinstance(parts.classifier, _Measured)
        # weights and optimizer are what a checkpoint holds, gradients as many numbers as learn
        memory = checkpoint_bytes + 4 * learning + int(parts.classifier.activations * share)
    seconds = min(clock.seconds) * share * config.trainer.accumulate
    seconds *= _pixels(parts.data, config.trainer.max_epochs)
    steps = len(rates)
    return DryRun(
        run=run,
        starts=starts,
        model=config.model.name,
        parameters=parameters,
        learning_parameters=learning,
        classes=len(parts.class_names),
        train_images=len(parts.train),
        val_images=len(parts.val),
        samples_per_epoch=rates.steps_per_epoch * config.data.global_batch_size,
        steps_per_epoch=rates.steps_per_epoch,
        steps=steps,
        global_batch_size=config.data.global_batch_size,
        devices=planned.devices,
        num_nodes=planned.num_nodes,
        accumulate=config.trainer.accumulate,
        batch_per_device=batch,
        lr_first=rates[0],
        lr_peak=rates[rates.highest],
        lr_last=rates[-1],
        checkpoint_bytes=checkpoint_bytes,
        kept_bytes=KEPT * checkpoint_bytes,
        accelerator=plan.accelerator,
        measured_batch=tried.data.global_batch_size,
        step_seconds=seconds,
        memory_bytes=memory,
        hours=seconds * steps / 3600,
        messages=(*parts.messages, *filter(None, [planned_rates.announcement])),
    )


def _pixels(data: ImageDataModule, epochs: int) -> float:
    """The mean share of the pixels of the largest images that training images have, while they
    grow: as many epochs as are looked at whatever their number."""
    size, looked_at = data.train_image_size, min(epochs, 100)
    sizes = (
        data.augmentation.size(index * epochs // looked_at, size) for index in range(looked_at)
    )
    return sum((grown / size) ** 2 for grown in sizes) / looked_at


def _time(hours: float) -> str:
    if hours < 0.02:
        return f"{3600 * hours:.2g} seconds"
    return f"{60 * hours:.2g} minutes" if hours < 1.5 else f"{hours:.3g} hours"


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
