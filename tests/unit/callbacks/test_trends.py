"""When a row of losses is warned of."""

import json

import numpy as np
import pytest

from res2net.callbacks.trends import Plateau, Spikes


def spikes(losses: list[float], spikes: Spikes | None = None) -> list[int]:
    """Places that are warned of."""
    spikes = spikes or Spikes()
    return [i for i, loss in enumerate(losses) if spikes.add(loss) is not None]


def test_far_above_the_median_of_the_last_twenty() -> None:
    quiet = [2.0 + 0.01 * (i % 3) for i in range(30)]
    assert spikes(quiet) == []
    assert spikes([*quiet, 3.0]) == []  # 1.49 times the median
    assert spikes([*quiet, 3.1]) == [30]
    watch = Spikes()
    spikes([100.0] * 5 + [1.0] * 20, watch)  # what is longer ago does not count
    assert watch.add(1.6) == 1.0


def test_one_outlier_moves_nothing() -> None:
    assert spikes([1.0] * 12 + [50.0] + [1.0] * 12 + [1.6]) == [12, 25]


def test_noisy_rows_need_more_than_a_factor() -> None:
    noisy = [1.0, 2.0, 3.0] * 7  # median 2, MAD 1: above 8
    assert spikes([*noisy, 7.9]) == []
    assert spikes([*noisy, 8.1]) == [21]


def test_falling_losses_and_ordinary_noise_are_quiet() -> None:
    noise = np.random.default_rng(0).normal(1, 0.03, 500)
    assert spikes(list(np.linspace(7, 0.5, 500) * noise)) == []


def test_not_before_there_is_enough_to_compare_with() -> None:
    assert spikes([1.0] * 9 + [9.0]) == []
    assert spikes([1.0] * 10 + [9.0]) == [10]


def test_at_most_one_in_ten_rows() -> None:
    # a climb so steep that every row is above those before
    assert spikes([1.0] * 20 + [2.0**n for n in range(1, 25)]) == [20, 30, 40]


@pytest.mark.parametrize("cut", [3, 15, 21, 29])
def test_a_resumed_run_warns_alike_of_spikes(cut: int) -> None:
    losses = [1.0] * 20 + [2.0**n for n in range(1, 25)]
    first, second = Spikes(), Spikes()
    before = spikes(losses[:cut], first)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    after = [cut + place for place in spikes(losses[cut:], second)]
    assert before + after == spikes(losses)


def plateaus(losses: list[float], plateau: Plateau | None = None) -> list[int]:
    plateau = plateau or Plateau()
    return [i for i, loss in enumerate(losses) if plateau.add(loss) is not None]


def test_ten_epochs_without_a_fall_of_a_hundredth() -> None:
    assert plateaus([2.0] * 10) == []
    assert plateaus([2.0] * 30) == [10]  # once
    assert plateaus([2.0] * 10 + [1.979] * 20) == [20]  # fell in time
    assert plateaus([2.0] * 10 + [1.981] * 20) == [10]
    assert plateaus([2.0] * 15 + [1.0] * 15) == [10, 25]  # a second one
    assert plateaus([2 * 0.998**n for n in range(40)]) == []  # slow, but it falls


@pytest.mark.parametrize("cut", [1, 5, 10, 11, 20])
def test_a_resumed_run_warns_alike_of_plateaus(cut: int) -> None:
    losses = [2.0] * 15 + [1.0] * 15
    first, second = Plateau(), Plateau()
    before = plateaus(losses[:cut], first)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert before + [cut + place for place in plateaus(losses[cut:], second)] == [10, 25]
