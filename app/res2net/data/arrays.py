"""Batches of images that are in memory and need no resizing: CIFAR's path.

Crops and flips of many small images at once are index arithmetic; the whole set lies where the
network is. Nothing is random but a function of the position, so any stream can start anywhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from res2net.data.augmentation import Augmentation, uniform
from res2net.data.order import PADDING, EvalOrder, TrainOrder
from res2net.data.sources.source import Source

_CROP_AND_FLIP = 1  # stream of random numbers


class ArrayStream:
    """An endless iterator of (images, labels) like `dali.stream.Stream`; see there."""

    def __init__(
        self,
        source: Source,
        order: TrainOrder | EvalOrder,
        *,
        augmentation: Augmentation | None = None,
        device: torch.device,
        position: int = 0,
    ) -> None:
        self.source = source
        self.order = order
        self.augmentation = augmentation
        self.position = position
        self.bad: dict[int, str] = {}  # pixels are always good
        everything = np.arange(len(source))
        # (count, H, W, 3): 150 MB for CIFAR
        self.images = torch.from_numpy(np.asarray(source.read(everything))).to(device)
        self.labels = torch.from_numpy(source.labels)

    @staticmethod
    def can(source: Source, image_size: int, augmentation: Augmentation | None) -> bool:
        """Whether the images need nothing but a window, a flip and erasing."""
        if source.holds != "pixels":
            return False
        _, height, width, _ = np.shape(source.read(np.zeros(1, dtype=np.int64)))
        a = augmentation or Augmentation(crop="none", flip=0)
        plain = a.crop != "random_resized" and a.policy == "none"
        return height == width == image_size and plain and not (a.color_jitter or a.hue_jitter)

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 (N, 3, H, W) in channels_last strides, on the device; int64 (N,)."""
        indices = torch.from_numpy(self.order.batch(self.position).copy())
        padding = indices == PADDING
        labels = self.labels[indices].masked_fill_(padding, PADDING)
        images = self.images[self._moved(indices.clamp(min=0))]
        if self.augmentation is not None:
            images = self._augment(images, self.augmentation)
        self.position += 1
        return images.permute(0, 3, 1, 2), labels

    def _augment(self, images: torch.Tensor, augmentation: Augmentation) -> torch.Tensor:
        """Images uint8 (N, H, W, 3)."""
        assert isinstance(self.order, TrainOrder)
        numbers = uniform(self.order, self.position, stream=_CROP_AND_FLIP, numbers=3)
        count, size = images.shape[:2]
        if augmentation.crop == "pad":
            pad = augmentation.pad
            offsets = torch.from_numpy((numbers[:, :2] * (2 * pad + 1)).astype(np.int64))
            down, right = self._moved(offsets.T)
            padded = F.pad(images, (0, 0, pad, pad, pad, pad))
            windows = padded.unfold(1, size, 1).unfold(2, size, 1).permute(0, 1, 2, 4, 5, 3)
            images = windows[torch.arange(count, device=images.device), down, right]
        flipped = self._moved(torch.from_numpy(numbers[:, 2] < augmentation.flip))
        return torch.where(flipped[:, None, None, None], images.flip(2), images)

    def _moved(self, numbers: torch.Tensor) -> torch.Tensor:
        """To where the images are; waiting for a copy would hold up a GPU in every step."""
        return numbers.to(self.images.device, non_blocking=True)

    def state_dict(self) -> dict[str, Any]:
        """Where it stands."""
        return {"position": self.position}
