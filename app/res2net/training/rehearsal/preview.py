"""`res2net train --preview`: the first training images as the network will see them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from res2net import imagenet
from res2net.config.schema import Config
from res2net.plots.tiles import COLUMNS, ROWS, SIDE, draw_tiles
from res2net.training.data import build_data, open_data
from res2net.training.plan import make_plan


def draw_preview(config: Config, file: Path) -> int:
    """Draw the first images of the run, augmented, with their labels; return how many.

    Raises:
        InputError, WorkError: as `training.run.train`; no run is begun.
    """
    plan = make_plan(config.trainer, workers=config.data.workers)
    train, val = open_data(config.data)
    data = build_data(_one_batch(config, len(train)), plan, train, val)
    device = torch.device("cuda", 0) if plan.accelerator == "cuda" else torch.device("cpu")
    stream = data.open_train_stream(1, 0, device)
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1)
                 for v in (data.preprocessing.mean, data.preprocessing.std))  # fmt: skip
    names = imagenet.readable(train.class_names)
    tiles: list[tuple[Image.Image, str]] = []
    while len(tiles) < COLUMNS * ROWS:
        images, labels = next(stream)
        images = data.finish(images, training=True) * std + mean
        pixels = (255 * images).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu()
        tiles += [
            (Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR), names[label])
            for image, label in zip(pixels.numpy(), labels.tolist(), strict=True)
        ]
    tiles = tiles[: COLUMNS * ROWS]
    size = data.train_image_size
    mixed = " before mixing" if config.augment.mixup or config.augment.cutmix else ""
    note = f"{len(tiles)} views of {len(train):,} training images, augmented{mixed}, {size} px"
    draw_tiles(tiles, file, title=config.run.name, note=note)
    return len(tiles)


def _one_batch(config: Config, images: int) -> Config:
    """Batches of one device, and no larger than the data are: what there is can be drawn."""
    batch = min(max(1, config.data.global_batch_size // config.trainer.accumulate), images)
    return replace(
        config,
        data=replace(config.data, global_batch_size=batch),
        trainer=replace(config.trainer, accumulate=1),
    )
