"""`plots/curves.png`: loss, accuracy and learning rate over the epochs, drawn from `metrics.csv`.

Logs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning as L

from res2net.files.place import is_any_gone
from res2net.files.runs import say
from res2net.plots.curves import draw_curves

INTERVAL = 30.0
"""Seconds between two drawings: one takes about a second, a validation may take less."""


class Curves(L.Callback):
    """Draws after validations and at the end of the fit, on rank 0."""

    def __init__(self, metrics_csv: Path, picture: Path) -> None:
        self.metrics_csv = metrics_csv
        self.picture = picture
        self._drawn_at = time.monotonic()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit" and time.monotonic() - self._drawn_at > INTERVAL:
            self._draw(trainer)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._draw(trainer)

    def _draw(self, trainer: L.Trainer) -> None:
        if not trainer.is_global_zero:
            return
        with not_worth_a_run(f"{self.picture} was not drawn"):
            draw_curves(self.metrics_csv, self.picture)
        self._drawn_at = time.monotonic()


@contextmanager
def not_worth_a_run(failure: str) -> Iterator[None]:
    """Say in one line what went wrong: a full disk or a broken font must not end a run of days."""
    try:
        yield
    except Exception as error:
        if not is_any_gone():  # which ends the run, with a line of its own
            say(f"{failure}: {' '.join(str(error).split()) or type(error).__name__}")
