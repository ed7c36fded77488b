"""Classification losses on hard or soft targets, with smoothing and class weights."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from res2net.config.schema_learning import LossConfig
from res2net.errors import InputError


class Loss(nn.Module):
    """(logits (N, K), targets int64 (N,) or float (N, K)) -> scalar float32.

    `cross_entropy` is torch's. `bce` is the mean over images and classes of a yes or no for each
    class (ResNet strikes back, arXiv 2110.00476), as timm's BinaryCrossEntropy.

    Smoothing s turns targets t into (1 - s) * t + s / K, hard and soft ones alike, as torch does
    and as timm does where it mixes: a mixture of smoothed targets is the smoothed mixture. (timm's
    BinaryCrossEntropy by itself leaves soft targets as they are.) bce's threshold comes after it.

    `balanced` weights, n / (classes that have images * images of the class), are 1 in the mean over
    the training images. In cross-entropy they multiply each class's target, as torch's do. In bce
    they multiply a whole image's loss, by the mean of the weights under its targets (before
    smoothing): multiplied to a class's yes and no alike they would leave the balance of the two as
    it was. Hard and unsmoothed, both are the loss over a set in which each class is equally often.

    Args:
        config: the group `loss`; the teacher's keys are `distillation`'s.
        num_classes: K.
        counts: int (K,), training images of each class; needed by `balanced` alone.

    Raises:
        InputError: a threshold that no class or every class exceeds, or without bce.
    """

    weight: torch.Tensor | None

    def __init__(
        self, config: LossConfig, *, num_classes: int, counts: np.ndarray | None = None
    ) -> None:
        super().__init__()
        _check_threshold(config, num_classes)
        self.name = config.name
        self.smoothing = config.label_smoothing
        self.threshold = config.bce_threshold
        weight = None
        if config.class_weights == "balanced":
            assert counts is not None and len(counts) == num_classes
            weight = torch.from_numpy(balanced_weights(counts)).float()
        # follows from the data: a checkpoint with it would not load into a run without
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = logits.float()  # 16 bits are too few for sums of exponentials
        total = self._bce(logits, targets) if self.name == "bce" else self._ce(logits, targets)
        # by the number of images, not by the sum of their weights: that differs from batch to
        # batch, and the same images cut into other batches or devices would give other gradients
        return total / len(logits)

    def _ce(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Sum over the images."""
        return F.cross_entropy(
            logits,
            targets if targets.ndim == 1 else targets.float(),
            weight=self.weight,
            label_smoothing=self.smoothing,
            reduction="sum",
        )

    def _bce(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Sum over the images of the mean over the classes."""
        soft = targets.float()
        if targets.ndim == 1:
            soft = torch.zeros_like(logits).scatter_(1, targets[:, None], 1.0)
        wanted = soft * (1 - self.smoothing) + self.smoothing / logits.shape[1]
        if self.threshold:
            wanted = (wanted > self.threshold).float()
        losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(dim=1)
        if self.weight is not None:
            # no matrix product: autocast would make one in 16 bits
            losses = losses * (soft * self.weight).sum(dim=1)
        return losses.sum()


def balanced_weights(counts: np.ndarray) -> np.ndarray:
    """n / (K' * n_c): int (K,) images of each class -> float64 (K,).

    K' is the number of classes that have images; those without any weigh 1.
    """
    present = counts > 0
    weights = np.ones(len(counts))
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights


def _check_threshold(config: LossConfig, num_classes: int) -> None:
    threshold, smoothing = config.bce_threshold, config.label_smoothing
    if not threshold:
        return
    if config.name != "bce":
        raise InputError(
            f"loss.bce_threshold={threshold}: only loss.name=bce has one, not {config.name}; "
            "0 is none"
        )
    low = smoothing / num_classes
    if not low < threshold < 1 - smoothing + low:
        raise InputError(
            f"loss.bce_threshold={threshold}: with loss.label_smoothing={smoothing} and "
            f"{num_classes} classes an image's own class has {1 - smoothing + low:g} and any other "
            f"{low:g}: choose between the two, or 0 for none"
        )
