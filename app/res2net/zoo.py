"""The one door to networks: a name, and weights if you have them."""

from __future__ import annotations

import fnmatch
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import torch

from res2net.errors import InputError
from res2net.models.blocks import zero_last_norms
from res2net.models.build import build_backbone
from res2net.models.features import FeatureNetwork
from res2net.models.folding import fold_batch_norms
from res2net.models.head import Res2NetClassifier
from res2net.models.variants import VARIANTS, Variant, find_variant
from res2net.weights.catalog import resolve
from res2net.weights.formats import name_some
from res2net.weights.infer import (
    image_channels,
    infer_variant,
    only_variant,
    pools_as_paddle,
    stage_depths,
)
from res2net.weights.read import (
    Weights,
    apply_weights,
    fit_weights,
    misfits,
    read_state_dict,
    read_weights,
)
from res2net.weights.shipped import SHIPPED, no_such_model
from res2net.weights.stored import refuse_choice

log = logging.getLogger(__name__)


AnyWeights = str | os.PathLike[str] | Weights | Mapping[str, Any]
"""A file, a run directory, a name, what `read_weights` gave, or a `state_dict` of any origin."""


@overload
def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int = 3,
    drop_path: float = 0.0,
    zero_init_last: bool = False,
    weights: AnyWeights | None = None,
    features_only: Literal[False] = False,
) -> Res2NetClassifier: ...


@overload
def create_model(
    name: str,
    *,
    in_channels: int = 3,
    drop_path: float = 0.0,
    zero_init_last: bool = False,
    weights: AnyWeights | None = None,
    features_only: Literal[True],
    out_indices: int | Sequence[int] | None = None,
) -> FeatureNetwork: ...


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int = 3,
    drop_path: float = 0.0,
    zero_init_last: bool = False,
    weights: AnyWeights | None = None,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
) -> Res2NetClassifier | FeatureNetwork:
    """Build a classifier, in training mode, on the CPU (or the device of a surrounding context).

    Args:
        name: A variant or alias; `list_models` names the variants. `res2net_digits`, whose weights
            come with the package, is the network with these weights.
        num_classes: Columns of the logits. None: as many as the weights have, without weights or
            with those of a backbone alone as many as the variant was published with. With another
            number than the weights have, the head starts fresh, and a warning is logged.
        in_channels: Channels of the images; the weights must agree.
        drop_path: Stochastic depth in training: the chance that a sample skips the last block; it
            grows linearly from 0 at the first (arXiv 1603.09382). No key of the weights hangs on
            it.
        zero_init_last: The last norm of each block starts at 0, so that the block starts as its
            shortcut (arXiv 1706.02677, section 5.1); the published networks start at 1.
        weights: A run directory, a checkpoint or weights file, what `read_weights` gave, a
            `state_dict` by the keys of any origin, or the name of published weights, as `in1k`
            (`weights.catalog.resolve`), which are downloaded. None: a fresh initialisation.
        features_only: A `FeatureNetwork` for dense tasks instead: a list of feature maps, without
            a classifier.
        out_indices: Which of the maps, 0 the stem's, i that of stage i, as timm counts them.

    Raises:
        InputError: The name is unknown, a number is out of its range, or the weights cannot be
            read or do not fit.
    """
    if name in SHIPPED:
        weights = SHIPPED[name].path if weights is None else weights
        name = SHIPPED[name].variant
    variant = find_variant(name)
    if features_only and num_classes is not None:
        raise InputError(f"num_classes={num_classes}: features_only=True leaves no classifier")
    if out_indices is not None and not features_only:
        raise InputError(f"out_indices={out_indices}: only with features_only=True")
    if num_classes is not None and num_classes < 1:
        raise InputError(
            f"num_classes={num_classes}: at least 1; for features without a classifier take "
            "res2net.FeatureExtractor, or the network's feature_maps or forward_features"
        )
    if in_channels < 1:
        raise InputError(f"in_channels={in_channels}: at least 1")
    if not 0 <= drop_path < 1:
        raise InputError(f"drop_path={drop_path}: at least 0 and below 1")
    if isinstance(weights, (str, os.PathLike)):
        weights = read_weights(resolve(weights, variant.name), backbone_only=True)
    elif isinstance(weights, Mapping):
        weights = read_state_dict(weights, backbone_only=True)
    if num_classes is None:
        num_classes = (weights.num_classes if weights else 0) or variant.num_classes

    backbone = build_backbone(variant, in_channels=in_channels, drop_path=drop_path)
    if weights is not None:
        stem = weights.state_dict.get(f"backbone.{backbone.stem_weight}")
        if stem is not None and stem.shape[1] != in_channels:
            raise InputError(
                f"in_channels={in_channels}: the weights {weights.source!r} are for images of "
                f"{stem.shape[1]} channels"
            )
    model = Res2NetClassifier(backbone, num_classes, variant=variant.name)
    if zero_init_last:
        zero_last_norms(model)
    if weights is not None:
        announcement = apply_weights(model, weights)
        if announcement is not None and not features_only:
            log.warning(announcement)
    return FeatureNetwork(backbone, out_indices) if features_only else model


def no_variant(weights: Weights) -> InputError:
    """The error for weights that are of no variant: what they lack to be of the nearest."""
    name = nearest_variant(weights)
    with torch.device("meta"):  # shapes only
        network = create_model(
            name,
            num_classes=weights.num_classes or None,
            in_channels=image_channels(weights.state_dict),
        )
    what = name_some(misfits(network, weights), between="; ")
    return InputError(
        f"weights {weights.source!r} are of no variant; compared with the nearest, {name}: {what}"
    )


