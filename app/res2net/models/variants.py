"""The networks that have a name, as data: how each is built, how large it is, how well it does."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from res2net.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One named network; a test recounts `parameters` and `macs`.

    The fields from `stage_depths` to `pool_count_include_pad` are `models.res2net.Res2Net`'s
    arguments.
    """

    name: str
    stage_depths: tuple[int, ...]
    base_width: int
    scale: int
    cardinality: int = 1
    stem: Literal["v1", "deep", "cifar"] = "v1"
    avg_down: bool = False
    base_channels: int = 64
    stride_1_first_as_normal: bool = False
    pool_count_include_pad: bool = True
    num_classes: int = 1000
    """Classes that `parameters`, `macs` and the accuracy are for."""
    image_size: int = 224
    """Height and width in pixels that `macs` and the accuracy are for."""
    parameters: int
    """Trainable numbers."""
    macs: int
    """Multiply-accumulates of convolutions and classifier, for one RGB image."""
    top1: float | None = None
    """Published accuracy in percent; None: none was published."""
    top5: float | None = None
    """Published accuracy in percent."""
    measured_by: str | None = None
    """Whose measurement top1 and top5 are: `timm` (its results on the authors' weights, crop 224 of
    256, bilinear), `paper` (arXiv 1904.01169) or `PaddleClas (SSLD distillation)`."""


_LIST = (
    Variant(
        name="res2net50_26w_4s",
        stage_depths=(3, 4, 6, 3),
        base_width=26,
        scale=4,
        parameters=25_699_120,
        macs=4_255_166_464,
        top1=77.994,
        top5=93.860,
        measured_by="timm",
    ),
    Variant(
        name="res2net50_48w_2s",
        stage_depths=(3, 4, 6, 3),
        base_width=48,
        scale=2,
        parameters=25_287_304,
        macs=4_159_832_064,
        top1=77.528,
        top5=93.562,
        measured_by="timm",
    ),
    Variant(
        name="res2net50_14w_8s",
        stage_depths=(3, 4, 6, 3),
        base_width=14,
        scale=8,
        parameters=25_059_816,
        macs=4_178_898_944,
        top1=78.142,
        top5=93.852,
        measured_by="timm",
    ),
    Variant(
        name="res2net50_26w_6s",
        stage_depths=(3, 4, 6, 3),
        base_width=26,
        scale=6,
        parameters=37_051_448,
        macs=6_295_523_328,
        top1=78.586,
        top5=94.120,
        measured_by="timm",
    ),
    Variant(
        name="res2net50_26w_8s",
        stage_depths=(3, 4, 6, 3),
        base_width=26,
        scale=8,
        parameters=48_403_776,
        macs=8_335_880_192,
        top1=78.950,
        top5=94.280,
        measured_by="timm",
    ),
    Variant(
        name="res2net50_18w_4s",
        stage_depths=(3, 4, 6, 3),
        base_width=18,
        scale=4,
        parameters=18_095_104,
        macs=2_898_407_424,
        top1=77.08,
        top5=93.33,
        measured_by="paper",
    ),
    Variant(
        name="res2net50_18w_6s",
        stage_depths=(3, 4, 6, 3),
        base_width=18,
        scale=6,
        parameters=25_158_664,
        macs=4_180_905_984,
    ),
    Variant(
        name="res2net101_26w_4s",
        stage_depths=(3, 4, 23, 3),
        base_width=26,
        scale=4,
        parameters=45_206_688,
        macs=8_066_974_464,
        top1=79.192,
        top5=94.466,
        measured_by="timm",
    ),
    Variant(
        name="res2next50",
        stage_depths=(3, 4, 6, 3),
        base_width=4,
        scale=4,
        cardinality=8,
        parameters=24_671_464,
        macs=4_172_677_120,
        top1=78.238,
        top5=93.904,
        measured_by="timm",
    ),
    Variant(
        name="res2net50_v1b_26w_4s",
        stage_depths=(3, 4, 6, 3),
        base_width=26,
        scale=4,
        stem="deep",
        avg_down=True,
        parameters=25_718_352,
        macs=4_494_807_040,
        top1=80.280,
        top5=95.028,
        measured_by="timm",
    ),
    Variant(
        name="res2net101_v1b_26w_4s",
        stage_depths=(3, 4, 23, 3),
        base_width=26,
        scale=4,
        stem="deep",
        avg_down=True,
        parameters=45_225_920,
        macs=8_306_615_040,
        top1=81.236,
        top5=95.346,
        measured_by="timm",
    ),
    Variant(
        name="res2net152_v1b_26w_4s",
        stage_depths=(3, 8, 36, 3),
        base_width=26,
        scale=4,
        stem="deep",
        avg_down=True,
        parameters=61_294_480,
        macs=12_118_423_040,
    ),
    # PaddleClas's own: its blocks differ from the authors' in two ways.
    Variant(
        name="res2net200_vd_26w_4s",
        stage_depths=(3, 12, 48, 3),
        base_width=26,
        scale=4,
        stem="deep",
        avg_down=True,
        stride_1_first_as_normal=True,
        pool_count_include_pad=False,
        parameters=76_215_536,
        macs=15_706_007_040,
        top1=85.13,
        top5=97.42,
        measured_by="PaddleClas (SSLD distillation)",
    ),
    # This project's own, for images of 32 pixels and machines without a GPU.
    Variant(
        name="res2net20_cifar",
        stage_depths=(1, 2, 3),
        base_width=32,
        scale=4,
        stem="cifar",
        base_channels=8,
        num_classes=10,
        image_size=32,
        parameters=91_994,
        macs=11_134_208,
    ),
)

VARIANTS: dict[str, Variant] = {variant.name: variant for variant in _LIST}

# The names that others gave the same networks: the authors' functions and files, timm, PaddleClas.
ALIASES: dict[str, str] = {
    "res2net50": "res2net50_26w_4s",
    "res2net101": "res2net101_26w_4s",
    "res2next50_4s": "res2next50",
    "res2next50_4w_4s_8c": "res2next50",
    "res2net50_v1b": "res2net50_v1b_26w_4s",
    "res2net101_v1b": "res2net101_v1b_26w_4s",
    "res2net152_v1b": "res2net152_v1b_26w_4s",
    "res2net50d": "res2net50_v1b_26w_4s",
    "res2net101d": "res2net101_v1b_26w_4s",
    "Res2Net200_vd_26w_4s": "res2net200_vd_26w_4s",
}


def find_variant(name: str) -> Variant:
    """The variant of that name or alias.

    Raises:
        InputError: There is none; the message names the nearest.
    """
    variant = VARIANTS.get(ALIASES.get(name, name))
    if variant is not None:
        return variant
    names = [*VARIANTS, *ALIASES]
    nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or list(VARIANTS)
    raise InputError(f"model {name!r}: no such variant; the nearest: {', '.join(nearest)}")
