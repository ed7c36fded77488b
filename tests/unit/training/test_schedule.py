"""The learning rate at each step, against torch's own schedulers and formulas written anew."""

import math

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR

from res2net.training.schedule import lr_factor


def of_torch(scheduler_of: object, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = scheduler_of(optimizer)  # type: ignore[operator]
    factors = []
    for _ in range(steps):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return factors


def factors(steps: int, **options: object) -> list[float]:
    return [lr_factor(step, **options) for step in range(steps)]  # type: ignore[arg-type]


@pytest.mark.parametrize("end_factor", [0.0, 0.05])
def test_the_cosine_is_that_of_torch(end_factor: float) -> None:
    ours = factors(60, name="cosine", total_steps=60, steps_per_epoch=6, end_factor=end_factor)
    theirs = of_torch(lambda opt: CosineAnnealingLR(opt, T_max=60, eta_min=end_factor), 60)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_the_cosine_takes_the_steps_after_the_warm_up() -> None:
    options = {"name": "cosine", "total_steps": 50, "steps_per_epoch": 10, "warmup_epochs": 2.0}
    ours = factors(50, **options)
    np.testing.assert_allclose(ours[:20], np.linspace(0.01, 1, 21)[:20])
    assert ours[20] == 1
    assert ours[35] == pytest.approx(0.5)
    assert ours[49] == pytest.approx((1 + math.cos(math.pi * 29 / 30)) / 2)
    assert ours[20:] == sorted(ours[20:], reverse=True) and min(ours) > 0
    # LambdaLR asks for one more after the last step, and a run may be shortened
    assert lr_factor(50, **options) == 0 == lr_factor(70, **options)


def test_the_steps_of_the_paper_come_every_30_epochs() -> None:
    ours = factors(100 * 7, name="step", total_steps=100 * 7, steps_per_epoch=7)
    theirs = of_torch(lambda opt: MultiStepLR(opt, [30 * 7, 60 * 7, 90 * 7], gamma=0.1), 700)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_drops_are_counted_from_the_start_of_the_run_whatever_the_warm_up() -> None:
    ours = factors(
        40,
        name="step",
        total_steps=40,
        steps_per_epoch=4,
        warmup_epochs=1.0,
        step_epochs=2.5,
        gamma=0.5,
    )
    assert ours[:4] == pytest.approx([0.01, 0.2575, 0.505, 0.7525])
    assert ours[4:10] == [1] * 6
    assert ours[10:20] == [0.5] * 10 and ours[20:30] == [0.25] * 10 and ours[30:] == [0.125] * 10


def test_the_warm_up_may_end_within_an_epoch_or_take_the_whole_run() -> None:
    half = factors(8, name="cosine", total_steps=8, steps_per_epoch=4, warmup_epochs=0.5)
    assert half[:3] == pytest.approx([0.01, 0.505, 1.0])
    whole = factors(8, name="cosine", total_steps=8, steps_per_epoch=4, warmup_epochs=2.0)
    np.testing.assert_allclose(whole, np.linspace(0.01, 1, 9)[:8])
    assert lr_factor(8, name="cosine", total_steps=8, steps_per_epoch=4, warmup_epochs=2.0) == 1


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="'linear': cosine or step"):
        lr_factor(0, name="linear", total_steps=1, steps_per_epoch=1)
