"""What is written down of a network that has a name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One named network; a test recounts `parameters` and `macs`.

    The fields from `stage_depths` to `se_reduction` are the arguments of `models.res2net.Res2Net`,
    those that it knows also of `models.dla.DLA`.
    """

    name: str
    architecture: Literal["res2net", "dla"] = "res2net"
    stage_depths: tuple[int, ...]
    base_width: int
    scale: int
    cardinality: int = 1
    stem: Literal["v1", "deep", "cifar"] = "v1"
    avg_down: bool = False
    base_channels: int = 64
    stride_1_first_as_normal: bool = False
    pool_count_include_pad: bool = True
    full_width_first: bool = False
    se_reduction: int | None = None
    num_classes: int = 1000
    """Classes that `parameters`, `macs` and the accuracy are for."""
    image_size: int = 224
    """Height and width in pixels that `macs` and the accuracy are for."""
    parameters: int
    """Trainable numbers."""
    macs: int
    """Multiply-accumulates of convolutions and classifier, for one RGB image. Others count more:
    mmpretrain gives 4.22 G for res2net50_14w_8s, whose convolutions and classifier make 4.18 G."""
    top1: float | None = None
    """Published accuracy in percent; None: none was published."""
    top5: float | None = None
    """Published accuracy in percent; for CIFAR-100 there is none."""
    measured_by: str | None = None
    """Whose measurement top1 and top5 are: `timm` (its results on the authors' weights, crop 224 of
    256, bilinear), `paper` (arXiv 1904.01169), `PaddleClas` (crop 224 of 256, OpenCV's bilinear,
    which does not smooth before it shrinks) or `PaddleClas (SSLD)`: the same after its distillation
    from a larger network."""
