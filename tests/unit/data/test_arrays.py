"""Crops and flips of images in memory, against doing them one by one."""

import numpy as np
import pytest
import torch

from res2net.data.arrays import ArrayStream
from res2net.data.augmentation import Augmentation, uniform
from res2net.data.order import PADDING, EvalOrder, TrainOrder
from res2net.data.sources.in_memory import ArraySource

COUNT, SIZE = 37, 8
CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE, 3), dtype=np.uint8)
SOURCE = ArraySource("made", tuple("abc"), np.arange(COUNT) % 3, IMAGES)


def order(**cut: int) -> TrainOrder:
    return TrainOrder(**{"count": COUNT, "seed": 5, "batch_size": 4} | cut)


def stream(order: TrainOrder | EvalOrder, position: int = 0, **changes: object) -> ArrayStream:
    augmentation = None
    if isinstance(order, TrainOrder):
        augmentation = Augmentation(**{"crop": "pad", "pad": 2} | changes)  # type: ignore[arg-type]
    return ArrayStream(SOURCE, order, augmentation=augmentation, device=CPU, position=position)


def test_every_image_is_a_window_of_the_padded_one_perhaps_flipped() -> None:
    one = stream(order(batch_size=36))
    offsets, flips = set(), 0
    for position in range(20):
        indices = one.order.batch(position)
        images, labels = next(one)
        assert images.shape == (36, 3, SIZE, SIZE)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert labels.tolist() == (indices % 3).tolist()
        for index, image in zip(indices, images.permute(0, 2, 3, 1).numpy(), strict=True):
            padded = np.pad(IMAGES[index], ((2, 2), (2, 2), (0, 0)))
            found = [
                (down, right, flipped)
                for down in range(5)
                for right in range(5)
                for flipped in (False, True)
                for window in (padded[down : down + SIZE, right : right + SIZE],)
                if np.array_equal(image, window[:, ::-1] if flipped else window)
            ]
            assert len(found) == 1
            offsets.add(found[0][:2])
            flips += found[0][2]
    assert len(offsets) == 25
    assert 0.4 < flips / (36 * 20) < 0.6


def test_a_stream_can_start_anywhere() -> None:
    whole = stream(order())
    batches = [next(whole) for _ in range(30)]
    for start in (1, 8, 9, 17, 29):
        images, labels = next(stream(order(), start))
        assert torch.equal(images, batches[start][0])
        assert torch.equal(labels, batches[start][1])


@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (1, 2), (3, 2)])
def test_other_ranks_see_the_same_pixels(world: int, accumulate: int) -> None:
    parts = world * accumulate
    one = stream(order(batch_size=2 * parts))
    cut = {"batch_size": 2, "world_size": world, "accumulate": accumulate}
    ranks = [stream(order(rank=rank, **cut)) for rank in range(world)]
    for _ in range(5):
        whole = next(one)[0]
        pieces = [next(rank)[0] for _ in range(accumulate) for rank in ranks]
        assert torch.equal(torch.cat(pieces), whole)


def test_evaluation_changes_nothing_and_pads() -> None:
    one = stream(EvalOrder(COUNT, 10))
    images, labels = zip(*[next(one) for _ in range(4)], strict=True)
    assert np.array_equal(torch.cat(images)[:COUNT].permute(0, 2, 3, 1).numpy(), IMAGES)
    assert torch.cat(labels).tolist() == [*SOURCE.labels, PADDING, PADDING, PADDING]


@pytest.mark.parametrize(
    ("changes", "can"),
    [
        ({}, True),
        ({"crop": "none"}, True),
        ({"erase": 0.5}, True),
        ({"crop": "random_resized"}, False),
        ({"policy": "rand_augment"}, False),
        ({"color_jitter": 0.1}, False),
        ({"hue_jitter": 0.1}, False),
    ],
)
def test_what_it_can_do(changes: dict, can: bool) -> None:
    augmentation = Augmentation(**{"crop": "pad"} | changes)
    assert ArrayStream.can(SOURCE, SIZE, augmentation) is can
    assert not ArrayStream.can(SOURCE, SIZE + 1, augmentation)


def test_the_numbers_are_even_and_hang_on_all_that_they_should() -> None:
    drawn = uniform(order(batch_size=4096, count=5000), 3, stream=1, numbers=5)
    assert drawn.shape == (4096, 5)
    assert drawn.min() >= 0 and drawn.max() < 1
    assert np.allclose(np.histogram(drawn, bins=10, range=(0, 1))[0] / drawn.size, 0.1, atol=0.01)
    assert abs(np.corrcoef(drawn.T) - np.eye(5)).max() < 0.06
    again = uniform(order(), 7, stream=1, numbers=3)
    assert np.array_equal(again, uniform(order(), 7, stream=1, numbers=3))
    for other in (
        uniform(order(), 8, stream=1, numbers=3),
        uniform(order(), 7, stream=2, numbers=3),
        uniform(order(seed=6), 7, stream=1, numbers=3),
    ):
        assert not np.array_equal(again, other)
