"""The published files of weights, as data."""

from __future__ import annotations

from dataclasses import dataclass

from res2net.models.variants import VARIANTS
from res2net.weights.keymaps import Format

_AUTHORS = "https://shanghuagao.oss-cn-beijing.aliyuncs.com/res2net"
_TIMM = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-res2net"
_HUGGING_FACE = "https://huggingface.co/timm"
_OPENMMLAB = "https://download.openmmlab.com"
_PADDLE = "https://paddle-imagenet-models-name.bj.bcebos.com/dygraph"

_NON_COMMERCIAL = "CC BY-NC-SA 4.0 (no commercial use)"
_NOT_STATED = f"not stated by who hosts them; the authors' own are {_NON_COMMERCIAL}"


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """One published file of weights for ImageNet-1k."""

    variant: str
    source: str
    """Who publishes it: with the variant its name, `source/variant`."""
    format: Format
    url: str
    mirror: str | None = None
    """Where the same file, bit for bit, can be had too."""
    digest: str | None
    """First hex digits of its sha256 as published in its name; None: none is published."""
    file: str
    """Its name in the cache."""
    licence: str
    top1: float | None = None
    """Percent, as `measured_by` publishes it, crop 224 of 256."""
    top5: float | None = None
    """Percent."""
    measured_by: str | None = None

    @property
    def name(self) -> str:
        return f"{self.source}/{self.variant}"


def _authors() -> list[PublishedFile]:
    """Sources: the table of the authors' README (errors; here 100 - error)."""
    # variant, stem of the file name, hash, top-1, top-5; timm's copy has the first nine.
    rows: tuple[tuple[str, str, str, float, float], ...] = (
        ("res2net50_26w_4s", "res2net50_26w_4s", "06e79181", 77.99, 93.85),
        ("res2net50_48w_2s", "res2net50_48w_2s", "afed724a", 77.32, 93.53),
        ("res2net50_14w_8s", "res2net50_14w_8s", "6527dddc", 78.14, 93.86),
        ("res2net50_26w_6s", "res2net50_26w_6s", "19041792", 78.58, 94.13),
        ("res2net50_26w_8s", "res2net50_26w_8s", "2c7c9f12", 79.20, 94.37),
        ("res2net101_26w_4s", "res2net101_26w_4s", "02a759a1", 79.19, 94.43),
        ("res2next50", "res2next50_4s", "6ef7e7bf", 78.24, 93.91),
        ("res2net_dla60", "res2net_dla60_4s", "d88db7f9", 78.47, 94.20),
        ("res2next_dla60", "res2next_dla60_4s", "d327927b", 78.45, 94.14),
        ("res2net50_v1b_26w_4s", "res2net50_v1b_26w_4s", "3cf99910", 80.27, 95.04),
        ("res2net101_v1b_26w_4s", "res2net101_v1b_26w_4s", "0812c246", 81.23, 95.36),
    )
    return [
        PublishedFile(
            variant=variant,
            source="official",
            format="official",
            url=f"{_AUTHORS}/{stem}-{digest}.pth",
            mirror=None if "v1b" in variant else f"{_TIMM}/{stem}-{digest}.pth",
            digest=digest,
            file=f"{stem}-{digest}.pth",
            licence=_NON_COMMERCIAL,
            top1=top1,
            top5=top5,
            measured_by="authors",
        )
        for variant, stem, digest, top1, top5 in rows
    ]


def _timm() -> list[PublishedFile]:
    """Source: timm's results on ImageNet, which the table of variants has."""
    names = {
        "res2net_dla60": "dla60_res2net",
        "res2next_dla60": "dla60_res2next",
        "res2net50_v1b_26w_4s": "res2net50d",
        "res2net101_v1b_26w_4s": "res2net101d",
    }
    return [
        PublishedFile(
            variant=published.variant,
            source="timm",
            format="timm" if "dla" in published.variant else "official",
            url=f"{_HUGGING_FACE}/{name}.in1k/resolve/main/model.safetensors",
            digest=None,
            file=f"{name}.in1k.safetensors",
            licence=_NOT_STATED,
            top1=VARIANTS[published.variant].top1,
            top5=VARIANTS[published.variant].top5,
            measured_by="timm",
        )
        for published in _authors()
        for name in (names.get(published.variant, published.variant),)
    ]


