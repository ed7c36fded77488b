"""The data module on several ranks, and resumed on others."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from res2net.data.augmentation import Augmentation
from res2net.data.datamodule import ImageDataModule
from res2net.data.sources.in_memory import ArraySource
from res2net.preprocessing import Preprocessing

COUNT, GLOBAL_BATCH = 100, 24
STEPS = COUNT // GLOBAL_BATCH


def data_of(world: int, rank: int, accumulate: int = 1) -> ImageDataModule:
    """Images whose label is their own index, so that labels tell which were seen."""
    pixels = np.random.default_rng(0).integers(0, 255, (COUNT, 8, 8, 3), dtype=np.uint8)
    source = ArraySource("numbers", tuple("ab"), np.arange(COUNT), pixels)
    data = ImageDataModule(
        source,
        source,
        preprocessing=Preprocessing(image_size=8, crop_fraction=1.0),
        augmentation=Augmentation(crop="pad", pad=1),
        global_batch_size=GLOBAL_BATCH,
        eval_batch_size=16,
        accumulate=accumulate,
    )
    data.trainer = SimpleNamespace(
        training=False,
        world_size=world,
        global_rank=rank,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    return data


def seen(batches) -> list[int]:
    return [int(label) for _, labels in batches for label in labels]


@pytest.mark.parametrize("before,after", [((2, 1), (1, 1)), ((1, 2), (2, 1)), ((3, 1), (2, 2))])
def test_resumed_on_other_ranks_sees_the_rest_of_the_epoch(before, after) -> None:
    world, accumulate = before
    ranks = [data_of(world, rank, accumulate) for rank in range(world)]
    first = []
    for data in ranks:
        batches = iter(data.train_dataloader())
        first += seen(next(batches) for _ in range(2 * accumulate))  # two optimizer steps
    states = [data.resume_state() for data in ranks]

    world, accumulate = after
    rest, following = [], []
    for rank in range(world):
        data = data_of(world, rank, accumulate)
        data.load_resume_state(states, None)
        loader = data.train_dataloader()
        assert len(loader) == STEPS * accumulate
        rest += seen(loader)
        following += seen(loader)
    assert len(first) == 2 * GLOBAL_BATCH
    assert len(rest) == (STEPS - 2) * GLOBAL_BATCH
    assert len(set(first + rest)) == STEPS * GLOBAL_BATCH  # each once
    assert len(set(following)) == len(following) == STEPS * GLOBAL_BATCH


def test_resumed_on_the_same_ranks_continues_bit_for_bit() -> None:
    for rank in range(2):
        data = data_of(2, rank)
        loader = data.train_dataloader()
        batches = iter(loader)
        next(batches)
        state = data.resume_state()
        rest = [*batches, *loader]

        resumed = data_of(2, rank)
        resumed.load_resume_state([state, state], rank)
        loader = resumed.train_dataloader()
        again = [*loader, *loader]
        assert len(rest) == len(again) == 2 * STEPS - 1
        for (images, labels), (images_again, labels_again) in zip(rest, again, strict=True):
            assert torch.equal(images, images_again)
            assert torch.equal(labels, labels_again)


def test_ranks_draw_different_augmentations() -> None:
    states = [data_of(2, rank) for rank in range(2)]
    images = [next(iter(data.train_dataloader()))[0] for data in states]
    assert not torch.equal(*images)


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_evaluation_counts_each_image_once_in_every_pass(world: int) -> None:
    loaders = [data_of(world, rank).val_dataloader() for rank in range(world)]
    assert len({len(loader) for loader in loaders}) == 1
    for _ in range(2):
        labels = [label for loader in loaders for label in seen(loader)]
        assert sorted(label for label in labels if label != -1) == list(range(COUNT))


def test_normalised_on_the_device() -> None:
    data = data_of(1, 0)
    images, labels = next(iter(data.val_dataloader()))
    floats, same = data.on_after_batch_transfer((images, labels), 0)
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in (data.preprocessing.mean, data.preprocessing.std)
    )
    assert torch.allclose(floats, (images / 255 - mean) / std, atol=1e-5)
    assert floats.is_contiguous(memory_format=torch.channels_last)
    assert same is labels
