"""Real DALI pipelines on the CPU: batches, augmentation, exact resume."""

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from res2net.data.augmentation import Augmentation
from res2net.data.dali.stream import Stream
from res2net.data.order import PADDING, EvalOrder, TrainOrder
from res2net.data.sources.folder import FolderSource, open_folder
from res2net.data.sources.in_memory import ArraySource
from res2net.data.sources.source import Source
from res2net.preprocessing import Preprocessing

Batch = tuple[torch.Tensor, torch.Tensor]


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Something like a photograph: soft waves of colour, a disc, noise; (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(float)
    waves = np.empty((height, width, 3))
    for channel in range(3):
        across, down, shift = rng.uniform(1, 6, 3)
        waves[..., channel] = 128 + 70 * np.sin(across * x / width + down * y / height + shift)
    waves[(x - width / 3) ** 2 + (y - height / 2) ** 2 < (min(height, width) / 4) ** 2] -= 50
    return np.clip(waves + rng.normal(0, 12, waves.shape), 0, 255).astype(np.uint8)


def image(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(picture(height, width, seed))


def take(stream: Stream, batches: int) -> list[Batch]:
    # copies: DALI's memory belongs to the next batches again
    taken = (next(stream) for _ in range(batches))
    return [(images.clone(), labels.clone()) for images, labels in taken]


# Batches


def array_source(images: np.ndarray) -> ArraySource:
    """Each image is its own class: labels are indices."""
    names = tuple(map(str, range(len(images))))
    return ArraySource("test/train", names, np.arange(len(images)), images)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> FolderSource:
    """23 photographs of several sizes, each its own class: labels are indices."""
    root = tmp_path_factory.mktemp("folder")
    for number in range(23):
        (root / f"{number:02d}").mkdir()
        size = (40 + 7 * (number % 5), 70 - 9 * (number % 4))
        image(*size, number).save(root / f"{number:02d}" / "a.jpg", quality=90)
    return open_folder(str(root))


@pytest.fixture(scope="module")
def arrays() -> ArraySource:
    return array_source(np.stack([picture(20, 20, seed) for seed in range(23)]))


@pytest.fixture(params=["folder", "arrays"])
def source(request: pytest.FixtureRequest) -> Source:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("augmentation", [None, Augmentation()])
def test_a_batch_is_uint8_in_channels_last_with_int64_labels(
    source: Source, augmentation: Augmentation | None
) -> None:
    order = TrainOrder(count=23, seed=0, batch_size=4)
    stream = Stream(source, order, preprocessing=Preprocessing(18), augmentation=augmentation)
    images, labels = next(stream)
    assert images.shape == (4, 3, 18, 18) and images.dtype == torch.uint8
    assert images.stride() == (18 * 18 * 3, 1, 18 * 3, 3)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.shape == (4,) and labels.dtype == torch.int64


def test_evaluation_gives_each_label_once_and_pads_with_minus_one(source: Source) -> None:
    batches: list[list[torch.Tensor]] = []
    for rank in range(2):
        order = EvalOrder(23, batch_size=4, world_size=2, rank=rank)
        stream = Stream(source, order, preprocessing=Preprocessing(18))
        batches.append([labels for _, labels in take(stream, order.batches)])
    labels = torch.stack([torch.stack(rank) for rank in batches], dim=1).flatten()
    assert labels.tolist() == [*range(23), PADDING]
    assert PADDING == -1


def test_a_stream_starts_at_any_position_and_knows_where_it_is(source: Source) -> None:
    order = TrainOrder(count=23, seed=3, batch_size=2, world_size=2, rank=1)
    assert order.batches == 5
    for start in (0, 2, 4, 5, 13):
        stream = Stream(source, order, preprocessing=Preprocessing(18), start=start)
        for number, (_, labels) in enumerate(take(stream, 7)):
            assert labels.tolist() == order.batch(start + number).tolist()
        assert stream.position == start + 7


# Augmentation


def test_a_padded_crop_is_a_true_window_and_flips_come_at_the_given_rate() -> None:
    size, pad, batches = 12, 2, 40
    y, x = np.mgrid[1 : size + 1, 1 : size + 1]
    # every pixel says where it is and whose; black is the padding alone
    pixels = np.stack([np.stack([y, x, y * 0 + number + 1], -1) for number in range(20)])
    padded = np.pad(pixels, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    stream = Stream(
        array_source(pixels.astype(np.uint8)),
        TrainOrder(count=20, seed=0, batch_size=20),
        preprocessing=Preprocessing(size, 1.0),
        augmentation=Augmentation(crop="pad", pad=pad, flip=0.3),
        seed=5,
    )
    windows, flips = set(), []
    for images, labels in take(stream, batches):
        for crop, label in zip(images.permute(0, 2, 3, 1).numpy(), labels, strict=True):
            flips.append(bool(crop[5, 5, 1] > crop[5, 6, 1]))
            crop = crop[:, ::-1] if flips[-1] else crop
            top, left = int(crop[5, 5, 0]) - 6 + pad, int(crop[5, 5, 1]) - 6 + pad
            window = padded[int(label), top : top + size, left : left + size]
            assert np.array_equal(crop, window)
            windows.add((top, left))
    assert windows == {(top, left) for top in range(2 * pad + 1) for left in range(2 * pad + 1)}
    count = len(flips)
    assert count == 800
    assert abs(sum(flips) - 0.3 * count) < 4 * (count * 0.3 * 0.7) ** 0.5


@pytest.mark.parametrize("kind", ["folder", "arrays"])
def test_a_random_resized_crop_keeps_the_size_and_the_bounds(kind: str, tmp_path: Path) -> None:
    side, size, count = 240, 60, 120
    y, x = np.mgrid[0:side, 0:side]
    ramps = np.stack([y, x, y * 0], -1).astype(np.uint8)
    source: Source
    if kind == "arrays":
        source = array_source(np.stack([ramps] * 2))
    else:
        for name in "ab":
            (tmp_path / name).mkdir()
            Image.fromarray(ramps).save(tmp_path / name / "ramps.png")
        source = open_folder(str(tmp_path))
    stream = Stream(
        source,
        TrainOrder(count=2, seed=0, batch_size=2),
        preprocessing=Preprocessing(size),
        augmentation=Augmentation(area=(0.2, 0.6), ratio=(0.5, 2.0)),
        seed=1,
    )
    crops = torch.cat([images for images, _ in take(stream, count // 2)]).float()
    assert crops.shape == (count, 3, size, size)
    # the ramps tell how much of the image is in sight (the rim apart: nothing lies beyond it)
    height = (crops[:, 0, -2].mean(-1) - crops[:, 0, 1].mean(-1)) * size / (size - 3)
    width = (crops[:, 1, :, -2].mean(-1) - crops[:, 1, :, 1].mean(-1)) * size / (size - 3)
    area, ratio = height * width.abs() / side**2, width.abs() / height
    assert 0.19 < area.min() < 0.25 and 0.5 < area.max() < 0.62
    assert 0.48 < ratio.min() < 0.65 and 1.5 < ratio.max() < 2.1
    assert 0.3 * count < (width < 0).sum() < 0.7 * count


def test_crop_none_is_the_evaluation_crop(source: Source) -> None:
    order = EvalOrder(23, batch_size=23)
    preprocessing = Preprocessing(18)
    plain = Augmentation(crop="none", flip=0.0)
    with_, without = (
        take(Stream(source, order, preprocessing=preprocessing, augmentation=augmentation), 1)
        for augmentation in (plain, None)
    )
    assert torch.equal(with_[0][0], without[0][0])


def test_the_seed_decides_the_augmentation(source: Source) -> None:
    def images(seed: int) -> torch.Tensor:
        order = TrainOrder(count=23, seed=0, batch_size=8)
        stream = Stream(
            source,
            order,
            preprocessing=Preprocessing(18),
            augmentation=Augmentation(),
            seed=seed,
        )
        return take(stream, 1)[0][0]

    assert torch.equal(images(1), images(1))
    assert not torch.equal(images(1), images(2))


def test_policies_and_jitter_change_pixels_and_nothing_else(source: Source) -> None:
    order = EvalOrder(23, batch_size=23)
    plain = {"crop": "none", "flip": 0.0}

    def images(**changes: object) -> torch.Tensor:
        augmentation = Augmentation(**plain | changes)  # type: ignore[arg-type]
        stream = Stream(
            source, order, preprocessing=Preprocessing(18), augmentation=augmentation, seed=3
        )
        return take(stream, 1)[0][0].float()

    base = images()
    for changes in (
        {"policy": "rand_augment"},
        {"policy": "auto_augment"},
        {"policy": "trivial_augment"},
        {"color_jitter": 0.5},
        {"hue_jitter": 0.5},
    ):
        changed = images(**changes)
        assert changed.shape == base.shape
        different = (changed - base).abs().flatten(1).mean(1) > 1
        assert different.float().mean() > 0.4, changes
    grey_before, grey_after = base.mean((1, 2, 3)), images(hue_jitter=0.5).mean((1, 2, 3))
    assert (grey_before - grey_after).abs().max() < 40  # hue turns colours, not brightness
    weak, strong = (images(policy="rand_augment", policy_magnitude=m) for m in (1, 30))
    assert (weak - base).abs().mean() < (strong - base).abs().mean()


@pytest.mark.parametrize("policy", ["rand_augment", "auto_augment", "trivial_augment"])
def test_policies_never_move_an_image_out_of_sight(policy: str) -> None:
    red = np.zeros((64, 32, 32, 3), dtype=np.uint8)
    red[..., 0] = 255  # no change of colours makes it the grey of the border
    stream = Stream(
        array_source(red),
        TrainOrder(count=64, seed=0, batch_size=64),
        preprocessing=Preprocessing(32, 1.0),
        augmentation=Augmentation(crop="none", policy=policy, policy_ops=1, policy_magnitude=30),
    )
    images = torch.cat([batch for batch, _ in take(stream, 6)])
    beyond = (images == 128).all(1).float().mean((1, 2))  # the border's share of each image
    assert 0.05 < beyond.max() < 0.7


def test_images_grow_from_epoch_to_epoch(source: Source) -> None:
    order = TrainOrder(count=23, seed=1, batch_size=10)
    stream = Stream(
        source,
        order,
        preprocessing=Preprocessing(96),
        augmentation=Augmentation(start_size=32, grow_until=2),
    )
    assert [images.shape[2:] for images, _ in take(stream, 6)] == [
        (32, 32), (32, 32), (64, 64), (64, 64), (96, 96), (96, 96),
    ]  # fmt: skip


# Resuming


def through_a_file(state: dict) -> dict:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


PLAIN: list[dict[str, object]] = [
    {},
    {"crop": "pad", "pad": 3},
    {"crop": "none"},
    {"start_size": 9, "grow_until": 2.0},
    {"color_jitter": 0.4, "hue_jitter": 0.1},
]
GROWING = {"color_jitter": 0.2, "start_size": 9, "grow_until": 1.0}


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        *((source, changes) for source in ("folder", "arrays") for changes in PLAIN),
        # which take half a second for each stream, and begin where either kind is decoded
        ("folder", {"policy": "rand_augment"}),
        ("arrays", {"policy": "auto_augment", "crop": "pad"}),
        ("folder", {"policy": "trivial_augment", **GROWING}),
    ],
    indirect=["source"],
    ids=lambda given: (
        given if isinstance(given, str) else "-".join(map(str, given.values())) or "plain"
    ),
)
def test_a_resumed_stream_gives_exactly_the_batches_that_would_have_come(
    source: Source, changes: dict
) -> None:
    order = TrainOrder(count=23, seed=1, batch_size=2, world_size=2, rank=1)
    assert order.batches == 5

    def stream(state: dict | None = None) -> Stream:
        return Stream(
            source,
            order,
            preprocessing=Preprocessing(18),
            augmentation=Augmentation(**changes),
            # of a resumed one the state's count
            seed=7 if state is None else 8,
            start=2 if state is None else 0,
            state=state,
        )

    def check(resumed: Stream, first: int, last: int) -> None:
        assert resumed.position == 2 + first
        for batch, expected in zip(take(resumed, last - first), whole[first:last], strict=True):
            assert torch.equal(batch[0], expected[0])
            assert torch.equal(batch[1], expected[1])

    whole = take(stream(), 14)
    chain = stream()
    # before any batch, before and after an epoch's last one, after the next epoch's, to the end
    stops = (0, 2, 3, 8, 14)
    for stop, following in pairwise(stops):
        state = through_a_file(chain.state_dict())
        if stop == 3:
            check(stream(state), stop, 14)
        chain = stream(state)  # resumed from a resumed one
        check(chain, stop, following)
