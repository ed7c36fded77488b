"""Mixup and CutMix of a batch, on the device it is on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torchvision.transforms import v2

from res2net.config.schema_data import AugmentConfig

Mixing = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def build_mixing(augment: AugmentConfig, *, num_classes: int) -> Mixing | None:
    """What mixes a batch, or None if nothing is to be mixed.

    It takes images float (N, 3, H, W) and labels int64 (N,), and gives images of the same shape,
    type and memory format with targets float32 (N, num_classes), whose rows sum to 1; of a batch
    that is not mixed, what it was given. Each image is mixed with the one before it in the batch,
    the first with the last (torchvision's pairs): alone, with itself.

    All that is random comes from torch's global generator of the CPU: restored, it mixes alike, and
    nothing waits for a GPU.
    """
    mixup, cutmix = augment.mixup > 0, augment.cutmix > 0
    if not (mixup or cutmix) or not augment.mix_probability:
        return None
    share = augment.cutmix_share if mixup and cutmix else float(cutmix)
    return _Mix(
        # an alpha of 0 is never drawn from, but torchvision refuses it
        v2.MixUp(alpha=augment.mixup or 1.0, num_classes=num_classes),
        v2.CutMix(alpha=augment.cutmix or 1.0, num_classes=num_classes),
        probability=augment.mix_probability,
        cutmix_share=share,
    )


class _Mix:
    """See `build_mixing`."""

    def __init__(
        self, mixup: v2.MixUp, cutmix: v2.CutMix, *, probability: float, cutmix_share: float
    ) -> None:
        self.mixup = mixup
        self.cutmix = cutmix
        self.probability = probability
        self.cutmix_share = cutmix_share

    def __call__(
        self, images: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # two numbers for every batch, in [0, 1)
        first, second = torch.rand(2, device="cpu").tolist()
        if first >= self.probability:
            return images, labels
        mix = self.cutmix if second < self.cutmix_share else self.mixup
        mixed, targets = mix(images, labels)
        if images.is_contiguous(memory_format=torch.channels_last):
            # rolled on a GPU they are contiguous
            mixed = mixed.contiguous(memory_format=torch.channels_last)
        return mixed, targets
