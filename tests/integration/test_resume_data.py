"""Two ranks with every augmentation, killed and resumed: bit for bit the run that went on.

The data sets share out what else there is to keep: each optimizer, freezing, a teacher.
"""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ranks import train
from res2net.data.augmentation import Augmentation
from res2net.data.datamodule import EpochLoader, ImageDataModule
from res2net.data.sharding.writer import write_shards
from res2net.data.sources.in_memory import ArraySource
from res2net.preprocessing import Preprocessing
from runs import differences, read_state, rows
from samples import VARIANT, photo, save_network, small_network
from sharding import make

EPOCHS, STEPS = 3, 6
SETTINGS = (
    "quickstart",
    f"trainer.max_epochs={EPOCHS}",
    "data.global_batch_size=8",
    "data.eval_batch_size=8",
    "data.tail=wrap",
    "checkpoint.every_steps=1",
    "logging.every_steps=2",
    "optim.lr=0.02",
    "augment.flip=0.5",
    "augment.erase=0.5",
    "augment.repeats=2",
    "augment.mixup=0.4",
    "augment.cutmix=1",
    "augment.mix_probability=0.6",
    "loss.label_smoothing=0.1",
    "optim.ema_decay=0.8",
)
PHOTOGRAPHS = (
    "data.image_size=32",
    "augment.crop=random_resized",
    "augment.color_jitter=0.4",
    "augment.hue_jitter=0.1",
    "augment.start_size=16",
    f"augment.grow_until={EPOCHS - 1}",
)


def photographs(root: Path) -> None:
    """Not the same number of each class, and no multiple of the global batch."""
    train = {f"train/{name}": count for name, count in (("ant", 20), ("bee", 14), ("cat", 7))}
    make(root, train | {f"val/{name}": 4 for name in ("ant", "bee", "cat")}, size=(48, 40))


def folder(path: Path) -> tuple[str, ...]:
    """With a file in each split that cannot be decoded."""
    photographs(path / "folder")
    (path / "folder/train/ant/bad.jpg").write_bytes(b"no image")
    (path / "folder/val/bee/bad.jpg").write_bytes(b"")
    return (
        *PHOTOGRAPHS,
        "data.source=folder",
        "data.root=folder",
        "data.on_corrupt=skip",
        "augment.policy=trivial_augment",
        "loss.class_weights=balanced",
        "optim.name=adamw",
        "optim.lr=0.002",
        "optim.freeze=1",
        "optim.layer_decay=0.7",
    )


def shards(path: Path) -> tuple[str, ...]:
    photographs(path / "folder")
    write_shards(str(path / "folder"), str(path / "shards"), shard_bytes=10_000)
    teacher = save_network(small_network(3), path / "teacher.pth", described=False)
    return (
        *PHOTOGRAPHS,
        "data.source=shards",
        "data.root=shards",
        "data.sampling=balanced",
        "augment.policy=rand_augment",
        f"loss.teacher={VARIANT}",
        f"loss.teacher_weights={teacher}",
        "loss.temperature=2",
        "model.drop_path=0.2",
        "optim.name=lamb",
    )


def cifar(path: Path) -> tuple[str, ...]:
    """The published layout with fewer records."""
    root = path / "cifar/cifar-10-batches-bin"
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    batches = [f"data_batch_{number}" for number in range(1, 6)]
    for name in (*batches, "test_batch"):
        records = bytearray()
        for _ in range(9):
            image = np.asarray(photo(int(rng.integers(1 << 30)), (32, 32)))
            records += bytes([rng.integers(10)]) + image.transpose(2, 0, 1).tobytes()
        (root / f"{name}.bin").write_bytes(records)
    (root / "batches.meta.txt").write_text("\n".join(map(str, range(10))))
    return (
        "data.source=cifar10",
        "data.root=cifar",
        "data.image_size=32",
        "augment.crop=pad",
        "augment.pad=4",
        "loss.name=bce",
        "loss.class_weights=balanced",
        "optim.name=muon",
        "optim.ema_every=2",
    )


FIVE = (1, 5, 6, 9, 14)
"""In the first step, before and after an epoch's last one, in the middle, in the last epoch."""


ONCE = [(folder, (8,)), (shards, (8,))]  # images in memory: test_kills.py
AGAIN = [pytest.param(each, FIVE, marks=pytest.mark.soak) for each in (folder, shards, cifar)]