def nearest_variant(weights: Weights) -> str:
    """The variant whose backbone has most tensors in common with these, by name and shape."""

    def outline(tensors: Mapping[str, torch.Tensor], prefix: str) -> set[tuple[str, torch.Size]]:
        return {
            (key.removeprefix(prefix), tensor.shape)
            for key, tensor in tensors.items()
            if key.startswith(prefix) and not key.endswith(".num_batches_tracked")
        }

    given = outline(weights.state_dict, "backbone.")
    channels = image_channels(weights.state_dict)

    def distance(variant: Variant) -> int:
        with torch.device("meta"):
            network = build_backbone(variant, in_channels=channels, drop_path=0.0)
        return len(given ^ outline(network.state_dict(), ""))

    # PaddleClas's own networks have the shapes of the authors'; whose these are their keys tell.
    alike = [
        variant
        for variant in VARIANTS.values()
        if weights.format == "res2net" or pools_as_paddle(variant) == (weights.format == "paddle")
    ]
    # Networks take time to build. No single tensor that is missing takes away a whole block.
    depths = stage_depths(weights.state_dict)
    alike = [variant for variant in alike if _depths(variant) == depths] or alike
    return min(alike, key=distance).name


def _depths(variant: Variant) -> tuple[int, ...]:
    """As `stage_depths` tells it from tensors."""
    return () if variant.architecture == "dla" else variant.stage_depths


def list_models(pattern: str = "*") -> list[str]:
    """The variants whose names match a shell pattern (`res2net50*`), in the table's order."""
    return [name for name in VARIANTS if fnmatch.fnmatchcase(name, pattern)]


def open_model(
    what: str | os.PathLike[str] | Mapping[str, Any],
    *,
    weights: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    checkpoint: Literal["last", "best"] = "last",
    ema: bool = False,
) -> tuple[Res2NetClassifier, Weights | None]:
    """What a user calls a model: the network as `create_model` gives it, and what its file says.

    Weights without a classifier, which `create_model` gives a fresh one, are refused here: what is
    opened is to be used as it is.

    Args:
        what: A run directory or a checkpoint or weights file; or a variant or alias. Without
            `weights`, a path that exists comes before a variant of that name, because runs are
            often called after their variant. Or a `state_dict` by the keys of any origin, or
            `res2net_digits`, which comes with the package.
        weights: As `create_model` takes them, for a variant. None: a fresh initialisation.
        checkpoint: Which file of a run directory.
        ema: The averaged weights.

    Raises:
        InputError: There is no such path or variant, both have weights, the file does not say
            which variant its weights are for, or as `read_weights` and `create_model` raise.
    """
    if isinstance(what, Mapping):
        return _open(read_state_dict(what, ema=ema), "give it")
    for said, given in (("model", what), ("weights", "none" if weights is None else weights)):
        if not isinstance(given, (str, os.PathLike, Mapping)):
            raise InputError(
                f"{said} {' '.join(repr(given).split()):.60}: is of type {type(given).__name__}; "
                "expected a path, a name or a state_dict"
            )
    name = os.fspath(what)
    if not name:
        raise InputError("model '': an empty name; give a variant, a run directory or a file")
    exists = Path(what).exists()
    if name in SHIPPED and not exists:
        what, exists = SHIPPED[name].path, True
    if exists and weights is None:
        read = read_weights(what, checkpoint=checkpoint, ema=ema)
        return _open(read, "give the file", f" --weights {name}")
    try:
        variant = find_variant(name)
    except InputError:
        if exists:
            given = (
                "a state_dict" if isinstance(weights, Mapping) else repr(os.fspath(weights or ""))
            )
            raise InputError(
                f"model {name!r} has weights of its own: {given} can only be given with a variant"
            ) from None
        raise no_such_model(name) from None
    if weights is None:
        return create_model(variant.name), None
    if isinstance(weights, Mapping):
        read = read_state_dict(weights, ema=ema)
        return _with_all(variant.name, read), read
    refuse_choice(weights, checkpoint)  # before anything is fetched
    read = read_weights(resolve(weights, variant.name), checkpoint=checkpoint, ema=ema)
    return _with_all(variant.name, read), read


def _open(read: Weights, give: str, option: str = "") -> tuple[Res2NetClassifier, Weights]:
    """The network of the variant that the weights are of."""
    model = read.model or only_variant(read.state_dict, format=read.format)
    if model is None:
        fitting = infer_variant(read.state_dict, format=read.format)
        if not fitting:
            raise no_variant(read)
        what = "model {!r}: the file does" if option else "{}: it does"
        raise InputError(
            f"{what.format(read.source)} not say which variant its weights are for; name it and "
            f"{give} as its weights: VARIANT{option or ', weights=...'} "
            f"(choices: {', '.join(fitting)})"
        )
    return _with_all(model, read), read


def _with_all(name: str, weights: Weights) -> Res2NetClassifier:
    """The network for these weights as they are; without batch norms if they have none."""
    if not weights.is_folded:
        if find_variant(name).name not in infer_variant(weights.state_dict, format=weights.format):
            # a file may name a larger network than it holds: shapes tell, and take no memory
            channels = image_channels(weights.state_dict)
            with torch.device("meta"):
                shapes = create_model(
                    name, num_classes=weights.num_classes or None, in_channels=channels
                )
            fit_weights(shapes, weights)
        return create_model(name, weights=weights)
    plain = create_model(
        name, num_classes=weights.num_classes, in_channels=image_channels(weights.state_dict)
    )
    network = fold_batch_norms(plain)
    apply_weights(network, weights)
    return network
