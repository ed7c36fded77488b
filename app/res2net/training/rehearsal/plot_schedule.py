"""`res2net train --plot-schedule`: the learning rate over the whole run, before it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from res2net.config.schema import Config
from res2net.plots.schedule import draw_schedule
from res2net.training.data import build_data, check_global_batch, open_data
from res2net.training.optim.freezing import freeze_parts, frozen_parts
from res2net.training.optim.groups import parameter_groups
from res2net.training.optim.optimizers import scaled_lr
from res2net.training.optim.schedules import Rates, check_schedule
from res2net.training.plan import make_plan
from res2net.zoo import create_model


@dataclass(frozen=True)
class PlannedRates:
    """What the schedule will do."""

    rates: Rates
    """Of each optimizer step, for the peak's scale of 1."""
    layer_scales: list[float]
    """What the layers that learn multiply them by, from the stem on, each once; without the
    head's."""
    head_scale: float
    announcement: str
    """What `optim.lr_batch` did; empty if nothing."""

    @property
    def steps_per_epoch(self) -> int:
        return self.rates.steps_per_epoch

    def to_dict(self) -> dict[str, Any]:
        """The ends as plain values."""
        peak = self.rates.highest
        return {
            "steps": len(self.rates),
            "steps_per_epoch": self.steps_per_epoch,
            "first": self.rates[0],
            "peak": self.rates[peak],
            "peak_step": peak,
            "last": self.rates[-1],
            "layer_scales": self.layer_scales,
            "head_scale": self.head_scale,
        }

    def lines(self) -> list[str]:
        """The ends, for people."""
        last, peak = len(self.rates) - 1, self.rates.highest
        ends = (
            f"lr {self.rates[0]:.3g} at the first step, {self.rates[peak]:.3g} at its peak "
            f"(step {peak}, epoch {peak / self.steps_per_epoch:.3g}), {self.rates[last]:.3g} at "
            f"the last (step {last}); {self.steps_per_epoch} steps an epoch"
        )
        scales = []
        if self.layer_scales and self.layer_scales != [1.0]:
            low, high = min(self.layer_scales), max(self.layer_scales)
            scales.append(f"the layers have {low:.3g} to {high:.3g} times as much")
        if self.head_scale != 1:
            scales.append(f"the head has {self.head_scale:.3g} times as much")
        return [line for line in (self.announcement, ends, "; ".join(scales)) if line]


def plan_rates(config: Config) -> PlannedRates:
    """The learning rate of every step of the run.

    Raises:
        InputError, WorkError: as `training.run.train`; no run is begun.
    """
    check_schedule(config.schedule, max_epochs=config.trainer.max_epochs)
    plan = make_plan(config.trainer, workers=config.data.workers)
    plan.batch_size(config)
    train, val = open_data(config.data)
    check_global_batch(config.data, train)
    return rates_of(config, build_data(config, plan, train, val).steps_per_epoch)


def rates_of(config: Config, steps_per_epoch: int) -> PlannedRates:
    """The learning rate of every step of a run with so many in an epoch."""
    lr, announcement = scaled_lr(config.optim, config.data.global_batch_size)
    rates = Rates(lr, config.schedule, steps_per_epoch, config.trainer.max_epochs)
    return PlannedRates(rates, _layer_scales(config), config.optim.head_lr, announcement)


def plot_schedule(config: Config, picture: Path) -> PlannedRates:
    """Draw the learning rate of every step of the run. Raises as `plan_rates`."""
    planned = plan_rates(config)
    head = planned.head_scale
    curves = [("", scale) for scale in planned.layer_scales if scale != head]
    if curves:
        first = curves[0][1]
        part = "backbone" if len(curves) == 1 else "first layer that learns"
        curves = [(f"{part} × {first:.3g}", first), *curves[1:], (f"head × {head:.3g}", head)]
    draw_schedule(
        picture,
        title=config.run.name,
        rates=planned.rates,
        steps_per_epoch=planned.steps_per_epoch,
        scales=curves or [("", head)],
    )
    return planned


def _layer_scales(config: Config) -> list[float]:
    with torch.device("meta"):  # shapes are enough
        model = create_model(config.model.name)
    freeze_parts(frozen_parts(model, config.optim.freeze))
    model.head.requires_grad_(False)
    groups = parameter_groups(
        model,
        lr=1.0,
        weight_decay=0.0,
        decay_norm_and_bias=True,
        layer_decay=config.optim.layer_decay,
    )
    return [group["lr_scale"] for group in groups]
