"""The learning rate at each step, against torch's and timm's schedulers and formulas anew."""

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from timm.scheduler import (
    CosineLRScheduler,
    MultiStepLRScheduler,
    PolyLRScheduler,
    StepLRScheduler,
)
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    SequentialLR,
    StepLR,
)

from res2net.config.schema_learning import ScheduleConfig
from res2net.errors import InputError
from res2net.training.optim.schedules import Rates, check_schedule, lr_factor

PER_EPOCH = 6


def factors(epochs: int, *, per_epoch: int = PER_EPOCH, **options: Any) -> list[float]:
    schedule = ScheduleConfig(**options)
    return [
        lr_factor(step, schedule, steps_per_epoch=per_epoch, max_epochs=epochs)
        for step in range(epochs * per_epoch)
    ]


def of_torch(scheduler_of: Callable[[torch.optim.Optimizer], Any], steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = scheduler_of(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def of_timm(scheduler: type, steps: int, **options: Any) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    timms = scheduler(optimizer, t_in_epochs=False, **options)
    found = []
    for step in range(steps):
        timms.step_update(step)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def same(ours: list[float], theirs: list[float]) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("end_factor", [0.0, 0.05])
def test_the_cosine_is_that_of_torch(end_factor: float) -> None:
    theirs = of_torch(lambda opt: CosineAnnealingLR(opt, T_max=60, eta_min=end_factor), 60)
    same(factors(10, end_factor=end_factor), theirs)


@pytest.mark.parametrize("warmup_epochs", [0.5, 2.0])
def test_the_cosine_after_a_warm_up_is_that_of_timm(warmup_epochs: float) -> None:
    warm = round(warmup_epochs * PER_EPOCH)
    theirs = of_timm(
        CosineLRScheduler,
        60,
        t_initial=60 - warm,
        lr_min=0.05,
        warmup_t=warm,
        warmup_lr_init=0.2,
        warmup_prefix=True,
    )
    ours = factors(10, end_factor=0.05, warmup_epochs=warmup_epochs, warmup_start=0.2)
    same(ours, theirs)


def test_the_line_is_that_of_torch_and_timm() -> None:
    theirs = of_torch(lambda opt: LinearLR(opt, 1.0, 0.1, total_iters=60), 60)
    same(factors(10, name="linear", end_factor=0.1), theirs)
    theirs = of_timm(
        PolyLRScheduler,
        60,
        t_initial=48,
        power=1.0,
        lr_min=0.1,
        warmup_t=12,
        warmup_lr_init=0.01,
        warmup_prefix=True,
    )
    same(factors(10, name="linear", end_factor=0.1, warmup_epochs=2.0), theirs)


def test_one_cycle_is_that_of_torch() -> None:
    # torch's phases end on a step of the run; ours where the step after the last would be
    def theirs(opt: torch.optim.Optimizer) -> OneCycleLR:
        return OneCycleLR(
            opt,
            max_lr=1.0,
            total_steps=61,
            pct_start=(18 + 1) / 61,
            div_factor=25.0,
            final_div_factor=0.02**-1 / 25,
            cycle_momentum=False,
        )

    ours = factors(10, name="one_cycle", warmup_epochs=3.0, warmup_start=1 / 25, end_factor=0.02)
    same(ours, of_torch(theirs, 60))


def test_torchvisions_preset() -> None:
    """Its references/classification: a line over 5 epochs, then a cosine, once an epoch."""

    def theirs(opt: torch.optim.Optimizer) -> SequentialLR:
        warm_up = LinearLR(opt, start_factor=0.01, total_iters=5)
        main = CosineAnnealingLR(opt, T_max=30 - 5, eta_min=0.0)
        return SequentialLR(opt, [warm_up, main], milestones=[5])

    ours = factors(30, by="epoch", warmup_epochs=5.0, warmup_start=0.01)
    same(ours, [lr for lr in of_torch(theirs, 30) for _ in range(PER_EPOCH)])


def test_the_steps_of_the_paper_come_every_30_epochs() -> None:
    theirs = of_torch(lambda opt: StepLR(opt, 30 * 7, gamma=0.1), 700)
    same(factors(100, per_epoch=7, name="step"), theirs)
    theirs = of_timm(
        StepLRScheduler, 700, decay_t=210, decay_rate=0.1, warmup_t=35, warmup_lr_init=0.01,
        warmup_prefix=False,
    )  # fmt: skip
    same(factors(100, per_epoch=7, name="step", warmup_epochs=5.0), theirs)


def test_milestones() -> None:
    theirs = of_torch(lambda opt: MultiStepLR(opt, [30, 45], gamma=0.2), 60)
    same(factors(10, name="step", milestones=(5.0, 7.5), gamma=0.2), theirs)
    # timm looks one step ahead
    theirs = of_timm(MultiStepLRScheduler, 60, decay_t=[31, 46], decay_rate=0.2)
    same(factors(10, name="step", milestones=(5.0, 7.5), gamma=0.2), theirs)


def test_constant() -> None:
    ours = factors(3, name="constant", warmup_epochs=1.0, warmup_start=0.5)
    same(ours, [0.5 + step / 12 for step in range(6)] + [1.0] * 12)


def test_the_cosine_takes_the_steps_after_the_warm_up() -> None:
    schedule = ScheduleConfig(warmup_epochs=2.0)
    run = {"steps_per_epoch": 10, "max_epochs": 5}
    ours = [lr_factor(step, schedule, **run) for step in range(50)]
    np.testing.assert_allclose(ours[:20], np.linspace(0.01, 1, 21)[:20])
    assert ours[20] == 1
    assert ours[35] == pytest.approx(0.5)
    assert ours[49] == pytest.approx((1 + math.cos(math.pi * 29 / 30)) / 2)
    assert ours[20:] == sorted(ours[20:], reverse=True) and min(ours) > 0
    # LambdaLR asks for one more after the last step, and a run may be shortened
    assert lr_factor(50, schedule, **run) == 0 == lr_factor(70, schedule, **run)


@pytest.mark.parametrize("name", ["cosine", "linear", "one_cycle"])
def test_the_end_is_end_factor(name: Any) -> None:
    schedule = ScheduleConfig(name=name, warmup_epochs=1.0, end_factor=0.3)
    for step in (60, 61, 100):
        assert lr_factor(step, schedule, steps_per_epoch=6, max_epochs=10) == pytest.approx(0.3)


def test_drops_are_counted_from_the_start_of_the_run_whatever_the_warm_up() -> None:
    ours = factors(10, per_epoch=4, name="step", warmup_epochs=1.0, step_epochs=2.5, gamma=0.5)
    assert ours[:4] == pytest.approx([0.01, 0.2575, 0.505, 0.7525])
    assert ours[4:10] == [1] * 6
    assert ours[10:20] == [0.5] * 10 and ours[20:30] == [0.25] * 10 and ours[30:] == [0.125] * 10


def test_drops_closer_than_a_step_come_at_every_step() -> None:
    assert factors(1, name="step", step_epochs=0.01, gamma=0.5) == [0.5**step for step in range(6)]


def test_the_warm_up_may_end_within_an_epoch_or_take_the_whole_run() -> None:
    half = factors(2, per_epoch=4, warmup_epochs=0.5)
    assert half[:3] == pytest.approx([0.01, 0.505, 1.0])
    whole = factors(2, per_epoch=4, warmup_epochs=2.0, end_factor=0.5)
    np.testing.assert_allclose(whole, np.linspace(0.01, 1, 9)[:8])
    schedule = ScheduleConfig(warmup_epochs=2.0, end_factor=0.5)
    assert lr_factor(8, schedule, steps_per_epoch=4, max_epochs=2) == 0.5


@pytest.mark.parametrize("name", ["cosine", "step", "linear", "one_cycle", "constant"])
def test_by_epoch_all_steps_are_as_the_first(name: Any) -> None:
    options = {"name": name, "warmup_epochs": 2.0, "step_epochs": 3.0, "end_factor": 0.1}
    by_step = factors(10, **options)
    by_epoch = factors(10, by="epoch", **options)
    assert by_epoch == [by_step[step // PER_EPOCH * PER_EPOCH] for step in range(60)]


@pytest.mark.parametrize(
    "schedule",
    [
        ScheduleConfig(warmup_epochs=10),
        ScheduleConfig(name="one_cycle", warmup_epochs=0.5),
        ScheduleConfig(name="step", milestones=(3, 9.5)),
        ScheduleConfig(name="step", milestones=(5, 30)),  # a run may be shortened
    ],
)
def test_what_goes_together(schedule: ScheduleConfig) -> None:
    check_schedule(schedule, max_epochs=10)


def test_what_does_not_go_together() -> None:
    with pytest.raises(InputError) as caught:
        check_schedule(ScheduleConfig(warmup_epochs=10.5), max_epochs=10)
    assert str(caught.value) == "schedule.warmup_epochs=10.5: at most trainer.max_epochs=10"
    with pytest.raises(InputError, match=r"give schedule\.warmup_epochs, or choose cosine"):
        check_schedule(ScheduleConfig(name="one_cycle"), max_epochs=10)


def test_rates_are_those_of_each_step_and_their_highest_is_found_without_walking() -> None:
    draw = random.Random(0)
    for _ in range(400):
        epochs, per_epoch = draw.randint(1, 6), draw.randint(1, 7)
        schedule = ScheduleConfig(
            name=draw.choice(["cosine", "step", "linear", "one_cycle", "constant"]),
            by=draw.choice(["step", "epoch"]),
            warmup_epochs=draw.choice([0.0, 0.3, 1.0, 2.5, float(epochs)]),
            warmup_start=draw.choice([0.0, 0.01, 1.0]),
            end_factor=draw.choice([0.0, 0.1, 1.0]),
            step_epochs=draw.choice([0.01, 0.5, 2.0]),
            milestones=draw.choice([(), (0.5, 1.0), (1.5, 2.0, 9.0)]),
            gamma=draw.choice([0.1, 1.0]),
        )
        rates = Rates(0.5, schedule, per_epoch, epochs)
        every = [0.5 * factor for factor in factors(epochs, per_epoch=per_epoch, **vars(schedule))]
        assert [rates[step] for step in range(len(rates))] == every == rates[:]
        assert rates[-1] == every[-1]
        assert rates.highest == every.index(max(every)), schedule
    with pytest.raises(IndexError):
        rates[len(rates)]


@pytest.mark.parametrize("schedule", [
    ScheduleConfig(warmup_epochs=1e6, name="one_cycle"),
    ScheduleConfig(warmup_epochs=3e5),
    ScheduleConfig(name="step", step_epochs=0.001, warmup_epochs=1e6, by="epoch"),
])  # fmt: skip
def test_the_longest_run_takes_no_longer(
    schedule: ScheduleConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def counted(step: int, *arguments: Any, **options: Any) -> float:
        asked.append(step)
        return lr_factor(step, *arguments, **options)

    monkeypatch.setattr("res2net.training.optim.schedules.lr_factor", counted)
    rates = Rates(0.1, schedule, 2**20, 1_000_000)
    assert 0 <= rates.highest < len(rates) == 2**20 * 1_000_000
    assert math.isfinite(rates[0] + rates[-1])
    assert len(asked) < 100
