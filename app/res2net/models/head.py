"""What turns feature maps into class scores, and the whole classifier."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from res2net.models.dla import DLA
from res2net.models.res2net import Res2Net

Backbone = Res2Net | DLA


class ClassificationHead(nn.Module):
    """Global average pool and one linear layer: (N, C, H, W) -> logits (N, num_classes)."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(in_channels, num_classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> logits (N, num_classes)."""
        return self.fc(self.pool(features))

    @staticmethod
    def pool(features: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C)."""
        return F.adaptive_avg_pool2d(features, 1).flatten(1)


class Res2NetClassifier(nn.Module):
    """A backbone and its head.

    Attributes:
        num_classes: Columns of the logits.
        in_channels: Channels of the images.
        num_features: Numbers that the classifier sees of an image, C.
        variant: Name in `VARIANTS` that the backbone was built from; empty for one of your own.
    """

    def __init__(self, backbone: Backbone, num_classes: int, *, variant: str = "") -> None:
        super().__init__()
        self.backbone = backbone
        self.head = ClassificationHead(backbone.stage_channels[-1], num_classes)
        self.num_classes = num_classes
        self.num_features = backbone.stage_channels[-1]
        self.in_channels = backbone.in_channels
        self.variant = variant

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images (N, in_channels, H, W) -> logits (N, num_classes)."""
        return self.forward_head(self.forward_features(images))

    def feature_maps(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(N, in_channels, H, W) -> one map a stage, see `Res2Net.forward`."""
        return self.backbone(images)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> the last stage's map (N, C, H / stride, W / stride)."""
        return self.backbone(images)[-1]

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """The last stage's map (N, C, h, w) -> logits (N, num_classes).

        `pre_logits`: what the classifier would see, (N, C), as in timm.
        """
        return self.head.pool(features) if pre_logits else self.head(features)
