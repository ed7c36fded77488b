"""`res2net train --find-lr`: a learning rate to begin with, by Lightning's range test.

Source: Smith, arXiv 1506.01186, section 3.3. The network trains while the learning rate grows from
step to step; where the loss falls fastest is a good peak. Which fall is one, and which is the
batches' noise, is decided here: the losses of small batches move by a third of the whole fall.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.tuner.tuning import Tuner

from res2net.config.schema import Config
from res2net.errors import InputError, WorkError
from res2net.files.runs import is_rank_zero, say
from res2net.plots.schedule import draw_lr_search
from res2net.training.classifier import ImageClassifier
from res2net.training.failure import failure_of
from res2net.training.parts import build_parts
from res2net.training.plan import make_plan
from res2net.training.trainer import training_trainer

LOWEST, HIGHEST = 1e-6, 10.0
STEPS = 100
_WIDTH = 3.0
"""Standard deviation in steps of the window that smooths the losses."""
_DECADE = round(STEPS / math.log10(HIGHEST / LOWEST))
"""Steps in which the learning rate grows tenfold."""
_FIRST = 10
"""Losses whose median is what the network starts with; Lightning's suggestion skips as many."""
_LEAST_FALL = 0.02
"""Share of the start by which the loss must fall, or nothing was learnt."""
_LEAST_NOISE = 2.0
"""Standard deviations of a single loss by which it must fall too. Of 3,000 flat curves with
normal noise 9 passed."""
_DIVERGED = 0.1
"""Share of the start by which the loss rises above it, noise aside, where it diverges."""


@dataclass(frozen=True)
class LrSearch:
    """What the search saw."""

    rates: list[float]
    losses: list[float]
    """At each rate, smoothed."""
    suggestion: float
    """Peak learning rate for the run's global batch; one of `rates`."""
    optim_lr: float
    """What to write for `optim.lr`: another number where `optim.lr_batch` scales it."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values; a loss that is no finite number is None."""
        losses = [loss if math.isfinite(loss) else None for loss in self.losses]
        found = {"suggestion": self.suggestion, "optim.lr": self.optim_lr}
        return {**found, "rates": self.rates, "losses": losses}


