"""Training as it runs here, against a loop of the bare steps and against itself without loader."""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from itertools import cycle
from typing import Any

import lightning as L
import torch

from res2net.bench.ceilings import synchronise
from res2net.bench.machine import machine
from res2net.config.load import to_dict
from res2net.config.schema import Config
from res2net.errors import InputError
from res2net.models.head import Res2NetClassifier
from res2net.training.classifier import Batch, ImageClassifier
from res2net.training.optim.optimizers import build_optimizer
from res2net.training.run import train

MODES = ("bare", "synthetic", "fed")
"""A loop of forward, loss, backward and optimizer; the Trainer with all callbacks, given the same
batch again and again; the same fed by the loader."""

_WARM = 3
"""Steps of a block before its clock starts: queues fill, and one batch was fetched ahead."""


def compare_loops(
    config: Config,
    *,
    rounds: int = 7,
    steps: int = 10,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Steps of each mode in turn, in blocks, in one run that leaves nothing behind.

    Args:
        rounds: blocks of each mode.
        steps: of each block, timed.
        progress: is called after each block.

    Raises:
        InputError: as `training.run.train`, or there is more than one process.
        WorkError: as `training.run.train`.
    """
    if (config.trainer.devices, config.trainer.num_nodes) != ("1", "1"):
        raise InputError(
            "the loop is measured on one device: trainer.devices=1 trainer.num_nodes=1"
        )
    if config.trainer.accumulate != 1:
        raise InputError(f"trainer.accumulate={config.trainer.accumulate}: measured with 1 alone")
    with tempfile.TemporaryDirectory() as directory:
        inside = replace(
            config,
            run=replace(config.run, dir=directory, resume=""),
            trainer=replace(config.trainer, max_epochs=10**6),
            logging=replace(config.logging, wandb="disabled"),
        )
        turns = _Turns(inside, rounds=rounds, steps=steps, progress=progress)
        with suppress(_EnoughError):
            train(inside, watching=[turns])
    seconds = turns.seconds
    return {
        "schema": 1,
        "machine": machine(),
        "work": {"config": to_dict(config), "steps": steps, "threads": torch.get_num_threads()},
        "loops": {
            mode: {
                "seconds_per_step": statistics.median(seconds[mode]),
                "images_per_second": config.data.global_batch_size
                / statistics.median(seconds[mode]),
                "blocks": seconds[mode],
            }
            for mode in MODES
        },
        "ratios": {
            "synthetic/bare": _ratio(seconds["synthetic"], seconds["bare"]),
            "fed/synthetic": _ratio(seconds["fed"], seconds["synthetic"]),
        },
    }


def _ratio(ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """How many times as fast, within each round."""
    pairs = [other / one for one, other in zip(ours, theirs, strict=True)]
    return {"median": statistics.median(pairs), "pairs": pairs}


class _EnoughError(Exception):
    """All rounds are measured: the run need not go to its end."""


class _Turns(L.Callback):
    """Times blocks of the Trainer's steps, and between them runs those of the bare loop."""

    def __init__(
        self, config: Config, *, rounds: int, steps: int, progress: Callable[[], None]
    ) -> None:
        self.config, self.rounds, self.steps = config, rounds, steps
        self.progress = progress
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._modes = cycle(("synthetic", "fed"))
        self.mode = next(self._modes)
        self._step = 0
        self._start = 0.0
        self._bare: _BareLoop | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        loader = data.train_dataloader
        data.train_dataloader = lambda: _Switch(loader(), self)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        device = pl_module.device.type
        if self._bare is None:
            assert isinstance(pl_module, ImageClassifier)
            self._bare = _BareLoop(pl_module, self.config, batch)
        if self._step == _WARM:
            synchronise(device)
            self._start = time.perf_counter()
        if self._step == _WARM + self.steps:
            synchronise(device)
            self._took(self.mode, time.perf_counter() - self._start)
            if self.mode == "fed":
                self._took("bare", self._bare.run(self.steps))
                if len(self.seconds["bare"]) == self.rounds:
                    raise _EnoughError
            self.mode, self._step = next(self._modes), 0
        self._step += 1

    def _took(self, mode: str, seconds: float) -> None:
        self.seconds[mode].append(seconds / self.steps)
        self.progress()


class _Switch:
    """The training loader, or the first of its batches again and again."""

    def __init__(self, loader: Any, turns: _Turns) -> None:
        self.loader, self.turns = loader, turns

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        kept = None
        for _ in range(len(self)):
            if kept is None or self.turns.mode == "fed":
                kept = next(batches)
            yield kept


class _BareLoop:
    """The same network and optimizer without a Trainer, on one batch."""

    def __init__(self, classifier: ImageClassifier, config: Config, batch: Batch) -> None:
        assert classifier.learning is not None and classifier.loss is not None
        assert isinstance(classifier.model, Res2NetClassifier)
        self.device = classifier.device.type
        self.network = copy.deepcopy(classifier.model)
        if config.trainer.compile:
            self.network.compile()
        self.loss = classifier.loss
        self.optimizer = build_optimizer(
            self.network, classifier.learning.optim, lr=classifier.learning.lr
        )
        self.clip_norm = config.optim.clip_norm
        half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
        self.dtype = half.get(config.trainer.precision)
        self.scaler = torch.amp.GradScaler(self.device, enabled=self.dtype == torch.float16)
        self.images, self.labels = batch[0].clone(), batch[1].clone()

    def run(self, steps: int) -> float:
        """Seconds that so many steps take, after others to warm up."""
        for _ in range(_WARM):
            self._step()
        synchronise(self.device)
        start = time.perf_counter()
        for _ in range(steps):
            self._step()
        synchronise(self.device)
        return time.perf_counter() - start

    def _step(self) -> None:
        self.network.train()
        with torch.autocast(self.device, self.dtype) if self.dtype else nullcontext():
            loss = self.loss(self.network(self.images), self.labels)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if self.clip_norm:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
