"""From a row of the table of variants to its network."""

from __future__ import annotations

from res2net.models.dla import DLA
from res2net.models.head import Backbone
from res2net.models.res2net import Res2Net
from res2net.models.variant import Variant


def build_backbone(variant: Variant, *, in_channels: int, drop_path: float) -> Backbone:
    """A fresh backbone, of which `Res2Net` and `DLA` say more.

    Raises:
        ValueError: drop_path is not in [0, 1).
    """
    if variant.architecture == "dla":
        return DLA(
            stage_depths=variant.stage_depths,
            base_width=variant.base_width,
            scale=variant.scale,
            cardinality=variant.cardinality,
            base_channels=variant.base_channels,
            in_channels=in_channels,
            drop_path=drop_path,
        )
    return Res2Net(
        stage_depths=variant.stage_depths,
        base_width=variant.base_width,
        scale=variant.scale,
        cardinality=variant.cardinality,
        stem=variant.stem,
        avg_down=variant.avg_down,
        base_channels=variant.base_channels,
        in_channels=in_channels,
        stride_1_first_as_normal=variant.stride_1_first_as_normal,
        pool_count_include_pad=variant.pool_count_include_pad,
        full_width_first=variant.full_width_first,
        se_reduction=variant.se_reduction,
        drop_path=drop_path,
    )
