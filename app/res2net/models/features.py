"""A backbone for dense tasks: maps of chosen depths, described as timm's users know it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from res2net.errors import InputError
from res2net.models.dla import DLA
from res2net.models.res2net import Res2Net


class FeatureInfo:
    """What the maps of a `FeatureNetwork` are; the methods are called as timm's `FeatureInfo`.

    Attributes:
        info: Of each map that the backbone has, the stem's first: `num_chs` (channels),
            `reduction` (pixels of the image per pixel of the map), `module` (whose output it is)
            and `index`.
        out_indices: Which of them the network gives, none of them negative.
    """

    def __init__(self, info: Sequence[dict[str, Any]], out_indices: Sequence[int]) -> None:
        self.info = list(info)
        self.out_indices = tuple(out_indices)

    def channels(self, index: int | None = None) -> Any:
        """Channels of each map that the network gives, or of map `index` of all."""
        return self._of("num_chs", index)

    def reduction(self, index: int | None = None) -> Any:
        """Stride of each map that the network gives, or of map `index` of all."""
        return self._of("reduction", index)

    def module_name(self, index: int | None = None) -> Any:
        """Name of the module that makes each map that the network gives, or map `index` of all."""
        return self._of("module", index)

    def get_dicts(self, keys: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Of each map that the network gives all that is known, or these keys of it."""
        chosen = [self.info[index] for index in self.out_indices]
        return [{key: one[key] for key in keys or one} for one in chosen]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.info[index]

    def __len__(self) -> int:
        return len(self.info)

    def _of(self, key: str, index: int | None) -> Any:
        if index is not None:
            return self.info[index][key]
        return [self.info[chosen][key] for chosen in self.out_indices]


class FeatureNetwork(nn.Module):
    """A backbone that gives a list of feature maps, for detectors and segmentation.

    They are counted as in timm: 0 is the stem's (stride 2; 1 in networks for images of 32 pixels),
    i that of stage i, with strides 4, 8, 16 and 32. A DLA has one more in front, of stride 1.
    Stages deeper than the last map that is wanted are left out: no parameter is without a gradient.

    Attributes:
        backbone: `Res2Net` or `DLA`.
        feature_info: Channels, strides and module names of the maps.
    """

    def __init__(
        self, backbone: Res2Net | DLA, out_indices: int | Sequence[int] | None = None
    ) -> None:
        """Take over the backbone, which loses its deeper stages.

        Args:
            backbone: With weights, or fresh.
            out_indices: Which maps, counted from the end where negative; a number: so many of the
                last ones. None: one of the stem and those of all stages.

        Raises:
            InputError: There is no such map, one is named twice, or none is named.
        """
        super().__init__()
        info = feature_info(backbone)
        stages = len(backbone.stage_channels)
        indices = _take(stages + 1 if out_indices is None else out_indices, len(info))
        backbone.keep_stages(stages - (len(info) - 1 - max(indices)))
        self.backbone = backbone
        self.feature_info = FeatureInfo(info, indices)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """(N, in_channels, H, W) -> maps (N, C, ceil(H / stride), ceil(W / stride)), as asked."""
        maps = self.backbone.pyramid(images)
        return [maps[index] for index in self.feature_info.out_indices]


def feature_info(backbone: Res2Net | DLA) -> list[dict[str, Any]]:
    """`FeatureInfo.info` of a backbone."""
    return [
        {"num_chs": channels, "reduction": stride, "module": f"backbone.{module}", "index": index}
        for index, (channels, stride, module) in enumerate(backbone.describe_maps())
    ]


def _take(out_indices: int | Sequence[int], count: int) -> list[int]:
    """Indices 0..count-1, in the order that was asked for."""
    choices = f"choices: 0 to {count - 1}, or {-count} to -1 from the end"
    if isinstance(out_indices, int):
        if not 1 <= out_indices <= count:
            raise InputError(
                f"out_indices={out_indices}: a number takes so many of the last maps, 1 to {count}"
            )
        return list(range(count))[-out_indices:]
    given = tuple(out_indices)
    if not given or not all(-count <= index < count for index in given):
        raise InputError(f"out_indices={given}: no such maps ({choices})")
    indices = [index % count for index in given]
    if len(set(indices)) < len(indices):
        raise InputError(f"out_indices={given}: a map is named twice ({choices})")
    return indices