def _openmmlab() -> list[PublishedFile]:
    """Sources: mmpretrain's model index; mmdetection's configurations of Res2Net."""
    rows: tuple[tuple[str, str, str, float, float], ...] = (
        ("res2net50_14w_8s", "res2net50-w14-s8", "bc967bf1", 78.14, 93.85),
        ("res2net50_26w_8s", "res2net50-w26-s8", "f547a94b", 79.20, 94.36),
        ("res2net101_26w_4s", "res2net101-w26-s4", "870b6c36", 79.19, 94.44),
    )
    files = [
        PublishedFile(
            variant=variant,
            source="mmpretrain",
            format="mmpretrain",
            url=f"{_OPENMMLAB}/mmclassification/v0/res2net/{file}",
            digest=digest,
            file=file,
            licence=_NOT_STATED,
            top1=top1,
            top5=top5,
            measured_by="mmpretrain",
        )
        for variant, stem, digest, top1, top5 in rows
        for file in (f"{stem}_3rdparty_8xb32_in1k_20210927-{digest}.pth",)
    ]
    detector = "res2net101_v1d_26w_4s_mmdetv2-f0a600f9.pth"
    files.append(
        PublishedFile(
            variant="res2net101_v1b_26w_4s",
            source="mmdet",
            format="mmdet",
            url=f"{_OPENMMLAB}/pretrain/third_party/{detector}",
            digest="f0a600f9",
            file=detector,
            licence=_NOT_STATED,
        )
    )
    return files


def _paddle() -> list[PublishedFile]:
    """Source: PaddleClas's tables of its models (docs, "ImageNet model zoo").

    Measured with OpenCV's bilinear interpolation, which does not smooth before it shrinks.
    """
    plain, distilled = "PaddleClas", "PaddleClas (SSLD)"
    # variant, their name, whose figures, top-1, top-5; distilled ones first, as in VARIANTS.
    rows: tuple[tuple[str, str, str, float, float], ...] = (
        ("res2net50_26w_4s_paddle", "Res2Net50_26w_4s", plain, 79.33, 94.57),
        ("res2net50_14w_8s_paddle", "Res2Net50_14w_8s", plain, 79.46, 94.70),
        ("res2net50_vd_26w_4s", "Res2Net50_vd_26w_4s_ssld", distilled, 83.1, 96.6),
        ("res2net50_vd_26w_4s", "Res2Net50_vd_26w_4s", plain, 79.75, 94.91),
        ("res2net101_vd_26w_4s", "Res2Net101_vd_26w_4s_ssld", distilled, 83.9, 97.1),
        ("res2net101_vd_26w_4s", "Res2Net101_vd_26w_4s", plain, 80.64, 95.22),
        ("res2net200_vd_26w_4s", "Res2Net200_vd_26w_4s_ssld", distilled, 85.13, 97.42),
        ("res2net200_vd_26w_4s", "Res2Net200_vd_26w_4s", plain, 81.21, 95.71),
    )
    return [
        PublishedFile(
            variant=variant,
            source="paddle_ssld" if measured_by == distilled else "paddle",
            format="paddle",
            url=f"{_PADDLE}/{file}",
            digest=None,
            file=file,
            licence="Apache-2.0 (PaddleClas)",
            top1=top1,
            top5=top5,
            measured_by=measured_by,
        )
        for variant, name, measured_by, top1, top5 in rows
        for file in (f"{name}_pretrained.pdparams",)
    ]


CATALOG: dict[str, PublishedFile] = {
    published.name: published for published in (*_authors(), *_timm(), *_openmmlab(), *_paddle())
}
"""By name, for each variant the file to be taken by default first."""
