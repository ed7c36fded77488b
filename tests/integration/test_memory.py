"""What ImageNet's numbers cost: memory over epochs, and time and memory until the first batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ranks import call

CODE = Path(__file__)


def memory(what: str) -> float:
    """MB of this process: VmRSS, or VmHWM for the most since `forget_the_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{what}:")[2].split()[0]) / 1000


def forget_the_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def module_of(train, **options):
    """A data module of one process on the CPU."""
    from types import SimpleNamespace

    import torch

    from res2net.data.augmentation import Augmentation
    from res2net.data.datamodule import ImageDataModule
    from res2net.preprocessing import Preprocessing

    data = ImageDataModule(
        train,
        train,
        preprocessing=Preprocessing(options.pop("image_size")),
        augmentation=Augmentation(),
        **options,
    )
    data.trainer = SimpleNamespace(
        training=True,
        world_size=1,
        global_rank=0,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    return data


# A data set with as many entries as ImageNet has images

BATCH = 8


def folder(root: Path, count: int):
    """As a scan finds it; only the files of the first batches are there."""
    from res2net.data.order import TrainOrder
    from res2net.data.sources.folder import FolderSource
    from samples import encoded, photo

    each = -(-count // 1000)
    names = [f"n{number:08}" for number in range(1000)]
    files = {
        name: [
            f"{name}/{name}_{image}.JPEG" for image in range(number * each, (number + 1) * each)
        ][: max(0, count - number * each)]
        for number, name in enumerate(names)
    }
    source = FolderSource.of_files(str(root), names, files)
    order = TrainOrder(count=count, seed=0, batch_size=BATCH, labels=source.labels)
    for position in range(6):  # some are read ahead
        for index in order.batch(position).tolist():
            Path(source.path(index)).parent.mkdir(parents=True, exist_ok=True)
            Path(source.path(index)).write_bytes(encoded(photo(index), "JPEG"))
    return source


def shards(root: Path, count: int):
    """Each entry of the index is another label of the same image."""
    import zlib

    import numpy as np

    from res2net.data.sources import shards
    from samples import encoded, photo

    image = encoded(photo(), "JPEG")
    root.mkdir()
    (root / shards.shard_name("train", 0)).write_bytes(bytes(512) + image)
    records = np.zeros(count, dtype=shards.RECORD)
    records["label"] = np.arange(count) * 1000 // count
    records["offset"], records["length"], records["header"] = 512, len(image), 512
    with open(root / "train.index", "wb") as index:
        np.save(index, records)
    train = {
        "images": count,
        "index": {"file": "train.index", "crc32": zlib.crc32(records.data)},
        "shards": [{"file": shards.shard_name("train", 0), "bytes": 512 + len(image)}],
    }
    description = {
        "schema": 1,
        "class_names": list(map(str, range(1000))),
        "splits": {"train": train},
    }
    (root / shards.DESCRIPTION).write_text(json.dumps(description))
    return shards.open_shard_split(str(root), "train")


def first_batch(rank: int, kind: str, root: Path) -> None:
    """Writes seconds and the most memory until the first batch, of few entries and of many."""
    import time

    found = []
    for count in (100, 1_281_167):
        source = {"folder": folder, "shards": shards}[kind](root / str(count), count)
        forget_the_peak()
        start = time.perf_counter()
        data = module_of(source, image_size=32, global_batch_size=BATCH, balanced=True)
        images, _ = next(iter(data.train_dataloader()))
        found.append((time.perf_counter() - start, memory("VmHWM"), tuple(images.shape)))
        del source, data
    (root / "found.json").write_text(json.dumps(found))


@pytest.mark.parametrize("kind", ["folder", "shards"])
def test_the_first_batch_of_a_million_images_comes_soon(kind: str, tmp_path: Path) -> None:
    call(first_batch, kind, tmp_path, ranks=1)
    few, many = found = json.loads((tmp_path / "found.json").read_text())
    assert few[2] == many[2] == [BATCH, 3, 32, 32]
    assert many[0] <= 3, found
    assert many[1] - few[1] <= 300, found


# Epochs


def epochs(root: Path) -> None:
    """Prints the memory after each of twenty epochs of training and validation."""
    import glob

    from res2net.data.sources.folder import FolderSource

    names = sorted(glob.glob("n*.JPEG", root_dir=root))
    source = FolderSource.of_files(str(root), names, {name: [name] for name in names})
    data = module_of(source, image_size=224, global_batch_size=25, eval_batch_size=25)
    train, val = data.train_dataloader(), data.val_dataloader()
    found = []
    for _ in range(20):
        batches = sum(len(labels) for loader in (train, val) for _, labels in loader)
        assert batches == 2 * len(names)
        data.resume_state()
        found.append(memory("VmRSS"))
    print(json.dumps(found))


@pytest.mark.soak
def test_memory_does_not_grow_with_the_epochs() -> None:
    sample = os.environ.get("RES2NET_IMAGENET_SAMPLE")
    if not sample:
        pytest.fail("RES2NET_IMAGENET_SAMPLE: set it to a folder of ImageNet's JPEG files")
    done = subprocess.run(
        [sys.executable, CODE, sample],
        env=os.environ | {"PYTHONPATH": str(CODE.parents[1])},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 20
    # flat within 5 %, from the end of the first epoch: until then the buffers are made
    assert max(found) <= 1.05 * found[0], found


if __name__ == "__main__":
    epochs(Path(sys.argv[1]))
