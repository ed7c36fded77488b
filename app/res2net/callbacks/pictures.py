"""Pictures at the end of a run, of its last validation: `plots/confusion.png`, `per_class.png`,
`worst.png` and `throughput.png`; W&B gets them, too.

Logs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import lightning as L
import numpy as np
from PIL import Image

from res2net.callbacks.mistake import MISTAKES, Mistake
from res2net.callbacks.plots import Drawing, not_worth_a_run
from res2net.callbacks.predictions import NONE, Predictions
from res2net.callbacks.wandb import Wandb
from res2net.files.runs import RunDirectory, say
from res2net.imagenet import readable
from res2net.plots.confusion import count_confusions, draw_confusion
from res2net.plots.per_class import draw_per_class
from res2net.plots.throughput import draw_throughput
from res2net.plots.tiles import COLUMNS, ROWS, draw_tiles

MATRIX = 2_000
"""Of more classes no confusion matrix is drawn: it has no pixel for each, and takes gigabytes."""


class Pictures(L.Callback):
    """Draws at the end of a fit, on rank 0.

    Stands after `Curves` and `predictions` in the list of callbacks: it passes all of `plots/` to
    W&B.
    """

    def __init__(
        self,
        run: RunDirectory,
        predictions: Predictions,
        drawing: Drawing,
        *,
        labels: np.ndarray,
        names: Sequence[str],
        tile: Callable[[int], Image.Image],
    ) -> None:
        """
        Args:
            run: where to.
            predictions: of the validation data; it must be among the callbacks itself.
            drawing: knows what the disk did not take.
            labels: int64 (images,), of the validation data.
            names: of the network's outputs.
            tile: Index of a validation image -> RGB of `plots.tiles.SIDE` pixels (`data.tile`).
        """
        self.run = run
        self.predictions = predictions
        self.drawing = drawing
        self.labels = labels
        self.names = readable(names)
        self.tile = tile

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        board = next((logger for logger in trainer.loggers if isinstance(logger, Wandb)), None)
        mistakes: list[Mistake] = []
        throughput = self.run.plots / "throughput.png"
        with self.drawing.attempt(throughput):
            draw_throughput(self.run.metrics, throughput)
        if len(self.predictions.classes) == len(self.labels):
            mistakes = self._draw_validation(MISTAKES if board else COLUMNS * ROWS)
        else:  # resumed after its last validation from a state of version 0.1.0
            say(f"{self.run.plots}: no pictures of the last validation, which the state lacks")
        if board is not None:
            board.log_end(self.run.plots, mistakes, step=trainer.global_step)

    def _draw_validation(self, most: int) -> list[Mistake]:
        """Draw what the last validation said; return at most so many of the worst images."""
        plots, title = self.run.plots, f"{self.run.path.name}, last validation"
        seen = self.predictions.classes[:, 0] != NONE
        labels, predicted = self.labels[seen], self.predictions.classes[seen, 0]
        with self.drawing.attempt(plots / "per_class.png"):
            count = len(self.names)
            right = np.bincount(labels[labels == predicted], minlength=count)
            images = np.bincount(labels, minlength=count)
            draw_per_class(right, images, self.names, plots / "per_class.png", title)
        if len(self.names) <= MATRIX:
            with self.drawing.attempt(plots / "confusion.png"):
                matrix = count_confusions(labels, predicted, len(self.names))
                draw_confusion(matrix, self.names, plots / "confusion.png", title)
        mistakes: list[Mistake] = []
        # an image that Pillow cannot read is no fault of the disk that takes the pictures
        with not_worth_a_run(f"{plots / 'worst.png'} was not drawn"):
            worst = self._worst(seen)
            mistakes = [self._mistake(index) for index in worst[:most].tolist()]
            self._draw_worst(mistakes[: COLUMNS * ROWS], len(worst), title)
        return mistakes

    def _draw_worst(self, shown: Sequence[Mistake], count: int, title: str) -> None:
        tiles = [
            (found.image, (found.true, f"{found.probability:.0%} {found.predicted}"))
            for found in shown
        ]
        note = (
            f"{len(tiles):,} of {count:,} mistakes, the highest losses first: the class, and what "
            "it was taken for"
        )
        note = note if tiles else "no mistakes"
        with self.drawing.attempt(self.run.plots / "worst.png"):
            draw_tiles(tiles, self.run.plots / "worst.png", title=title, note=note)

    def _worst(self, seen: np.ndarray) -> np.ndarray:
        """Indices of all misclassified images, the highest loss first; NaN counts as highest."""
        wrong = np.flatnonzero(seen & (self.predictions.classes[:, 0] != self.labels))
        losses = np.nan_to_num(self.predictions.losses[wrong], nan=np.inf)
        return wrong[np.argsort(-losses, kind="stable")]

    def _mistake(self, index: int) -> Mistake:
        return Mistake(
            index,
            image=self.tile(index),
            true=self.names[self.labels[index]],
            predicted=self.names[self.predictions.classes[index, 0]],
            probability=float(self.predictions.probabilities[index]),
            loss=float(self.predictions.losses[index]),
        )
