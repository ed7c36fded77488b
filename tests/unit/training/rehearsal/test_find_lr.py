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


def logistic(middle: float, width: float, *, start: float = 2.4, fall: float = 0.25) -> np.ndarray:
    """Losses of 100 steps: 95 of 100 parts of the fall lie within 3.7 widths of its middle."""
    return start - fall / (1 + np.exp((middle - np.arange(100)) / width))


def test_the_steepest_fall_of_a_logistic_curve_is_its_middle() -> None:
    assert steepest(logistic(40, 4).tolist()) == 40


@pytest.mark.parametrize("noise", [0.03, 0.05])
def test_noise_is_not_taken_for_the_fall(noise: float) -> None:
    """Of up to a fifth of the fall: a rate is always of the fall, and hardly ever is none found."""
    missed = 0
    for seed in range(300):
        random = np.random.default_rng(seed)
        middle, width = random.uniform(35, 65), random.uniform(2, 5)
        losses = logistic(middle, width)
        ends = int(middle + 4 * width + random.uniform(0, 10))
        losses[ends:] *= random.uniform(1.5, 3, 100 - ends)  # it diverges
        losses[ends + 8 :] = 2.0  # and comes back lower than it ever was
        found = steepest((losses + random.normal(0, noise, 100)).tolist())
        if found is None:
            missed += 1
        else:
            assert middle - 3 * width < found < min(middle + 4 * width, ends), seed
    assert missed <= 3


def test_noise_alone_is_no_fall() -> None:
    curves = np.random.default_rng(0).normal(2.4, 0.07, (300, 100))
    assert sum(steepest(curve.tolist()) is not None for curve in curves) <= 3
    # nor is it before and after a network has diverged
    curves[:, 60:75] += 3
    curves[:, 75:] -= 0.5
    assert sum(steepest(curve.tolist()) is not None for curve in curves) <= 3


def test_the_noise_of_a_fifth_of_the_rates_does_not_win() -> None:
    """As two processes had it on the digits: a dip by 0.07 at 7e-5, far steeper than the fall."""
    losses = 2.42 - 0.18 / (1 + np.exp((58 - np.arange(100)) / 5))
    losses += 0.03 * np.tile([1, -1], 50)
    losses[20:26] += 0.07
    losses[26:32] -= 0.07
    losses[75:] = 5.0
    raw = np.gradient(smooth(losses.tolist()))[:70]
    assert 24 <= raw.argmin() <= 28
    found = steepest(losses.tolist())
    assert found is not None and 50 <= found <= 66


def test_one_bad_batch_at_the_beginning_is_no_start() -> None:
    losses = logistic(50, 4).tolist()
    assert steepest([9.0, *losses[1:]]) == 50


def test_noise_that_is_large_beside_the_loss_is_no_divergence() -> None:
    """A network that has learnt before: a tenth of the start is less than the noise."""
    for seed in range(100):
        noise = np.random.default_rng(seed).normal(0, 0.08, 100)
        losses = logistic(50, 3, start=0.5, fall=0.45) + noise
        losses[65:] = 3.0
        found = steepest(losses.tolist())
        assert found is not None and 38 <= found <= 62, seed


def test_of_two_stages_the_second_counts() -> None:
    """From a bad first guess to a guess among ten, and then, no faster, to something learnt."""
    first = logistic(25, 2, start=2.6, fall=0.25)
    losses = first + logistic(60, 3, start=0, fall=0.25)
    found = steepest(losses.tolist())
    assert found is not None and 57 <= found <= 63


def test_a_fall_after_it_has_diverged_does_not_count() -> None:
    learning = [2.3 - 0.5 / (1 + math.exp(20 - step)) for step in range(40)]
    assert steepest([*learning, 5.0, 9.0, 5.0, 2.3, *[0.5] * 9, math.nan]) == 20
    # back to the start and a bit above it: all that was learnt is lost
    assert steepest([*learning, *[2.4] * 20, *[1.0] * 20]) == 20


@pytest.mark.parametrize(
    "losses",
    [
        [2.3] * 30,
        [*[2.3] * 9, 2.4, 2.5, 2.6, 9.0],
        [2.3, 2.0],
        [*[2.3] * 6, *[1.0] * 3],
        [math.nan] * 20,
        [9.0, *[2.3] * 30],
        [2.3] * 20 + [2.27] * 20,
    ],
)
def test_without_a_fall_there_is_no_answer(losses: list[float]) -> None:
    assert steepest(losses) is None
