"""The contender that most use: torchvision's transforms on PIL images, in DataLoader's workers."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import transforms
from torchvision.datasets.folder import default_loader

from res2net.bench.work import Batches, Work
from res2net.config.schema import Config
from res2net.data.sources.source import Source
from res2net.preprocessing import Preprocessing


def torchvision_loader(work: Work) -> Batches:
    """As torchvision's own training references do it, with a worker where DALI has a thread."""
    torch.manual_seed(work.config.run.seed)
    device = torch.device(work.device)
    loader = DataLoader(
        _Images(work.original, transform(work.config, work.original)),
        batch_size=work.batch_size,
        sampler=_Shuffled(len(work.original), work.config.run.seed),
        num_workers=work.threads,
        pin_memory=device.type == "cuda",
    )
    for images, labels in loader:
        yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)


def transform(config: Config, source: Source) -> transforms.Compose:
    """PIL image -> normalised float32 (3, S, S), for what the configuration asks for."""
    data, augment = config.data, config.augment
    mode = transforms.InterpolationMode(data.interpolation)
    size = data.image_size
    steps: list[Any] = []
    if augment.crop == "random_resized":
        steps.append(transforms.RandomResizedCrop(size, augment.area, augment.ratio, mode))
    elif _pixels(source) != (size, size):
        short = Preprocessing(image_size=size, crop_fraction=data.crop_fraction).resize_size
        steps += [transforms.Resize(short, mode), transforms.CenterCrop(size)]
    if augment.crop == "pad":
        steps.append(transforms.RandomCrop(size, padding=augment.pad))
    if augment.flip:
        steps.append(transforms.RandomHorizontalFlip(augment.flip))
    grey = [128.0] * 3
    if augment.policy == "rand_augment":
        ops, magnitude = augment.policy_ops, augment.policy_magnitude
        steps.append(transforms.RandAugment(ops, magnitude, fill=grey))
    elif augment.policy == "auto_augment":
        steps.append(transforms.AutoAugment(fill=grey))
    elif augment.policy == "trivial_augment":
        steps.append(transforms.TrivialAugmentWide(fill=grey))
    if augment.color_jitter or augment.hue_jitter:
        jitter = [augment.color_jitter] * 3
        steps.append(transforms.ColorJitter(*jitter, hue=augment.hue_jitter))
    steps += [transforms.ToTensor(), transforms.Normalize(data.mean, data.std, inplace=True)]
    if augment.erase:
        steps.append(transforms.RandomErasing(augment.erase, inplace=True))
    return transforms.Compose(steps)


def _pixels(source: Source) -> tuple[int, ...]:
    """Height and width of images in memory; nothing of files."""
    if source.holds != "pixels":
        return ()
    return np.shape(source.read(np.zeros(1, dtype=np.int64)))[1:3]


class _Images(Dataset[tuple[torch.Tensor, int]]):
    """What ImageFolder and CIFAR10 of torchvision do, for any source."""

    def __init__(self, source: Source, transform: transforms.Compose) -> None:
        self.source, self.transform = source, transform
        self.labels = source.labels.tolist()
        self.paths: list[str] = []
        if source.holds == "paths":
            everything = source.read(np.arange(len(source)))
            self.paths = [os.fsdecode(bytes(path)) for path in everything]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self._open(index)), self.labels[index]

    def _open(self, index: int) -> Image.Image:
        if self.paths:
            return default_loader(self.paths[index])
        (held,) = self.source.read(np.array([index]))
        if self.source.holds == "pixels":
            return Image.fromarray(held)
        return Image.open(io.BytesIO(held.tobytes())).convert("RGB")


class _Shuffled(Sampler[int]):
    """Epoch after epoch without a gap in between, in which workers would wait."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[int]:
        while True:
            yield from torch.randperm(self.count, generator=self.generator).tolist()
