"""What is exported: a network of any origin, and all that is known of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from res2net import imagenet
from res2net.errors import InputError
from res2net.files.runs import RunDirectory
from res2net.models.folding import fold_batch_norms
from res2net.models.head import Res2NetClassifier
from res2net.models.variants import VARIANTS
from res2net.preprocessing import Preprocessing
from res2net.weights.catalog import find_published, identify
from res2net.weights.preprocessing import Wanted, preprocessing_of
from res2net.weights.published import PublishedFile
from res2net.weights.read import Weights
from res2net.weights.shipped import SHIPPED
from res2net.zoo import open_model

InputKind = Literal["normalised", "uint8"]

UNKNOWN_LICENCE = "not stated"


@dataclass(frozen=True)
class Accuracy:
    """Of the weights that are exported, as a fraction 0..1."""

    top1: float
    top5: float | None
    where: str
    """On what, and who measured it."""


@dataclass(frozen=True, eq=False)
class Source:
    """A network in evaluation mode on the CPU, and what is known of it."""

    network: Res2NetClassifier
    weights: Weights
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    """One for each class: English for ImageNet's, the index where none are known."""
    licence: str
    accuracy: Accuracy | None

    @property
    def variant(self) -> str:
        return self.network.variant

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        side = self.preprocessing.image_size
        return self.network.in_channels, side, side

    def folded(self) -> Res2NetClassifier:
        """The network without batch norms."""
        return self.network if self.weights.is_folded else fold_batch_norms(self.network)

    def facts(self, takes: InputKind) -> dict[str, Any]:
        """What a file says of itself: plain values, for JSON."""
        preprocessing = self.preprocessing
        channels, side, _ = self.image_shape
        return {
            "model": self.variant,
            "input": {
                "name": "images",
                "shape": ["batch", channels, side, side],
                "dtype": "uint8" if takes == "uint8" else "float32",
                "layout": "NCHW, RGB",
                "values": "0..255, the file normalises them"
                if takes == "uint8"
                else "(pixel / 255 - mean) / std",
            },
            "output": {"name": "logits", "shape": ["batch", self.network.num_classes]},
            "preprocessing": {
                "resize_short_side": preprocessing.resize_size,
                "interpolation": preprocessing.interpolation,
                "antialias": True,
                "center_crop": side,
                "mean": list(preprocessing.mean),
                "std": list(preprocessing.std),
            },
            "class_names": list(self.class_names),
            "licence": self.licence,
        }


class FromPixels(nn.Module):
    """uint8 images (N, 3, S, S) -> logits: the network with normalisation in front of it."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        scale = 255 * torch.tensor(preprocessing.std)
        shift = torch.tensor(preprocessing.mean) / torch.tensor(preprocessing.std)
        self.register_buffer("scale", scale.reciprocal().view(1, 3, 1, 1))
        self.register_buffer("shift", shift.view(1, 3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """As `Preprocessing.normalise`, and the network."""
        return self.network(images.float() * self.scale - self.shift)


def open_source(
    model: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    checkpoint: Literal["last", "best"] = "last",
    ema: bool = False,
    licence: str | None = None,
    preprocessing: Wanted = None,
) -> Source:
    """Open what a user calls a model.

    Args:
        model: As `zoo.open_model` takes it.
        weights: For a variant.
        checkpoint: Which file of a run directory.
        ema: The averaged weights.
        licence: Of the weights. None: of the published file that they are, what their file says, or
            of the published file that they were trained from.
        preprocessing: As `weights.preprocessing.preprocessing_of` takes it.

    Raises:
        InputError: As `zoo.open_model` and `preprocessing_of`, or a variant was given without
            weights.
    """
    network, read = open_model(model, weights=weights, checkpoint=checkpoint, ema=ema)
    if read is None:
        raise InputError(
            f"model {os.fspath(model)!r}: a variant without weights answers at random; give "
            "weights as well (--weights), or a run directory or a weights file instead"
        )
    published = identify(read.source)
    prepared = preprocessing_of(read, preprocessing)
    if preprocessing or published is not None:  # what is only assumed is not written as said
        read = replace(read, preprocessing=prepared)
    names = read.class_names or tuple(map(str, range(network.num_classes)))
    return Source(
        network=network.eval(),
        weights=read,
        preprocessing=prepared,
        class_names=imagenet.readable(names),
        licence=licence or _licence(read, published),
        accuracy=_accuracy(read, published, ema=ema),
    )


def _licence(weights: Weights, published: PublishedFile | None) -> str:
    if published is not None:
        return published.licence
    if weights.licence is not None:
        return weights.licence
    for shipped in SHIPPED.values():
        if Path(weights.source) == shipped.path:
            return shipped.licence
    settings = (weights.config or {}).get("model", {})
    start = str(settings.get("weights") or "")
    if not start:
        return UNKNOWN_LICENCE
    variant = str(settings.get("name"))
    for name in (variant,) if start == "in1k" else (start, f"{start}/{variant}"):
        try:
            origin = find_published(name)
        except InputError:
            continue
        return f"{UNKNOWN_LICENCE}; trained from {origin.name}, whose licence is {origin.licence}"
    return f"{UNKNOWN_LICENCE}; trained from {Path(start).name}"


def _accuracy(weights: Weights, published: PublishedFile | None, *, ema: bool) -> Accuracy | None:
    """What was measured of these very weights."""
    if published is not None and published.top1 is not None:
        top5 = None if published.top5 is None else published.top5 / 100
        where = f"ImageNet-1k validation, measured by {published.measured_by}"
        return Accuracy(published.top1 / 100, top5, where)
    file = Path(weights.source)
    run = RunDirectory(file.parent)
    if not run.is_run():
        return None
    summary = run.read_summary()
    which = "val_ema" if ema else "val"
    if file.name == run.best.name:
        best = summary.get("best")
        figures, when = (
            best if isinstance(best, dict) else {},
            "the best epoch, chosen on these images",
        )
    elif file.name == run.last.name:
        figures, when = summary, "the last epoch"
    else:
        return None
    top1, top5 = (figures.get(f"{which}/{key}") for key in ("top1", "top5"))
    if not isinstance(top1, float | int):
        return None
    data = (weights.config or {}).get("data", {}).get("source", "")
    where = f"the run's validation images ({data}), {when}" if data else f"validation, {when}"
    return Accuracy(top1, top5 if isinstance(top5, float | int) else None, where)


def same_in_timm(variant: str) -> str | None:
    """What timm calls the variant; None: it has no such network."""
    return _IN_TIMM.get(variant) if variant in VARIANTS else None


_IN_TIMM = {
    name: name
    for name in (
        "res2net50_26w_4s",
        "res2net50_48w_2s",
        "res2net50_14w_8s",
        "res2net50_26w_6s",
        "res2net50_26w_8s",
        "res2net101_26w_4s",
        "res2next50",
        "resnet50",
        "resnet101",
        "resnext50_32x4d",
    )
} | {
    "res2net50_v1b_26w_4s": "res2net50d",
    "res2net101_v1b_26w_4s": "res2net101d",
    "res2net_dla60": "dla60_res2net",
    "res2next_dla60": "dla60_res2next",
}


def require(packages: Sequence[str]) -> None:
    """Raises InputError: a package of the extra `export` is not installed."""
    from importlib.util import find_spec

    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise InputError(
            f"{', '.join(missing)}: not installed; this form needs "
            "pip install 'res2net-lightning[export]'"
        )
