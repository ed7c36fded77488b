"""The backbone: a stem and stages of Res2Net blocks, images to feature maps."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from res2net.models.blocks import Bottle2neck, initialise, linear_drop_path

Stem = Literal["v1", "deep", "cifar"]
EXPANSION = 4
"""Output channels of a block per plane."""


class Res2Net(nn.Module):
    """A ResNet whose bottlenecks are Res2Net blocks.

    Source: Res2Net, arXiv 1904.01169, section 3.3 and table 1; v1b's deep stem and averaging
    shortcut are those of ResNet-D (arXiv 1812.01187, figure 2). Stage i has `base_channels` * 2**i
    planes and four times as many output channels; every stage but the first halves the size.

    Attributes:
        in_channels: Channels of the images.
        stage_channels: Channels of each feature map.
        stage_strides: Pixels of the image per pixel of each feature map.
        stem_weight: Key of the weight that sees the images, in the backbone's `state_dict`.
    """

    stem_weight = "stem.conv1.weight"

    def __init__(
        self,
        *,
        stage_depths: Sequence[int],
        base_width: int = 26,
        scale: int = 4,
        cardinality: int = 1,
        stem: Stem = "v1",
        avg_down: bool = False,
        base_channels: int = 64,
        in_channels: int = 3,
        stride_1_first_as_normal: bool = False,
        pool_count_include_pad: bool = True,
        full_width_first: bool = False,
        se_reduction: int | None = None,
        drop_path: float = 0.0,
    ) -> None:
        """Build and initialise the backbone.

        Args:
            stage_depths: Number of blocks of each stage.
            base_width: Channels of a chunk per 64 planes, and per group.
            scale: Chunks of a block.
            cardinality: Groups of the 3x3 convolutions (Res2NeXt).
            stem: `v1`: 7x7 of stride 2 and a max pool. `deep`: three 3x3 and a max pool (v1b).
                `cifar`: one 3x3 that keeps the size.
            avg_down: Shortcuts average before they project (v1b).
            base_channels: Planes of the first stage and output channels of the stem.
            in_channels: Channels of the images.
            stride_1_first_as_normal: The first block of the first stage is a `normal` one, as
                PaddleClas has it.
            pool_count_include_pad: See `Bottle2neck`; False for PaddleClas's weights.
            full_width_first: The first block of each stage is not split: one 3x3 convolution over
                all its channels, in scale * cardinality groups. The parameters of the paper's
                CIFAR networks (table 4) are those of this form.
            se_reduction: Squeeze and excitation in every block, see `Bottle2neck`.
            drop_path: Stochastic depth of the last block, see `blocks.linear_drop_path`.

        Convolutions start from He's normal distribution over fan_out and norms from 1 and 0; the
        last norm of a block too, as in the published recipe (no zero-init). For Res2NeXt the
        original writes normal(sqrt(2 / (k * k * out_channels))), which is the same: PyTorch's
        fan_out leaves the groups out of account.

        Raises:
            ValueError: drop_path is not in [0, 1).
        """
        super().__init__()
        self.in_channels = in_channels
        self.stem = _build_stem(stem, in_channels, base_channels)
        rates = iter(linear_drop_path(drop_path, sum(stage_depths)))
        stages: list[nn.Sequential] = []
        channels = base_channels
        for index, depth in enumerate(stage_depths):
            planes = base_channels * 2**index
            blocks: list[Bottle2neck] = []
            for position in range(depth):
                stride = 2 if index > 0 and position == 0 else 1
                opens = position == 0 and not (stride == 1 and stride_1_first_as_normal)
                whole = position == 0 and full_width_first
                blocks.append(
                    Bottle2neck(
                        channels,
                        planes,
                        stride=stride,
                        kind="stage" if opens else "normal",
                        base_width=base_width,
                        scale=1 if whole else scale,
                        cardinality=scale * cardinality if whole else cardinality,
                        expansion=EXPANSION,
                        avg_down=avg_down,
                        pool_count_include_pad=pool_count_include_pad,
                        se_reduction=se_reduction,
                        drop_path=next(rates),
                    )
                )
                channels = planes * EXPANSION
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)

        first_stride = 1 if stem == "cifar" else 4
        count = len(stages)
        self.stage_channels = tuple(base_channels * 2**index * EXPANSION for index in range(count))
        self.stage_strides = tuple(first_stride * 2**index for index in range(count))
        *_, relu = (name for name, _ in self.stem.named_children() if name != "pool")
        self._stem_map = (base_channels, 1 if stem == "cifar" else 2, f"stem.{relu}")
        self.apply(initialise)

    def describe_maps(self) -> list[tuple[int, int, str]]:
        """Channels, stride and module of each map that `pyramid` gives."""
        names = [f"stages.{index}" for index in range(len(self.stages))]
        stages = zip(self.stage_channels, self.stage_strides, names, strict=True)
        return [self._stem_map, *stages]

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(N, in_channels, H, W) -> per stage (N, C, ceil(H / stride), ceil(W / stride)).

        C and stride stand in `stage_channels` and `stage_strides`. Any H and W will do.
        """
        # (N, base_channels, H / 4, W / 4), cifar: (.., H, W)
        return self._run_stages(self.stem(images))

    def pyramid(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """As `forward`, and before it the stem's map (N, base_channels, H / 2, W / 2)."""
        features = stem = images
        for name, layer in self.stem.named_children():
            features = layer(features)
            if name != "pool":
                stem = features
        return stem, *self._run_stages(features)

    def keep_stages(self, count: int) -> None:
        """Leave out all stages but the first `count`."""
        self.stages = self.stages[:count]
        self.stage_channels = self.stage_channels[:count]
        self.stage_strides = self.stage_strides[:count]

    def _run_stages(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        maps: list[torch.Tensor] = []
        for stage in self.stages:
            features = stage(features)  # (N, stage_channels[i], H / strides[i], W / strides[i])
            maps.append(features)
        return tuple(maps)


def _build_stem(kind: Stem, in_channels: int, channels: int) -> nn.Sequential:
    """(N, in_channels, H, W) -> (N, channels, H / 4, W / 4); `cifar` keeps H and W."""
    # (input channels, output channels, kernel, stride) of each convolution
    layers = {
        "v1": [(in_channels, channels, 7, 2)],
        "deep": [
            (in_channels, channels // 2, 3, 2),
            (channels // 2, channels // 2, 3, 1),
            (channels // 2, channels, 3, 1),
        ],
        "cifar": [(in_channels, channels, 3, 1)],
    }[kind]
    children: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (fan_in, fan_out, kernel, stride) in enumerate(layers, start=1):
        children[f"conv{number}"] = nn.Conv2d(
            fan_in, fan_out, kernel, stride=stride, padding=kernel // 2, bias=False
        )
        children[f"bn{number}"] = nn.BatchNorm2d(fan_out)
        children[f"relu{number}"] = nn.ReLU(inplace=True)
    if kind != "cifar":
        children["pool"] = nn.MaxPool2d(3, stride=2, padding=1)
    return nn.Sequential(children)
