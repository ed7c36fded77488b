"""Files that cannot be decoded: named, or left out so that nothing else changes."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from res2net.data.augmentation import Augmentation
from res2net.data.dali.stream import Stream
from res2net.data.order import EXCLUDED, PADDING, EvalOrder, TrainOrder
from res2net.data.sources.folder import FolderSource, open_folder
from res2net.errors import WorkError
from res2net.preprocessing import Preprocessing

Batch = tuple[torch.Tensor, torch.Tensor]


def image(height: int, width: int, seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def take(stream: Stream, batches: int) -> list[Batch]:
    # copies: DALI's memory belongs to the next batches again
    taken = (next(stream) for _ in range(batches))
    return [(images.clone(), labels.clone()) for images, labels in taken]


# Files that cannot be decoded


@pytest.mark.parametrize("broken", range(8))
def test_a_truncated_file_stops_the_stream_at_its_batch_and_is_named(
    tmp_path: Path, broken: int, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(16):
        (tmp_path / f"{number:02d}").mkdir()
        image(40, 50, number).save(tmp_path / f"{number:02d}" / "a.jpg", quality=90)
    order = TrainOrder(count=16, seed=0, batch_size=2)
    bad = tmp_path / f"{order.batch(broken)[1]:02d}" / "a.jpg"
    os.truncate(bad, bad.stat().st_size // 2)

    stream = Stream(
        open_folder(str(tmp_path)),
        order,
        preprocessing=Preprocessing(32),
        augmentation=Augmentation(crop="none"),
    )
    whole = take(stream, broken)  # prefetching has met it by now, but its turn has not come
    assert [labels.tolist() for _, labels in whole] == [
        order.batch(position).tolist() for position in range(broken)
    ]
    with pytest.raises(WorkError) as caught:
        next(stream)
    message = str(caught.value)
    assert message.startswith(f"{bad} cannot be decoded: ")
    assert message.count(".jpg") == 1
    with pytest.raises(WorkError):  # and it does not go on without the batch
        next(stream)
    capfd.readouterr()  # what DALI itself printed


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "is empty"), (b"no image", "cannot be decoded"), (None, "cannot be read")],
)
def test_other_files_that_are_no_images_are_named_too(
    tmp_path: Path, content: bytes | None, why: str, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        (tmp_path / str(number)).mkdir()
        image(40, 50, number).save(tmp_path / str(number) / "a.png")
    source = open_folder(str(tmp_path))
    bad = tmp_path / "2" / "a.png"
    if content is None:
        bad.unlink()
    else:
        bad.write_bytes(content)
    stream = Stream(source, EvalOrder(4, 4), preprocessing=Preprocessing(32))
    with pytest.raises(WorkError, match=f"^{bad} {why}"):
        next(stream)
    capfd.readouterr()


@pytest.mark.parametrize("skip", [False, True])
def test_a_disk_that_is_away_costs_no_image(
    tmp_path: Path, skip: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        (tmp_path / "images" / str(number)).mkdir(parents=True)
        image(40, 50, number).save(tmp_path / "images" / str(number) / "a.png")
    source = open_folder(str(tmp_path / "images"))
    stream = Stream(source, EvalOrder(4, 2), preprocessing=Preprocessing(32), skip=skip)
    (tmp_path / "images").rename(tmp_path / "away")
    with pytest.raises(WorkError, match=r"0/a\.png cannot be read \(No such file or directory\)"):
        next(stream)
    assert not stream.bad
    capfd.readouterr()


def test_a_disk_that_was_away_for_a_moment_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        image(40, 50, number).save(tmp_path / str(number) / "a.png")
    stream = Stream(open_folder(str(tmp_path)), EvalOrder(2, 2), preprocessing=Preprocessing(32))
    one, away = tmp_path / "1/a.png", tmp_path / "away"
    one.rename(away)
    look = stream._undecodable

    def back_by_then(position: int) -> dict[int, str]:
        if away.exists():
            away.rename(one)
        return look(position)

    monkeypatch.setattr(stream, "_undecodable", back_by_then)
    with pytest.raises(WorkError, match=rf"{one}; it can be read now: was a disk or a network"):
        next(stream)
    capfd.readouterr()


# Leaving them out

COUNT = 20
BAD = {
    3: "is empty",
    7: "cannot be decoded",
    8: "cannot be decoded",
    13: "has 6,000 pixels, more than 5,000",
}


@pytest.fixture
def spoilt(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> FolderSource:
    """Twenty classes of one image; four of them are bad."""
    for number in range(COUNT):
        (tmp_path / f"{number:02d}").mkdir()
        path = tmp_path / f"{number:02d}" / "a.jpg"
        image(40, 50, number).save(path, quality=90)
        if number == 3:
            path.write_bytes(b"")
        elif number == 7:
            os.truncate(path, path.stat().st_size // 2)
        elif number == 8:
            path.write_bytes(b"GIF89a is not what it says")
        elif number == 13:
            image(100, 60, number).save(path)
    return open_folder(str(tmp_path))


def train_stream(source: FolderSource, order: TrainOrder, state: dict | None = None) -> Stream:
    return Stream(
        source,
        order,
        preprocessing=Preprocessing(24),
        augmentation=Augmentation(),
        seed=1,
        state=state,
        skip=True,
        max_pixels=5000,
    )


def expected_labels(order: TrainOrder, positions: range) -> list[list[int]]:
    """The next good sample of the same rank stands for a bad one."""
    row = np.concatenate([order.batch(position) for position in range(positions.stop + 20)])
    good = [
        next(int(index) for index in row[place:] if int(index) not in BAD)
        for place in range(positions.stop * order.batch_size)
    ]
    size = order.batch_size
    return [good[position * size : (position + 1) * size] for position in positions]


@pytest.mark.parametrize("seed", range(3))
def test_training_takes_the_next_good_sample_instead(spoilt: FolderSource, seed: int) -> None:
    order = TrainOrder(count=COUNT, seed=seed, batch_size=3, world_size=2, rank=seed % 2)
    stream = train_stream(spoilt, order)
    met: list[str] = []
    stream.on_bad = lambda name, why: met.append(f"{name} {why}")
    batches = take(stream, 18)
    assert [labels.tolist() for _, labels in batches] == expected_labels(order, range(18))
    assert set(stream.bad) <= set(BAD)
    for index, why in stream.bad.items():
        assert why.startswith(BAD[index])
    assert len(met) == len(set(met)) == len(stream.bad)
    # what stands in is that image itself, augmented
    assert all(images.float().std() > 20 for images, _ in batches)


def test_when_bad_files_are_met_changes_nothing(spoilt: FolderSource) -> None:
    order = TrainOrder(count=COUNT, seed=0, batch_size=4)
    whole = take(train_stream(spoilt, order), 15)
    chain = train_stream(spoilt, order)
    for stop in (1, 2, 3, 7, 11):  # resumed before and after each of them was met
        take(chain, stop - chain.position)
        file = io.BytesIO()
        torch.save(chain.state_dict(), file)
        file.seek(0)
        chain = train_stream(spoilt, order, torch.load(file, weights_only=True))
        again = train_stream(spoilt, order, chain.state_dict())
        again.bad = {}  # as if no list had been kept
        for other in (again, train_stream(spoilt, order, chain.state_dict())):
            for (images, labels), expected in zip(take(other, 3), whole[stop:], strict=False):
                assert torch.equal(labels, expected[1])
                assert torch.equal(images, expected[0])


@pytest.mark.parametrize(("world", "batch_size"), [(1, 20), (1, 3), (2, 4), (3, 9)])
def test_evaluation_counts_all_but_them(spoilt: FolderSource, world: int, batch_size: int) -> None:
    labels = []
    for rank in range(world):
        order = EvalOrder(COUNT, batch_size, world_size=world, rank=rank)
        stream = Stream(spoilt, order, preprocessing=Preprocessing(24), skip=True, max_pixels=5000)
        for _ in range(2):  # passes
            once = [label for _, batch in take(stream, order.batches) for label in batch.tolist()]
        labels += once
    assert labels.count(EXCLUDED) == len(BAD)
    assert labels.count(PADDING) == len(labels) - COUNT
    assert sorted(label for label in labels if label >= 0) == sorted(set(range(COUNT)) - set(BAD))


def test_a_set_without_a_good_file_ends(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "a.jpg").write_bytes(b"")
    stream = Stream(
        open_folder(str(tmp_path)), EvalOrder(3, 2), preprocessing=Preprocessing(24), skip=True
    )
    with pytest.raises(WorkError, match=r"^none of the 3 images can be decoded"):
        take(stream, 2)


def test_too_large_a_file_ends_the_stream_by_name(spoilt: FolderSource) -> None:
    one = spoilt.subset(np.array([13]))
    stream = Stream(one, EvalOrder(1, 1), preprocessing=Preprocessing(24), max_pixels=5000)
    with pytest.raises(
        WorkError, match=r"13/a.jpg has 6,000 pixels, more than 5,000: .*on_corrupt=skip"
    ):
        next(stream)