@pytest.mark.parametrize(("data_set", "stops"), [*ONCE, *AGAIN])
def test_killed_on_two_ranks_equals_never_killed(
    data_set, stops: tuple[int, ...], tmp_path: Path, environment: dict[str, str]
) -> None:
    arguments = (*SETTINGS, *data_set(tmp_path), "run.resume=auto")
    whole, killed = (tmp_path / "checkpoints" / name for name in ("whole", "killed"))
    train(tmp_path, environment, *arguments, "run.name=whole")
    for stop in stops:
        train(tmp_path, environment, *arguments, "run.name=killed", run=killed, kill_at=stop)
    train(tmp_path, environment, *arguments, "run.name=killed")

    state = read_state(whole / "last.ckpt")
    assert state["global_step"] == EPOCHS * STEPS
    every = 2 if data_set is cifar else 1
    assert state["ema_updates"] == EPOCHS * STEPS // every
    assert differences(state, read_state(killed / "last.ckpt")) == []
    assert differences(read_state(whole / "best.ckpt"), read_state(killed / "best.ckpt")) == []
    assert rows(whole) == rows(killed)
    assert sum("val_ema,top1" in row for row in rows(whole)) == EPOCHS
    quarantines = [run / "quarantine.txt" for run in (whole, killed)]
    if data_set is folder:
        one, other = (path.read_text() for path in quarantines)
        assert one == other
        assert one.splitlines() == [
            "folder/train/ant/bad.jpg\tcannot be decoded",
            "folder/val/bee/bad.jpg\tis empty",
        ]
    else:
        assert not any(path.exists() for path in quarantines)


# Other ranks

COUNT, GLOBAL_BATCH = 67, 12
IMBALANCED = np.repeat([0, 1, 2], [40, 20, 7])


def module(world: int, rank: int, accumulate: int, augmentation: Augmentation) -> ImageDataModule:
    """Images of one colour, which is their index, so that no augmentation hides which they are."""
    pixels = np.broadcast_to(
        np.arange(COUNT, dtype=np.uint8)[:, None, None, None], (COUNT, 8, 8, 3)
    )
    source = ArraySource("colours", tuple("abc"), IMBALANCED, pixels)
    data = ImageDataModule(
        source,
        source,
        preprocessing=Preprocessing(image_size=8, crop_fraction=1.0),
        augmentation=augmentation,
        global_batch_size=GLOBAL_BATCH,
        accumulate=accumulate,
        wrap=True,
        repeats=2,
        balanced=True,
    )
    data.trainer = SimpleNamespace(
        training=False,
        world_size=world,
        global_rank=rank,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    return data


@pytest.mark.parametrize("crop", ["none", "random_resized"])  # without DALI, and with it
@pytest.mark.parametrize("stop", [2, 7, 11])
def test_two_ranks_go_on_as_one_with_repeats_balance_and_a_wrapped_tail(
    crop: str, stop: int
) -> None:
    def taken(ranks: list[ImageDataModule], steps: int) -> list[list[int]]:
        """Per optimizer step the samples that all ranks take, sorted."""
        loaders = [rank.train_dataloader() for rank in ranks]
        rows = [endless(loader) for loader in loaders]
        found = []
        for _ in range(steps):
            batches = [next(row) for row in rows for _ in range(ranks[0].accumulate)]
            for images, labels in batches:
                assert torch.equal(labels, torch.from_numpy(IMBALANCED)[images[:, 0, 4, 4].int()])
            found.append(sorted(int(i) for images, _ in batches for i in images[:, 0, 4, 4]))
        return found

    augmentation = Augmentation(crop=crop)
    per_epoch = -(-COUNT // GLOBAL_BATCH)
    total = 2 * per_epoch
    whole = taken([module(2, rank, 1, augmentation) for rank in range(2)], total)
    ranks = [module(2, rank, 1, augmentation) for rank in range(2)]
    before = taken(ranks, stop)
    one = module(1, 0, 2, augmentation)
    one.load_resume_state([rank.resume_state() for rank in ranks], None)
    assert before + taken([one], total - stop) == whole

    first = [sample for step in whole[:per_epoch] for sample in step]
    assert len(first) == per_epoch * GLOBAL_BATCH
    classes = np.bincount(IMBALANCED[first])
    assert classes.max() - classes.min() <= GLOBAL_BATCH  # two copies, and the wrapped tail


def endless(loader: EpochLoader) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    while True:
        yield from loader
