"""`plots/curves.png`: loss, accuracy and learning rate over the epochs, drawn from `metrics.csv`.

Logs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning as L

from res2net.errors import WorkError
from res2net.files.place import is_any_gone
from res2net.files.runs import say
from res2net.files.trouble import reason
from res2net.plots.curves import draw_curves

INTERVAL = 30.0
"""Seconds between two drawings: one takes about a second, a validation may take less."""


class Drawing:
    """Draws the pictures of a run, and knows which of them the disk did not take."""

    def __init__(self) -> None:
        self._lacking: dict[Path, str] = {}

    @contextmanager
    def attempt(self, picture: Path) -> Iterator[None]:
        """Say in one line what went wrong: a full disk must not end a run of days.

        Of a picture that still is not taken nothing is said again.
        """
        with not_worth_a_run(f"{picture} was not drawn"):
            try:
                yield
            except OSError as error:
                told = picture in self._lacking
                self._lacking[picture] = reason(error)
                if not told:
                    raise
            else:
                self._lacking.pop(picture, None)

    def complete(self) -> None:
        """Call it when the run has ended. Raises WorkError where a picture is not on the disk.

        One that cannot be drawn for another reason, such as a broken font, could not be drawn the
        next time either, and is not missed.
        """
        for picture, why in self._lacking.items():
            raise WorkError(
                f"trained to the end, but cannot write {picture}: {why}; what was saved is kept: "
                "make room and finish the run with run.resume=auto"
            )


class Curves(L.Callback):
    """Draws after validations and at the end of the fit, on rank 0."""

    def __init__(self, metrics_csv: Path, picture: Path, drawing: Drawing) -> None:
        self.drawing = drawing
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
        with self.drawing.attempt(self.picture):
            draw_curves(self.metrics_csv, self.picture)
        self._drawn_at = time.monotonic()


@contextmanager
def not_worth_a_run(failure: str) -> Iterator[None]:
    """Say in one line what went wrong: a broken font must not end a run of days."""
    try:
        yield
    except Exception as error:
        if not is_any_gone():  # which ends the run, with a line of its own
            say(f"{failure}: {' '.join(str(error).split()) or type(error).__name__}")
