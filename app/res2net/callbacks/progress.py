"""How far the run is, for people, on stderr of rank 0.

Logs nothing.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning as L
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from res2net.callbacks.accuracy import Accuracy
from res2net.callbacks.train_metrics import TrainMetrics
from res2net.files.runs import say

REFRESHES_PER_SECOND = 4
"""Of the bar on a terminal."""

LINE_INTERVAL = 60.0
"""Seconds between two lines within an epoch where stderr is not a terminal."""


class Progress(L.Callback):
    """A bar for the whole run on a terminal, else a line an epoch and, in long ones, a minute.

    The bar is drawn by a thread of its own from numbers that are on the host already: it costs the
    training step nothing, and goes on while a step takes long.

    `train_metrics` must stand before this callback in the trainer's list, so that the line of an
    epoch shows the mean loss of that epoch.
    """

    def __init__(
        self,
        train_metrics: TrainMetrics,
        accuracy: Accuracy,
        averaged: Accuracy | None = None,
        *,
        steps_per_epoch: int,
        max_epochs: int,
    ) -> None:
        self.train_metrics = train_metrics
        self.accuracy = accuracy
        self.averaged = averaged
        self.steps_per_epoch = steps_per_epoch
        self.max_epochs = max_epochs
        self._val: dict[str, float] = {}
        self._best: float | None = None
        self._epoch = 0
        self._step = self._first_step = 0
        self._started = self._line_at = 0.0
        self._pace: Pace | None = None  # while a fit runs on rank 0
        self._live: Live | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"val": self._val, "best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._val, self._best = dict(state_dict["val"]), state_dict["best"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        self._epoch, self._step = trainer.current_epoch, trainer.global_step
        self._first_step = self._step
        self._started = self._line_at = time.monotonic()
        self._pace = Pace(self._step, self.steps_per_epoch, self.max_epochs)
        console = Console(stderr=True)
        if sys.stderr.isatty() and not console.is_dumb_terminal:
            self._live = Live(
                console=console,
                get_renderable=self._display,
                refresh_per_second=REFRESHES_PER_SECOND,
                # rich would send what is printed to stderr, and stdout may be read by a program
                redirect_stdout=sys.stdout.isatty(),
            )
            self._live.start()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._epoch = trainer.current_epoch

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self._pace is not None and trainer.global_step != self._step:
            self._step = trainer.global_step
            self._pace.step(self._step, time.monotonic())
            self._line_if_due()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._pace is not None:
            self._pace.start_validation(time.monotonic())

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._pace is not None:
            self._line_if_due()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        # on all ranks, though only one shows it: the state that is saved is then the same
        self._val = dict(self.accuracy.results)
        if "top1" in self._val:
            self._best = max(self._val["top1"], self._best or 0.0)
        if self._pace is not None:
            self._pace.end_validation(time.monotonic())

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._step == self._first_step:
            return  # resumed from after the validation: the leg before has told of it
        if self._pace is not None and self._live is None:
            loss = self.train_metrics.latest.get("epoch_loss")
            self._print_line(
                _named("train/loss", loss, "{:.4f}"),
                _named("val/top1", self._val.get("top1"), "{:.2%}"),
                _named("val/loss", self._val.get("loss"), "{:.4f}"),
                _named("val_ema/top1", self._averaged_top1(), "{:.2%}"),
            )

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._stop()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._stop()

    def _stop(self) -> None:
        """Leave the terminal as it was, the last state of the bar on it."""
        if self._live is not None:
            self._live.stop()
        self._live = self._pace = None

    def _line_if_due(self) -> None:
        if self._live is None and time.monotonic() - self._line_at >= LINE_INTERVAL:
            self._print_line(_named("train/loss", self.train_metrics.latest.get("loss"), "{:.4f}"))

    def _print_line(self, *fields: str) -> None:
        now = time.monotonic()
        latest = self.train_metrics.latest
        parts = (
            f"epoch {self._epoch + 1}/{self.max_epochs}",
            f"step {self._step}/{self._total}",
            self._stage(),
            *fields,
            _named("lr", latest.get("lr"), "{:.4g}"),
            _images_per_second(latest),
            self._time_left(now),
        )
        say("  ".join(part for part in parts if part))
        self._line_at = now

    def _display(self) -> Group:
        """What stands on the terminal: the bar, and below it the newest values."""
        now = time.monotonic()
        latest = self.train_metrics.latest
        bar = Table.grid(padding=(0, 2), expand=True)
        for ratio in (None, 1, None, None):
            bar.add_column(ratio=ratio, no_wrap=True)
        times = (duration(now - self._started), self._time_left(now))
        bar.add_row(
            f"epoch {self._epoch + 1}/{self.max_epochs}",
            ProgressBar(total=self._total, completed=self._step),
            f"step {self._step}/{self._total}",
            ", ".join(part for part in times if part),
        )
        best = f" (best {self._best:.2%})" if self._best is not None else ""
        values = (
            self._stage(),
            _named("train/loss", latest.get("loss"), "{:.4f}"),
            _named("lr", latest.get("lr"), "{:.4g}"),
            _named("val/top1", self._val.get("top1"), "{:.2%}" + best),
            _images_per_second(latest),
        )
        text = "  ".join(part for part in values if part)
        return Group(bar, Text(text, no_wrap=True, overflow="ellipsis"))

    @property
    def _total(self) -> int:
        return self.steps_per_epoch * self.max_epochs

    def _averaged_top1(self) -> float | None:
        return self.averaged.results.get("top1") if self.averaged is not None else None

    def _stage(self) -> str:
        return "validating" if self._pace is not None and self._pace.validating else ""

    def _time_left(self, now: float) -> str:
        seconds = self._pace.seconds_left(now) if self._pace is not None else None
        return f"{duration(seconds)} left" if seconds else ""


class Pace:
    """Estimates the time left from what this process has done: a resumed run may be on another
    machine.

    Seconds a step and seconds a validation are measured apart, as the steps that are left and the
    validations that are left need not stand in the proportion of those done. The first step does
    not count: it builds pipelines and picks kernels.
    """

    def __init__(self, step: int, steps_per_epoch: int, max_epochs: int) -> None:
        self._steps = self._first = step
        self._total = steps_per_epoch * max_epochs
        self._validations_left = max_epochs - step // steps_per_epoch
        self._training = 0.0  # seconds
        self._stretch: float | None = None  # since when training is not counted yet
        self._validation = 0.0  # seconds
        self._validations = 0
        self._validation_start = 0.0
        self.validating = False

    def step(self, step: int, now: float) -> None:
        """An optimizer step has ended."""
        if self._stretch is None:
            self._first = step
        else:
            self._training += now - self._stretch
        self._steps, self._stretch = step, now

    def start_validation(self, now: float) -> None:
        self.validating, self._validation_start = True, now

    def end_validation(self, now: float) -> None:
        self._validation += now - self._validation_start
        self._validations += 1
        self._validations_left -= 1
        self.validating = False
        if self._stretch is not None:
            self._stretch = now

    def seconds_left(self, now: float) -> float | None:
        """None before there is a pace to judge by."""
        steps = self._steps - self._first
        if steps == 0:
            return None
        left = (self._total - self._steps) * self._training / steps
        if self._validations:
            each = self._validation / self._validations
            left += self._validations_left * each
            if self.validating:
                left -= min(now - self._validation_start, each)
        return left


def duration(seconds: float) -> str:
    """In words, two units at most: `45 s`, `3 min 20 s`, `5 h 12 min`, `2 d 3 h`."""
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {s} s" if minutes else f"{s} s"


def _named(name: str, value: float | None, form: str) -> str:
    return "" if value is None else f"{name} {form.format(value)}"


def _images_per_second(latest: dict[str, float]) -> str:
    speed = latest.get("images_per_second")
    return "" if speed is None else f"{speed:.0f} images/s"
