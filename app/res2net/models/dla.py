"""The other backbone: Deep Layer Aggregation, its blocks replaced by Res2Net's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from res2net.models.blocks import Bottle2neck, initialise, linear_drop_path


class DLA(nn.Module):
    """A stem of three convolutions and a tree of Res2Net blocks for each stage.

    Source: Deep Layer Aggregation, arXiv 1707.06484, figures 2 and 3 and table 1 (DLA-60); with
    Res2Net blocks: arXiv 1904.01169, section 3.3. Stage i has `base_channels` * 2**i
    planes and twice as many output channels; every stage halves the size.

    The children are called as in the authors' weights. Theirs also hold projections whose result
    nothing uses (`level3.project`, `level4.project`, `level4.tree1.project`: 297,472 parameters in
    DLA-60); they are left out here.

    Attributes:
        in_channels: Channels of the images.
        stage_channels: Channels of each feature map.
        stage_strides: Pixels of the image per pixel of each feature map.
        stem_weight: Key of the weight that sees the images, in the backbone's `state_dict`.
    """

    stem_weight = "base_layer.0.weight"

    def __init__(
        self,
        *,
        stage_depths: Sequence[int] = (1, 2, 3, 1),
        base_width: int = 28,
        scale: int = 4,
        cardinality: int = 1,
        base_channels: int = 64,
        in_channels: int = 3,
        drop_path: float = 0.0,
    ) -> None:
        """Build and initialise the backbone; the defaults are those of Res2Net-DLA-60.

        Args:
            stage_depths: Depth of each stage's tree, which has 2**depth blocks.
            base_width: Channels of a chunk per 64 planes, and per group.
            scale: Chunks of a block.
            cardinality: Groups of the 3x3 convolutions (Res2NeXt).
            base_channels: Planes of the first stage; the stem has a quarter and a half of it.
            in_channels: Channels of the images.
            drop_path: Stochastic depth of the last block, see `blocks.linear_drop_path`.

        Convolutions start as in `Res2Net`.

        Raises:
            ValueError: drop_path is not in [0, 1).
        """
        super().__init__()
        self.in_channels = in_channels
        narrow, wide = base_channels // 4, base_channels // 2
        self.base_layer = _conv_norm_relu(in_channels, narrow, kernel=7)
        self.level0 = _conv_norm_relu(narrow, narrow, kernel=3)
        self.level1 = _conv_norm_relu(narrow, wide, kernel=3, stride=2)

        # Handed out to the blocks in the order in which they run.
        rates = iter(linear_drop_path(drop_path, sum(2**depth for depth in stage_depths)))
        block_arguments = {"base_width": base_width, "scale": scale, "cardinality": cardinality}
        channels = wide
        self._levels: list[str] = []
        for index, depth in enumerate(stage_depths):
            planes = base_channels * 2**index
            name = f"level{index + 2}"
            tree = Tree(
                channels,
                planes,
                depth=depth,
                stride=2,
                aggregates_input=index > 0,
                drop_paths=rates,
                block_arguments=block_arguments,
            )
            self.add_module(name, tree)
            self._levels.append(name)
            channels = planes * Tree.expansion

        count = len(stage_depths)
        self._stem_maps = [(narrow, 1, "level0"), (wide, 2, "level1")]
        self.stage_channels = tuple(
            base_channels * 2**index * Tree.expansion for index in range(count)
        )
        self.stage_strides = tuple(4 * 2**index for index in range(count))
        self.apply(initialise)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(N, in_channels, H, W) -> per stage (N, C, ceil(H / stride), ceil(W / stride)).

        C and stride stand in `stage_channels` and `stage_strides`. Any H and W will do.
        """
        return self.pyramid(images)[len(self._stem_maps) :]

    def pyramid(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """As `forward`, and before it the stem's maps.

        They are (N, base_channels / 4, H, W) and (N, base_channels / 2, H / 2, W / 2).
        """
        maps = [self.level0(self.base_layer(images))]
        for name in ("level1", *self._levels):
            maps.append(getattr(self, name)(maps[-1]))  # (N, C, H / stride, W / stride)
        return tuple(maps)

    def describe_maps(self) -> list[tuple[int, int, str]]:
        """Channels, stride and module of each map that `pyramid` gives."""
        stages = zip(self.stage_channels, self.stage_strides, self._levels, strict=True)
        return [*self._stem_maps, *stages]

    def keep_stages(self, count: int) -> None:
        """Leave out all stages but the first `count`."""
        for name in self._levels[count:]:
            delattr(self, name)
        self._levels = self._levels[:count]
        self.stage_channels = self.stage_channels[:count]
        self.stage_strides = self.stage_strides[:count]


class Tree(nn.Module):
    """Two subtrees, or two blocks and the root that aggregates them: 2**depth blocks in all.

    Source: arXiv 1707.06484, section 3.2 (hierarchical deep aggregation).

    (N, in_channels, H, W) -> (N, 2 * planes, ceil(H / stride), ceil(W / stride)).
    """

    expansion = 2

    def __init__(
        self,
        in_channels: int,
        planes: int,
        *,
        depth: int,
        stride: int,
        aggregates_input: bool,
        drop_paths: Iterator[float],
        block_arguments: dict[str, Any],
        given_channels: int = 0,
    ) -> None:
        """Build the tree.

        Args:
            in_channels: Channels of the input.
            planes: Half the output's channels.
            depth: 1: two blocks. More: two trees of depth - 1.
            stride: Of the first block.
            aggregates_input: The last root of the tree sees the tree's input, too.
            drop_paths: Gives each block, in order, its rate.
            block_arguments: Further arguments of `Bottle2neck`.
            given_channels: Channels of what `forward` is given for the last root.
        """
        super().__init__()
        self.depth = depth
        self.aggregates_input = aggregates_input
        out_channels = planes * self.expansion
        if aggregates_input:
            given_channels += in_channels

        if stride > 1 and (depth == 1 or aggregates_input):
            # Rounds up as the convolutions do; the original rounds down and fails at odd sizes.
            self.downsample: nn.Module = nn.MaxPool2d(stride, ceil_mode=True)
        else:
            self.downsample = nn.Identity()
        if depth > 1:
            shared: dict[str, Any] = {
                "depth": depth - 1,
                "aggregates_input": False,
                "drop_paths": drop_paths,
                "block_arguments": block_arguments,
            }
            self.tree1: nn.Module = Tree(in_channels, planes, stride=stride, **shared)
            self.tree2: nn.Module = Tree(
                out_channels,
                planes,
                stride=1,
                given_channels=given_channels + out_channels,
                **shared,
            )
            return
        if in_channels != out_channels:
            self.project: nn.Module = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
            )
        else:
            self.project = nn.Identity()
        # What opens a stage has a stride here: more channels alone do not make a `stage` block.
        self.tree1 = Bottle2neck(
            in_channels,
            planes,
            stride=stride,
            kind="stage" if stride > 1 else "normal",
            expansion=self.expansion,
            own_shortcut=False,
            drop_path=next(drop_paths),
            **block_arguments,
        )
        self.tree2 = Bottle2neck(
            out_channels,
            planes,
            expansion=self.expansion,
            own_shortcut=False,
            drop_path=next(drop_paths),
            **block_arguments,
        )
        self.root = Root(2 * out_channels + given_channels, out_channels)

    def forward(self, inputs: torch.Tensor, given: tuple[torch.Tensor, ...] = ()) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, 2 * planes, ceil(H / stride), ceil(W / stride)).

        `given`: maps of the output's height and width that the last root aggregates as well.
        """
        bottom = self.downsample(inputs)  # (N, in_channels, H / stride, W / stride)
        if self.aggregates_input:
            given = (*given, bottom)
        if self.depth > 1:
            first = self.tree1(inputs)
            return self.tree2(first, (*given, first))
        first = self.tree1(inputs, self.project(bottom))
        second = self.tree2(first)
        return self.root((second, first, *given))


class Root(nn.Module):
    """Aggregation: maps are concatenated and mixed by a 1x1 convolution, norm and ReLU.

    Source: arXiv 1707.06484, section 3.3 (aggregation nodes), without the residual connection.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Maps (N, ..., H, W) with in_channels in all -> (N, out_channels, H, W)."""
        return F.relu(self.bn(self.conv(torch.cat(maps, dim=1))), inplace=True)


def _conv_norm_relu(
    in_channels: int, out_channels: int, *, kernel: int, stride: int = 1
) -> nn.Sequential:
    """(N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))."""
    return nn.Sequential(
        nn.Conv2d(
            in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False
        ),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
