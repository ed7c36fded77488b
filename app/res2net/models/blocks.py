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

    (N, in_channels, H, W) -> (N, expansion * planes, ceil(H / stride), ceil(W / stride)).
    """

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
        expansion: int = 4,
        avg_down: bool = False,
        own_shortcut: bool = True,
        pool_count_include_pad: bool = True,
        se_reduction: int | None = None,
        drop_path: float = 0.0,
    ) -> None:
        """Build the block.

        Args:
            in_channels: Channels of the input.
            planes: The output's channels divided by `expansion`.
            stride: Of the 3x3 convolutions and of the shortcut.
            kind: `normal` or `stage`, see above.
            base_width: A chunk has floor(planes * base_width / 64) * cardinality channels.
            scale: Number of chunks.
            cardinality: Groups of the 3x3 convolutions (Res2NeXt).
            expansion: 4 in a ResNet, 2 in a DLA.
            avg_down: The shortcut averages and then projects, rather than projecting with a stride
                (v1b).
            own_shortcut: The block projects its input where its size differs from the output's.
                False: `forward` is given the shortcut there (DLA).
            pool_count_include_pad: Whether the `stage` average counts the border's zeros. All
                published PyTorch weights want True, PaddleClas's want False.
            se_reduction: Squeeze and excitation of the residual, with that reduction; None: none.
            drop_path: Chance that a sample's residual is dropped in training, see `drop_path`.

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
        self.drop_path = drop_path
        out_channels = planes * expansion
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
        self.se = (
            None
            if se_reduction is None
            else SqueezeExcitation(out_channels, reduction=se_reduction)
        )
        self.shortcut = (
            _projection(in_channels, out_channels, stride=stride, avg_down=avg_down)
            if own_shortcut and (stride != 1 or in_channels != out_channels)
            else None
        )

    def forward(self, inputs: torch.Tensor, shortcut: torch.Tensor | None = None) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, expansion * planes, ceil(H / stride), ceil(W / stride)).

        Args:
            inputs: What the convolutions see.
            shortcut: What is added to their result, of its shape. None: `inputs`, projected where
                the block has a shortcut of its own.
        """
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

        out = self.bn3(self.conv3(out))  # (N, expansion * planes, H / stride, W / stride)
        if self.se is not None:
            out = self.se(out)
        if self.training and self.drop_path > 0:
            out = drop_path(out, rate=self.drop_path)
        if shortcut is None:
            shortcut = inputs if self.shortcut is None else self.shortcut(inputs)
        # in place: a fresh tensor of this size costs as much as the addition, on a CPU five times
        return F.relu(out.add_(shortcut), inplace=True)

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


class SqueezeExcitation(nn.Module):
    """Scales each channel by a number in (0, 1) that follows from the means of all channels.

    Source: Squeeze-and-Excitation Networks, arXiv 1709.01507, section 3 and figure 3; in Res2Net
    it stands at the end of the residual (arXiv 1904.01169, section 3.2 and figure 3).

    (N, channels, H, W) -> the same shape.
    """

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        """`reduction`: channels per channel of the hidden layer, which has at least one."""
        super().__init__()
        hidden = max(1, channels // reduction)
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N, channels, H, W) -> the same shape."""
        squeezed = features.mean((2, 3))  # (N, channels)
        scales = self.fc2(F.relu(self.fc1(squeezed), inplace=True)).sigmoid()  # (N, channels)
        return features * scales[:, :, None, None]


def drop_path(features: torch.Tensor, *, rate: float) -> torch.Tensor:
    """Stochastic depth: each sample (N, C, H, W) becomes zeros with probability `rate`.

    What stays is divided by 1 - rate, so that the expectation is `features`. Source: arXiv
    1603.09382, section 3; the division, which spares evaluation a scaling, is later custom.
    """
    keep = 1 - rate
    kept = features.new_empty((features.shape[0], 1, 1, 1)).bernoulli_(keep)
    return features * kept.div_(keep)


def linear_drop_path(rate: float, blocks: int) -> list[float]:
    """The rate of each block, from 0 at the first to `rate` at the last.

    Source: arXiv 1603.09382, section 3 ("linear decay"); starting from 0 at the first block is
    timm's and mmpretrain's reading, with which the recipes that use it were measured.

    Raises:
        ValueError: The rate is not in [0, 1).
    """
    if not 0 <= rate < 1:
        raise ValueError(f"drop_path={rate}: at least 0 and below 1")
    return [rate * index / max(1, blocks - 1) for index in range(blocks)]


def initialise(module: nn.Module) -> None:
    """He's normal distribution over fan_out for a convolution; for `Module.apply`.

    Batch norms start from 1 and 0 by themselves, linear layers as PyTorch has it.
    """
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def zero_last_norms(model: nn.Module) -> None:
    """Each block starts as its shortcut: the weight of its last norm is 0."""
    for module in model.modules():
        if isinstance(module, Bottle2neck):
            nn.init.zeros_(module.bn3.weight)


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
