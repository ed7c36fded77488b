"""Two contenders: the loader as training uses it, and the DALI pipeline in it alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from res2net.bench.work import Batches, Work
from res2net.data import erasing
from res2net.data.augmentation import uniform
from res2net.data.dali import graph
from res2net.data.dali.stream import PREFETCH
from res2net.data.datamodule import ImageDataModule
from res2net.data.order import TrainOrder
from res2net.training.data import build_data
from res2net.training.plan import make_plan
from res2net.training.trainer import build_trainer

MAX_BATCHES = 256
"""Of the bare pipeline, prepared before the clock starts; then they come again."""
_ERASE = 2  # stream of random numbers


def whole_loader(work: Work) -> Batches:
    """`ImageDataModule`'s training batches, moved and normalised as the Trainer has it done."""
    data = _data(work)
    assert data.trainer is not None
    device = data.trainer.strategy.root_device
    loader = data.train_dataloader()
    while True:
        for batch in loader:
            moved = data.transfer_batch_to_device(batch, device, 0)
            yield data.on_after_batch_transfer(moved, 0)


def bare_pipeline(work: Work) -> Batches:
    """The same graph in DALI's own hands: batches chosen and read before the clock starts (paths,
    or bytes in memory), no iterator, no check, no state; then the same normalisation."""
    data = _data(work)
    assert data.train is not None and data.trainer is not None
    order = TrainOrder(
        count=len(data.train), seed=data.seed, batch_size=work.batch_size, wrap=data.wrap
    )
    size = data.train_image_size
    preprocessing = replace(data.preprocessing, image_size=size)
    needed = graph.Work(
        data.train.holds, preprocessing, data.augmentation, work.config.data.max_pixels
    )
    fed: list[tuple[Any, ...]] = []
    for position in range(min(order.batches, MAX_BATCHES)):
        indices = order.batch(position)
        sizes = (np.full((len(indices), 2), size, dtype=np.float32),) if needed.sized else ()
        fed.append((data.train.read(indices), data.train.labels[indices], *sizes))
    device = data.trainer.strategy.root_device
    pipeline = graph.build_pipeline(
        needed,
        lambda info: fed[info.iteration % len(fed)],
        batch_size=work.batch_size,
        threads=work.threads,
        device_id=device.index if device.type == "cuda" else None,
        seed=work.config.run.seed,
        prefetch=PREFETCH,
        checkpoint=None,
    )
    probability = data.augmentation.erase
    position = 0
    while True:
        # DALI's own memory, valid until the next run: normalising makes the copy
        outputs = pipeline.run()
        pixels, labels = (torch.from_dlpack(output.as_tensor()) for output in outputs[:2])
        images = preprocessing.normalise(pixels.permute(0, 3, 1, 2))
        if probability:
            numbers = uniform(order, position, stream=_ERASE, numbers=erasing.NUMBERS)
            erasing.erase(images, numbers, probability=probability)
        yield images, labels.clone().to(device)
        position += 1


def _data(work: Work) -> ImageDataModule:
    plan = make_plan(work.config.trainer, workers=work.threads)
    data = build_data(work.config, plan, work.source, work.source)
    data.trainer = build_trainer(
        plan, precision=work.config.trainer.precision, callbacks=[], logger=False
    )
    data.trainer.training = True
    return data
