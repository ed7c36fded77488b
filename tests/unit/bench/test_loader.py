"""The three contenders do the same work, and a small real run of them gives sane figures."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from res2net.bench.contender import CONTENDERS, Contender, open_contender
from res2net.bench.loader import compare_loaders
from res2net.bench.work import Work, alone
from res2net.config.load import load_config
from res2net.data.sources.in_memory import ArraySource
from res2net.errors import InputError, WorkError
from res2net.training.data import open_data
from samples import encoded, photo
from schemas import fits


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for number in range(24):
        file = root / "ab"[number % 2] / f"{number}.jpg"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(encoded(photo(number), "JPEG"))
    return root


def work_of(folder: Path, *more: str) -> Work:
    keys = ["data.source=folder", f"data.root={folder}", "data.global_batch_size=8"]
    keys += ["data.image_size=32", "trainer.accelerator=cpu", "data.workers=1"]
    config = alone(load_config("quickstart", [*keys, *more]))
    source, _ = open_data(config.data)
    return Work(config, "cpu", 1, source, source)


@pytest.mark.parametrize("crop", ["random_resized", "pad", "none"])
def test_contenders_do_the_same_work(folder, crop):
    # the whole image of a fixed ratio: all crop alike
    work = work_of(folder, f"augment.crop={crop}", "augment.area=[0.9,1]", "augment.pad=1")
    means, seen = {}, {}
    for name in CONTENDERS:
        batches = open_contender(name, work)
        taken = [next(batches) for _ in range(4)]
        for images, labels in taken:
            assert images.shape == (8, 3, 32, 32) and images.dtype == torch.float32
            assert labels.shape == (8,) and labels.dtype == torch.int64
        seen[name] = torch.cat([images.clone() for images, _ in taken])
        means[name] = seen[name].mean(), seen[name].std()
        batches.close()
    for mean, std in means.values():
        assert (
            abs(mean - means["torchvision"][0]) < 0.05 and abs(std / means["loader"][1] - 1) < 0.1
        )


def test_loader_and_bare_pipeline_give_equal_images(folder):
    # nothing random, as the seeds of the two differ
    work = work_of(folder, "augment.crop=none", "augment.flip=0")
    ours, bare = (open_contender(name, work) for name in ("loader", "dali"))
    for _ in range(2):  # an epoch; then the bare pipeline begins again
        for mine, theirs in zip(next(ours), next(bare), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def test_images_in_memory_without_augmentation_are_equal():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    source = ArraySource("some/train", ("a", "b"), np.arange(16) % 2, pixels)
    work = work_of_arrays(source)
    sums = {}
    for name in CONTENDERS:
        batches = open_contender(name, work)
        epoch = torch.cat([next(batches)[0].clone() for _ in range(2)])
        batches.close()
        sums[name] = epoch.double().sum((1, 2, 3)).sort().values
    torch.testing.assert_close(sums["loader"], sums["torchvision"], rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(sums["loader"], sums["dali"], rtol=1e-5, atol=1e-3)


def work_of_arrays(source: ArraySource) -> Work:
    keys = ["data.global_batch_size=8", "data.image_size=32", "trainer.accelerator=cpu"]
    config = alone(load_config("quickstart", [*keys, "augment.crop=none"]))
    return Work(config, "cpu", 1, source, source)


def test_a_small_run(folder):
    turns = 0

    def count() -> None:
        nonlocal turns
        turns += 1

    work = work_of(folder)
    two = ("loader", "torchvision")  # each is a process that takes seconds to start
    result = compare_loaders(work.config, pairs=2, images=16, contenders=two, progress=count)
    assert turns == 4
    assert list(result["contenders"]) == [*two]
    fits("bench_loader", json.dumps({"command": "res2net bench loader", **result}))
    for summary in result["contenders"].values():
        assert summary["images_per_second"] > 1 and summary["cpu_ms_per_image"] >= 0
        assert 50 < summary["memory_mb"] <= summary["rss_mb"] < 100_000
        assert [turn["images"] for turn in summary["turns"]] == [16, 16]
    assert list(result["ratios"]) == ["loader/torchvision"]
    ours, theirs = (result["contenders"][name]["turns"] for name in ("loader", "torchvision"))
    assert result["ratios"]["loader/torchvision"]["pairs"] == [
        one["images_per_second"] / other["images_per_second"]
        for one, other in zip(ours, theirs, strict=True)
    ]
    assert result["work"]["files"] == len(work.source)
    assert result["machine"]["cores"] == len(os.sched_getaffinity(0))


def test_what_a_contender_meets_is_raised_here(folder, tmp_path):
    work = work_of(folder)
    wrong = replace(work.config.augment, start_size=9)
    impossible = replace(work, config=replace(work.config, augment=wrong))
    with pytest.raises(InputError, match=r"augment\.start_size=9"), Contender("loader", impossible):
        pass
    contender = Contender("torchvision", work)
    contender._process.kill()
    with pytest.raises(WorkError, match="torchvision: its process ended"), contender:
        pass
