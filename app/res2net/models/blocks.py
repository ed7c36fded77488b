"""The Res2Net block: a bottleneck whose 3x3 convolution is a hierarchy of smaller ones."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

BlockKind = Literal["normal", "stage"]


class Bottle2neck(nn.Module):
    """1x1 convolution, `scale` chunks with a 3x3 convolution each but the last, 1x1 convolution.

    Source: Res2Net, arXiv 1904.01169, section 3.1 (equation 1) and figure 2b. The equation lets the
    first chunk pass without a convolution, the published weights the last; the two differ by a
    permutation of channels, and this is the order of the weights:

    - `normal`: y0 = K0(x0), yi = Ki(y(i-1) + xi), the last chunk as it is.
    - `stage` (opens a stage): yi = Ki(xi), no additions; the last chunk averaged over 3x3.

    Ki is a 3x3 convolution in `cardinality` groups, batch norm and ReLU. With scale 1 there is one
    convolution and no chunk that passes: the bottleneck of ResNet.

    (N, in_channels, H, W) -> (N, 4 * planes, ceil(H / stride), ceil(W / stride)).
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        planes: int,
        *,
        stride: int = 1,
        kind: BlockKind = "normal",
        base_width: int = 26,
        scale: int = 4,
        cardinality: int = 1,
        avg_down: bool = False,
        pool_count_include_pad: bool = True,
    ) -> None:
        """Build the block.

        Args:
            in_channels: Channels of the input.
            planes: A quarter of the output's channels.
            stride: Of the 3x3 convolutions and of the shortcut.
            kind: `normal` or `stage`, see above.
            base_width: A chunk has floor(planes * base_width / 64) * cardinality channels.
            scale: Number of chunks.
            cardinality: Groups of the 3x3 convolutions (Res2NeXt).
            avg_down: The shortcut averages and then projects, rather than projecting with a stride
                (v1b).
            pool_count_include_pad: Whether the `stage` average counts the border's zeros. All
                published PyTorch weights want True, PaddleClas's want False.

        Raises:
            ValueError: A `normal` block with a stride: its chunks would differ in size.
        """
        super().__init__()
        if kind == "normal" and stride != 1:
            raise ValueError(f"stride={stride}: a normal block has stride 1, a stage block any")
        self.width = math.floor(planes * base_width / 64) * cardinality
        self.scale = scale
        self.stride = stride
        self.kind = kind
        self.pool_count_include_pad = pool_count_include_pad
        out_channels = planes * self.expansion
        convs = max(1, scale - 1)

        self.conv1 = nn.Conv2d(in_channels, self.width * scale, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(self.width * scale)
        self.convs = nn.ModuleList(
            nn.Conv2d(
                self.width,
                self.width,
                3,
                stride=stride,
                padding=1,
                groups=cardinality,
                bias=False,
            )
            for _ in range(convs)
        )
        self.bns = nn.ModuleList(nn.BatchNorm2d(self.width) for _ in range(convs))
        self.conv3 = nn.Conv2d(self.width * scale, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.shortcut = (
            _projection(in_channels, out_channels, stride=stride, avg_down=avg_down)
            if stride != 1 or in_channels != out_channels
            else None
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, 4 * planes, ceil(H / stride), ceil(W / stride))."""
        out = F.relu(self.bn1(self.conv1(inputs)), inplace=True)  # (N, scale * width, H, W)
        chunks = out.split(self.width, dim=1)

        outputs: list[torch.Tensor] = []
        # The lists of convolutions end one chunk early, except at scale 1.
        for chunk, conv, bn in zip(chunks, self.convs, self.bns, strict=False):
            if self.kind == "normal" and outputs:
                chunk = outputs[-1] + chunk
            outputs.append(F.relu(bn(conv(chunk)), inplace=True))
        if self.scale > 1:
            outputs.append(self._last(chunks[-1]))
        out = torch.cat(outputs, dim=1)  # (N, scale * width, H / stride, W / stride)

        out = self.bn3(self.conv3(out))  # (N, 4 * planes, H / stride, W / stride)
        out = out + (inputs if self.shortcut is None else self.shortcut(inputs))
        return F.relu(out, inplace=True)

    def _last(self, chunk: torch.Tensor) -> torch.Tensor:
        """The chunk without a convolution: (N, width, H, W) -> (N, width, H / stride, ...)."""
        if self.kind == "normal":
            return chunk
        return F.avg_pool2d(
            chunk,
            3,
            stride=self.stride,
            padding=1,
            count_include_pad=self.pool_count_include_pad,
        )


def _projection(
    in_channels: int, out_channels: int, *, stride: int, avg_down: bool
) -> nn.Sequential:
    """(N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)).

    avg_down is the shortcut of ResNet-D (arXiv 1812.01187, figure 2c): no input is skipped.
    """
    children: OrderedDict[str, nn.Module] = OrderedDict()
    if avg_down and stride > 1:
        children["pool"] = nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False)
        stride = 1
    children["conv"] = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
    children["bn"] = nn.BatchNorm2d(out_channels)
    return nn.Sequential(children)
