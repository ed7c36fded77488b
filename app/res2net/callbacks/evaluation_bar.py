"""How far an evaluation is, for people, on stderr of rank 0 where that is a terminal.

Logs nothing.
"""

from __future__ import annotations

import sys
from typing import Any

import lightning as L
from rich.console import Console
from rich.progress import Progress


class EvaluationBar(L.Callback):
    """A bar over the batches of one pass."""

    def __init__(self) -> None:
        self._bar: Progress | None = None

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero or not sys.stderr.isatty():
            return
        # rich would send what is printed to stderr, and stdout may be read by a program
        self._bar = Progress(
            console=Console(stderr=True), redirect_stdout=sys.stdout.isatty(), transient=True
        )
        self._bar.add_task("evaluating", total=sum(map(int, trainer.num_val_batches)))
        self._bar.start()

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0])

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = None
