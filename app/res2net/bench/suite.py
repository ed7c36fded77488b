"""All that BENCHMARKS.md shows of a machine, measured in one go, without network or data."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from res2net.bench.machine import machine
from res2net.bench.model import compare_models
from res2net.bench.networks import Compile, ModelWork, open_networks
from res2net.bench.profile import profile_pass
from res2net.bench.train import compare_loops
from res2net.config.load import load_config
from res2net.data.sharding.writer import write_shards

_CLASSES = 4


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    batch_size: int
    image_size: int
    precision: str
    compile: Compile
    rounds: int
    seconds: float
    """Of a turn, at least."""
    steps: int
    photos: int
    """Generated JPEG files of 500 x 375 pixels; the loader reads them from shards with a short
    side of 256."""


ON_GPU = Extent(256, 224, "bf16", "default", rounds=5, seconds=1.0, steps=30, photos=2048)
ON_CPU = Extent(16, 224, "float32", "", rounds=5, seconds=1.0, steps=3, photos=128)
_TRAINER_PRECISION = {"float32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def run_suite(
    variants: Sequence[str],
    *,
    device: str,
    extent: Extent,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Passes of each variant beside its peers; of the first also profiles and training loops.

    Raises:
        InputError: no variant has that name.
        WorkError: the device's memory does not suffice, or a step failed.
    """
    models = {}
    for variant in variants:
        work = ModelWork(
            variant, extent.batch_size, extent.image_size, extent.precision, device, extent.compile
        )
        # compiling takes a minute a network: training alone, where it matters
        eager = replace(work, compile="")
        compare = partial(
            compare_models, rounds=extent.rounds, seconds=extent.seconds, progress=progress
        )
        models[variant] = {
            "forward": compare(eager, passes=["forward"]),
            "step": compare(work, passes=["step"]),
        }
    first = ModelWork(variants[0], extent.batch_size, extent.image_size, extent.precision, device)
    profiles = {}
    for network in open_networks(first, "step"):
        if network.name in ("ours", "timm"):
            profiles[network.name] = profile_pass(network, "step")
            progress()
    return {
        "schema": 1,
        "machine": machine(),
        "models": models,
        "profiles": profiles,
        "loops": _loops(variants[0], device, extent, progress),
    }


def _loops(
    variant: str, device: str, extent: Extent, progress: Callable[[], None]
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        photos, shards = Path(directory) / "photos", Path(directory) / "shards"
        make_photos(photos / "train", extent.photos)
        make_photos(photos / "val", 2 * _CLASSES)
        cores = len(os.sched_getaffinity(0))
        write_shards(str(photos), str(shards), resize=256, workers=cores, expect=())
        config = load_config(
            "imagenet/paper",
            [
                f"model.name={variant}",
                "model.num_classes=1000",
                "data.source=shards",
                f"data.root={shards}",
                f"data.global_batch_size={min(extent.batch_size, extent.photos)}",
                f"data.image_size={extent.image_size}",
                f"trainer.accelerator={device}",
                "trainer.devices=1",
                "trainer.num_nodes=1",
                f"trainer.precision={_TRAINER_PRECISION[extent.precision]}",
                f"trainer.compile={'true' if extent.compile else 'false'}",
            ],
        )
        return compare_loops(config, rounds=extent.rounds, steps=extent.steps, progress=progress)


def make_photos(folder: Path, count: int) -> None:
    """JPEG files of about 100 kB, as ImageNet's are: smooth fields with fine noise on them."""
    from PIL import Image

    numbers = np.random.default_rng(0)
    for index in range(count):
        coarse = numbers.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        photo = np.asarray(Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC))
        noisy = np.clip(photo + numbers.normal(0, 12, photo.shape), 0, 255).astype(np.uint8)
        encoded = BytesIO()
        Image.fromarray(noisy).save(encoded, "JPEG", quality=90)
        file = folder / str(index % _CLASSES) / f"{index:05}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded.getvalue())
