"""Learning rate as a pure function of the optimizer step."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from res2net.config.schema_learning import ScheduleConfig
from res2net.errors import InputError


def lr_factor(
    step: int, schedule: ScheduleConfig, *, steps_per_epoch: int, max_epochs: int
) -> float:
    """What the peak learning rate is multiplied by at `step` (0 is the first).

    1. Below `warmup_epochs`: a line from `warmup_start` to 1; for `one_cycle` half a cosine.
    2. `cosine`, `one_cycle`: half a cosine over the steps that are left, from 1 to `end_factor`,
       which the step after the last would have. `linear`: a line.
    3. `step`: `gamma` to the power of the drops so far, at `milestones` or one every `step_epochs`
       from the start of the run (paper, section 4.2: a tenth every 30 epochs).
    4. `constant`: 1.

    With `by: epoch` all steps of an epoch have the factor of its first.
    """
    if schedule.by == "epoch":
        step -= step % steps_per_epoch
    warmup_steps = round(schedule.warmup_epochs * steps_per_epoch)
    if step < warmup_steps:
        done = step / warmup_steps
        if schedule.name == "one_cycle":
            return _cosine(schedule.warmup_start, 1.0, done)
        return schedule.warmup_start + (1 - schedule.warmup_start) * done
    left = max_epochs * steps_per_epoch - warmup_steps
    # LambdaLR asks for one more after the last step, and a run may be shortened
    done = min(1.0, (step - warmup_steps) / left) if left > 0 else 1.0
    match schedule.name:
        case "cosine" | "one_cycle":
            return _cosine(1.0, schedule.end_factor, done)
        case "linear":
            return 1 + (schedule.end_factor - 1) * done
        case "step":
            return schedule.gamma ** _drops(step, schedule, steps_per_epoch)
        case "constant":
            return 1.0


@dataclass(frozen=True)
class Rates(Sequence[float]):
    """The learning rate of every step of a run, each reckoned when it is asked for.

    Nothing here takes longer for a longer run: do not walk over it.

    Args:
        peak: What `lr_factor` multiplies.
    """

    peak: float
    schedule: ScheduleConfig
    steps_per_epoch: int
    max_epochs: int

    def __len__(self) -> int:
        return self.steps_per_epoch * self.max_epochs

    @overload
    def __getitem__(self, index: int) -> float: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[float]: ...
    def __getitem__(self, index: int | slice) -> float | Sequence[float]:
        if isinstance(index, slice):
            return [self[step] for step in range(len(self))[index]]
        return self.peak * lr_factor(
            range(len(self))[index],
            self.schedule,
            steps_per_epoch=self.steps_per_epoch,
            max_epochs=self.max_epochs,
        )

    @property
    def highest(self) -> int:
        """The first step of the highest rate.

        Rates never fall in the warm-up and never rise after it, so that the highest is its last or
        the first after it.
        """
        warm_up = round(self.schedule.warmup_epochs * self.steps_per_epoch)
        if self.schedule.by == "epoch":  # an epoch that begins in the warm-up is all of it
            warm_up += -warm_up % self.steps_per_epoch
        warm_up = min(warm_up, len(self))
        ends = [step for step in (warm_up - 1, warm_up) if 0 <= step < len(self)]
        highest = max(ends, key=self.__getitem__)  # of equal ones the first
        if highest == warm_up:
            return highest
        return bisect_left(range(highest), self[highest], key=self.__getitem__)


def check_schedule(schedule: ScheduleConfig, *, max_epochs: int) -> None:
    """Keys of `schedule` that do not go together, or not with a run of so many epochs.

    Raises:
        InputError: one line with all problems.
    """
    problems = []
    if schedule.warmup_epochs > max_epochs:
        problems.append(
            f"schedule.warmup_epochs={schedule.warmup_epochs:g}: at most "
            f"trainer.max_epochs={max_epochs}"
        )
    if schedule.name == "one_cycle" and not schedule.warmup_epochs:
        problems.append(
            "schedule.name=one_cycle: its first part is the warm-up; give schedule.warmup_epochs, "
            "or choose cosine"
        )
    if problems:
        raise InputError("; ".join(problems))


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def _drops(step: int, schedule: ScheduleConfig, steps_per_epoch: int) -> int:
    if schedule.milestones:
        drops = [round(epoch * steps_per_epoch) for epoch in schedule.milestones]
        return bisect_right(drops, step)
    return step // max(1, round(schedule.step_epochs * steps_per_epoch))
