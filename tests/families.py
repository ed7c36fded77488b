"""A small backbone of each family: their blocks, stems, shortcuts and trees."""

from res2net.models.dla import DLA
from res2net.models.res2net import Res2Net

FAMILIES = {
    "v1": lambda: Res2Net(stage_depths=(2, 1, 1), base_channels=16),
    "v1b": lambda: Res2Net(stage_depths=(2, 1, 1), base_channels=16, stem="deep", avg_down=True),
    "paddle": lambda: Res2Net(
        stage_depths=(2, 1, 1),
        base_channels=16,
        stem="deep",
        avg_down=True,
        stride_1_first_as_normal=True,
        pool_count_include_pad=False,
    ),
    "res2next": lambda: Res2Net(
        stage_depths=(2, 1, 1), base_channels=64, base_width=4, cardinality=8
    ),
    "dla": lambda: DLA(stage_depths=(1, 2, 1), base_channels=16),
    "cifar": lambda: Res2Net(
        stage_depths=(2, 1, 1), base_channels=16, stem="cifar", full_width_first=True
    ),
    "se": lambda: Res2Net(stage_depths=(2, 1, 1), base_channels=16, se_reduction=16),
}
