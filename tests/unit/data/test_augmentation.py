"""Growing images, and rectangles that are erased."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from res2net.data import erasing
from res2net.data.augmentation import Augmentation


def test_sizes_grow_in_steps_that_the_network_can_halve() -> None:
    augmentation = Augmentation(start_size=128, grow_until=16)
    sizes = [augmentation.size(epoch, 224) for epoch in range(20)]
    assert sizes[0] == 128
    assert sizes[16:] == [224] * 4
    assert sizes == sorted(sizes)
    assert set(sizes) == {128, 160, 192, 224}
    assert Augmentation().size(0, 224) == 224


def test_sizes_stay_small_until_they_begin_to_grow() -> None:
    augmentation = Augmentation(start_size=160, grow_from=11, grow_until=13)  # ffcv's 16 epochs
    sizes = [augmentation.size(epoch, 192) for epoch in range(16)]
    assert sizes[:12] == [160] * 12 and sizes[12] in (160, 192) and sizes[13:] == [192] * 3
    grown = [Augmentation(start_size=64, grow_from=2, grow_until=6).size(e, 192) for e in range(8)]
    assert grown == [64, 64, 64, 96, 128, 160, 192, 192]


@pytest.mark.parametrize(("start", "full"), [(100, 150), (8, 20)])
def test_odd_sizes_stay_between_their_bounds(start: int, full: int) -> None:
    augmentation = Augmentation(start_size=start, grow_until=7)
    sizes = [augmentation.size(epoch, full) for epoch in range(8)]
    assert sizes[0] == start and sizes[7] == full
    assert all(start <= size <= full for size in sizes)


def erased(count: int, size: int, probability: float) -> torch.Tensor:
    """Which pixels: bool (count, size, size)."""
    numbers = np.random.default_rng(0).random((count, erasing.NUMBERS))
    images = torch.ones(count, 3, size, size)
    out = erasing.erase(images, numbers, probability=probability)
    assert out is images
    zeros = out == 0
    assert torch.equal(zeros[:, 0], zeros[:, 1]) and torch.equal(zeros[:, 0], zeros[:, 2])
    assert torch.equal(out[~zeros], torch.ones(int((~zeros).sum())))
    return zeros[:, 0]


def test_one_rectangle_is_erased_in_a_share_of_the_images() -> None:
    pixels = erased(4000, 32, 0.3)
    touched = pixels.flatten(1).any(1)
    assert touched.float().mean() == pytest.approx(0.3, abs=0.02)
    rows, columns = pixels.any(2).sum(1), pixels.any(1).sum(1)
    assert torch.equal(rows * columns, pixels.flatten(1).sum(1))  # full rectangles
    assert not erased(50, 32, 0.0).any()
    assert erased(50, 32, 1.0).flatten(1).any(1).all()


def test_areas_are_those_of_torchvision() -> None:
    size, count = 64, 3000
    ours = erased(count, size, 1.0).float().mean((1, 2))
    theirs = v2.RandomErasing(p=1.0, value=0)
    torch.manual_seed(0)
    judged = torch.stack([theirs(torch.ones(3, size, size))[0] == 0 for _ in range(count)])
    judged = judged.float().mean((1, 2))
    grid = torch.linspace(0, 0.4, 200)
    distance = (
        (ours[:, None] <= grid).float().mean(0) - (judged[:, None] <= grid).float().mean(0)
    ).abs()
    assert distance.max() < 0.06  # theirs draws again what does not fit, ours cuts it


def test_every_place_is_reached() -> None:
    where = erased(4000, 16, 1.0).float().mean(0)
    assert where.min() > 0.005
