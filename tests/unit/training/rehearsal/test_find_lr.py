"""What the search makes of the losses."""

import math

import numpy as np
import pytest

from res2net.training.rehearsal.find_lr import smooth, steepest


def test_smoothing_keeps_lines_and_delays_nothing() -> None:
    line = np.linspace(3, 1, 50)
    np.testing.assert_allclose(smooth(line.tolist())[12:-12], line[12:-12], rtol=1e-5)
    peak = [0.0] * 41
    peak[20] = 1.0
    smoothed = smooth(peak)
    assert int(np.argmax(smoothed)) == 20
    np.testing.assert_allclose(smoothed, smoothed[::-1], atol=1e-12)
    assert smoothed[23] / smoothed[20] == pytest.approx(math.exp(-0.5), rel=1e-3)


def test_from_the_first_broken_loss_on_nothing_is_known() -> None:
    smoothed = smooth([1.0] * 5 + [math.inf] + [1.0] * 4)
    assert smoothed[:5] == pytest.approx([1.0] * 5) and len(smoothed) == 10
    assert all(math.isnan(loss) for loss in smoothed[5:])


def test_the_steepest_fall_of_a_logistic_curve_is_its_middle() -> None:
    losses = [1 + 1 / (1 + math.exp((step - 40) / 4)) for step in range(80)]
    assert steepest(losses) == 40


def test_a_fall_after_it_has_diverged_does_not_count() -> None:
    learning = [2.3 - 0.5 / (1 + math.exp(20 - step)) for step in range(40)]
    losses = [*learning, 5.0, 9.0, 5.0, 2.3, math.nan]
    assert steepest(losses) == 20


@pytest.mark.parametrize("losses", [[2.3] * 30, [2.3, 2.4, 2.5, 9.0], [2.3, 2.0], [math.nan] * 20])
def test_without_a_fall_there_is_no_answer(losses: list[float]) -> None:
    assert steepest(losses) is None