class _Searched(ImageClassifier):
    """Keeps the losses, and gives each group its share of the learning rate that is tried."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.losses: list[torch.Tensor] = []
        self.mean_losses: list[float] = []
        """Over all ranks."""

    def on_train_start(self) -> None:
        super().on_train_start()
        if not (is_rank_zero() and sys.stderr.isatty()):
            # by itself Lightning's search draws its bar into logs too, and once for each rank
            self.trainer.callbacks[0].progress_bar_refresh_rate = 0  # type: ignore[attr-defined]

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, torch.Tensor]:
        outputs = super().training_step(batch, batch_idx)
        self.losses.append(outputs["loss"].detach())
        return outputs

    def on_train_end(self) -> None:
        super().on_train_end()
        losses = self.trainer.strategy.reduce(torch.stack(self.losses).float(), reduce_op="mean")
        self.mean_losses = losses.tolist()

    def configure_optimizers(self) -> Any:
        configured = super().configure_optimizers()
        # Lightning's search sets one learning rate for all groups
        configured["optimizer"].register_step_pre_hook(_scale_up)
        configured["optimizer"].register_step_post_hook(_scale_down)
        return configured


def _scale_up(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    for group in optimizer.param_groups:
        group["lr"] *= group["lr_scale"]


def _scale_down(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    for group in optimizer.param_groups:
        group["lr"] /= group["lr_scale"]


def find_lr(config: Config, picture: Path | None = None) -> LrSearch:
    """Try learning rates on the run's own data and network; draw the losses if `picture` is given.

    At most `STEPS` optimizer steps; the weights are given up after it, and nothing is left behind.

    Raises:
        InputError: as `training.run.train`, or the run is one of several machines.
        WorkError: as there, or no loss fell.
    """
    plan = make_plan(config.trainer, workers=config.data.workers)
    plan.batch_size(config)
    if plan.num_nodes > 1:  # its temporary checkpoint is read by every rank
        raise InputError(f"--find-lr: on one machine, not on trainer.num_nodes={plan.num_nodes}")
    parts = build_parts(config, plan, kind=_Searched, stage=False)
    for message in parts.messages:
        say(message)
    classifier = parts.classifier
    assert isinstance(classifier, _Searched)
    say(f"trying learning rates from {LOWEST:g} to {HIGHEST:g}, one a step, {STEPS} steps at most")
    with tempfile.TemporaryDirectory() as directory:
        trainer = training_trainer(
            config,
            plan,
            callbacks=[],
            max_epochs=-1,
            check_val_every_n_epoch=10**9,
            logger=False,
            enable_checkpointing=False,
            default_root_dir=directory,
        )
        try:
            search = Tuner(trainer).lr_find(
                classifier,
                datamodule=parts.data,
                min_lr=LOWEST,
                max_lr=HIGHEST,
                num_training=STEPS,
                update_attr=False,
            )
        except (RuntimeError, MemoryError) as error:
            failure = failure_of(error, config, plan)
            if failure is None:
                raise
            raise WorkError(f"--find-lr: {failure}", of_all_ranks=failure.of_all_ranks) from error
        except SystemExit as error:  # Lightning's way to end after Ctrl-C
            raise KeyboardInterrupt("nothing was made") from error
    assert search is not None
    rates = search.results["lr"]
    steps = np.array(classifier.mean_losses).reshape(-1, config.trainer.accumulate).mean(axis=1)
    rates, single = rates[: len(steps)], steps[: len(rates)].tolist()
    losses, best = smooth(single), steepest(single)
    if best is None:
        raise WorkError(
            f"--find-lr: no learning rate from {LOWEST:g} to {HIGHEST:g} made the loss fall beyond "
            f"its noise within {len(rates)} steps, nothing was made; try a larger "
            "data.global_batch_size, and look at the images (--preview) and the weights",
            of_all_ranks=True,
        )
    unscaled = rates[best] * config.optim.lr / classifier.lr
    found = LrSearch(rates, losses, rates[best], unscaled)
    if picture and is_rank_zero():
        draw_lr_search(
            picture,
            title=config.run.name,
            rates=rates,
            losses=losses,
            suggestion=found.suggestion,
        )
    return found


def smooth(losses: Sequence[float]) -> list[float]:
    """Weighted means over each loss's neighbours, on both sides, so that nothing is delayed.

    Lightning's own running mean lags by some 50 steps. From the first loss that is no finite
    number on all are NaN.
    """
    values = np.array(losses, dtype=np.float64)
    broken = np.flatnonzero(~np.isfinite(values))
    end = broken[0] if len(broken) else len(values)
    places = np.arange(end)
    weights = np.exp(-(((places[:, None] - places) / _WIDTH) ** 2) / 2)
    means = weights @ values[:end] / weights.sum(axis=1)
    return [*means.tolist(), *[float("nan")] * (len(values) - end)]


def steepest(losses: Sequence[float]) -> int | None:
    """At which step single losses, at rates that grow by one factor, fall fastest for good.

    The fall goes from the median of the first losses to the lowest smoothed one before they
    diverge. Where nine tenths of it are done it is over, and the answer lies in the decade of
    rates before that end: no dip among the first losses is taken for it, and of a fall in two
    stages (first to the loss of a guess, then below) the second counts.

    Lightning's suggestion takes the steepest place of all, and divides by the differences of the
    rates themselves, which are so small among the first that their noise wins (measured: 0.00013
    for SGD and AdamW alike on the digits).

    Returns None where they do not fall beyond their noise.
    """
    values = np.array(smooth(losses))
    values = values[np.isfinite(values)]
    if len(values) <= _FIRST:
        return None
    single = np.array(losses[: len(values)])
    start, noise = np.median(single[:_FIRST]), _noise(single[: STEPS // 2])
    least = max(_LEAST_FALL * start, _LEAST_NOISE * noise)
    # it may come back below the start, with another network than the one that diverged
    has_fallen = np.minimum.accumulate(values) < start - least
    diverged = (values > (1 + _DIVERGED) * start + 3 * noise) | (has_fallen & (values > start))
    diverged[:_FIRST] = False  # one bad batch
    if diverged.any():
        values = values[: diverged.argmax()]
    if start - values.min() < least:
        return None
    share = (start - values) / (start - values.min())
    end = int((share >= 0.9).argmax())
    begin = max(end - _DECADE, 0)
    return int(begin + np.gradient(values)[begin : end + 1].argmin())


def _noise(losses: np.ndarray) -> float:
    """Standard deviation of a single loss, by the median difference of neighbours.

    A fall hardly moves it, as its steps are few or small; a network that has diverged would, by
    far more noise or by none. A normal variable's median absolute value is 0.6745 standard
    deviations; a difference has two losses.
    """
    return float(np.median(np.abs(np.diff(losses)))) / 0.6745 / math.sqrt(2)
