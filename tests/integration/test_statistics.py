"""What is drawn at random is drawn as it should be: crops as torchvision's, orders independent."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from res2net.data.augmentation import Augmentation
from res2net.data.dali.stream import Stream
from res2net.data.order import EvalOrder, TrainOrder
from res2net.data.sources.folder import FolderSource
from res2net.data.sources.in_memory import ArraySource
from res2net.data.sources.source import Source
from res2net.preprocessing import Preprocessing

# (height, width): the commonest shapes of ImageNet's photographs, at half their size
SHAPES = [(188, 250), (188, 250), (167, 250), (250, 188), (250, 250)]
DRAWS, SIZE = 20_000, 16


def ramps(height: int, width: int) -> np.ndarray:
    """Pixels that say where they are: uint8 (H, W, 3)."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y, x, y * 0], -1).astype(np.uint8)


def files(root: Path) -> FolderSource:
    for number, shape in enumerate(SHAPES):
        Image.fromarray(ramps(*shape)).save(root / f"{number}.bmp")
    names = [f"{number}.bmp" for number in range(len(SHAPES))]
    return FolderSource.of_files(str(root), ("a",), {"a": 40 * names})


def arrays() -> ArraySource:
    pixels = np.stack([ramps(188, 250)] * 200)
    return ArraySource("ramps", ("a",), np.zeros(200, dtype=np.int64), pixels)


def windows(source: Source, augmentation: Augmentation) -> np.ndarray:
    """Height and width in pixels, (draws, 2), of the windows that the pipeline cuts out."""
    stream = Stream(
        source,
        EvalOrder(len(source), batch_size=len(source)),
        preprocessing=Preprocessing(SIZE),
        augmentation=augmentation,
        seed=11,
    )
    found = []
    place = np.arange(1, SIZE - 1) - (SIZE - 1) / 2  # the rim apart: nothing lies beyond it
    for _ in range(DRAWS // len(source)):
        images = next(stream)[0][:, :2, 1:-1, 1:-1].numpy().astype(np.float64)
        rows, columns = images[:, 0].mean(2), images[:, 1].mean(1)
        slopes = np.stack([rows, columns], -1).swapaxes(1, 2) @ place / (place @ place)
        found.append(np.abs(slopes) * SIZE)  # a mirrored image falls where it rose
    return np.concatenate(found)


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Kolmogorov and Smirnov's: the largest between the two distribution functions."""
    everything = np.sort(np.concatenate([ours, theirs]))
    below = (
        np.searchsorted(np.sort(some), everything, side="right") / len(some)
        for some in (ours, theirs)
    )
    return float(np.abs(np.subtract(*below)).max())


@pytest.mark.parametrize("kind", ["files", "arrays"])
def test_random_crops_have_the_areas_and_ratios_of_torchvision(kind: str, tmp_path: Path) -> None:
    augmentation = Augmentation()
    source = files(tmp_path) if kind == "files" else arrays()
    shapes = np.array(SHAPES * 40 if kind == "files" else [(188, 250)] * 200)
    shapes = np.tile(shapes, (DRAWS // len(source), 1))
    torch.manual_seed(0)
    image = torch.empty(1, 250, 250)
    area, ratio = list(augmentation.area), list(augmentation.ratio)
    theirs = np.array(
        [
            RandomResizedCrop.get_params(image[:, :height, :width], area, ratio)[2:]
            for height, width in shapes.tolist()
        ]
    )
    # the pixels say it to a few tenths: so that equal numbers stay equal
    ours = np.rint(windows(source, augmentation))
    assert distance(ours.prod(1) / shapes.prod(1), theirs.prod(1) / shapes.prod(1)) <= 0.02
    assert distance(ours[:, 1] / ours[:, 0], theirs[:, 1] / theirs[:, 0]) <= 0.02


@pytest.mark.parametrize("options", [{}, {"wrap": True}, {"repeats": 3}], ids=str)
def test_places_in_consecutive_epochs_are_not_correlated(options: dict) -> None:
    count = 20_000
    for seed in (0, 1):
        order = TrainOrder(count=count, seed=seed, batch_size=100, **options)
        places = []
        for epoch in range(5):
            place = np.full(count, -1)
            drawn = order.epoch(epoch)
            place[drawn] = np.arange(len(drawn))
            places.append(place)
        places.append(np.arange(count))  # nor with the order of the source
        for one, other in pairwise(places):
            both = (one >= 0) & (other >= 0)
            bound = 0.02 if both.all() else 3 / both.sum() ** 0.5
            assert abs(np.corrcoef(one[both], other[both])[0, 1]) < bound
