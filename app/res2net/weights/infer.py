"""Which variants weights can be of, by their keys and shapes alone."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from res2net.models.variants import VARIANTS, Variant
from res2net.weights.keymaps import Format

STEM_WEIGHTS = ("backbone.stem.conv1.weight", "backbone.base_layer.0.weight")
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_HEAD = "head."
_RGB = 3

_BLOCK = re.compile(r"backbone\.stages\.([0-9]{1,4})\.([0-9]{1,4})\.")


def infer_variant(
    state_dict: Mapping[str, torch.Tensor], *, format: Format = "res2net"
) -> list[str]:
    """The variants that have as many numbers as these weights, and the same stem and stages.

    The classifier's size and the number of image channels are left out of account. How a block
    pools and adds does not show in any tensor, so that several variants can fit. Foreign keys say
    it: PaddleClas's networks pool and add in their own way, all others in the authors'.

    Args:
        state_dict: By our keys, with or without the classifier.
        format: Whose keys the file had. `res2net` says nothing of how blocks pool; for `paddle`
            variants that do it in the authors' way are named only if none does it in Paddle's.
    """
    numbers = _backbone_parameters(state_dict)
    depths = stage_depths(state_dict)
    channels = _out_channels(state_dict)
    fitting = [
        variant
        for variant in VARIANTS.values()
        if variant.parameters - (channels + 1) * variant.num_classes == numbers
        and (variant.architecture == "dla" or variant.stage_depths == depths)
        and (variant.stem == "deep") == ("backbone.stem.conv2.weight" in state_dict)
    ]
    if format != "res2net":
        alike = [v for v in fitting if pools_as_paddle(v) == (format == "paddle")]
        fitting = alike or (fitting if format == "paddle" else [])
    return [variant.name for variant in fitting]


def only_variant(state_dict: Mapping[str, torch.Tensor], *, format: Format) -> str | None:
    """The one variant that weights of that origin are of; None: there is more than one, or none."""
    fitting = infer_variant(state_dict, format=format)
    if len(fitting) != 1:
        return None
    foreign = format == "paddle" and not pools_as_paddle(VARIANTS[fitting[0]])
    return None if foreign else fitting[0]


def pools_as_paddle(variant: Variant) -> bool:
    """Whether its blocks compute what only PaddleClas's do with the same weights."""
    return variant.stride_1_first_as_normal or not variant.pool_count_include_pad


def image_channels(state_dict: Mapping[str, torch.Tensor]) -> int:
    """Channels of the images that these weights see."""
    for key in STEM_WEIGHTS:
        if key in state_dict and state_dict[key].ndim == 4:
            return state_dict[key].shape[1]
    return _RGB


def is_folded(state_dict: Mapping[str, torch.Tensor]) -> bool:
    """Whether there are no batch norms, as `models.folding` leaves a network."""
    stem = any(key.replace(".weight", ".bias") in state_dict for key in STEM_WEIGHTS)
    return stem and not any(key.endswith(".running_mean") for key in state_dict)


def count_parameters(state_dict: Mapping[str, torch.Tensor]) -> int:
    """Trainable numbers: all but the statistics of the norms."""
    return sum(value.numel() for key, value in state_dict.items() if not key.endswith(_BUFFERS))


def _backbone_parameters(state_dict: Mapping[str, torch.Tensor]) -> int:
    """As if the images were RGB."""
    backbone = {key: value for key, value in state_dict.items() if not key.startswith(_HEAD)}
    numbers = count_parameters(backbone)
    for key in STEM_WEIGHTS:
        if key in backbone and backbone[key].ndim == 4:
            filters, channels, height, width = backbone[key].shape
            numbers += filters * (_RGB - channels) * height * width
    return numbers


def _blocks(state_dict: Mapping[str, torch.Tensor]) -> list[tuple[int, int]]:
    """(stage, block) of all blocks, sorted."""
    found = map(_BLOCK.match, state_dict)
    return sorted({(int(match[1]), int(match[2])) for match in found if match})


def stage_depths(state_dict: Mapping[str, torch.Tensor]) -> tuple[int, ...]:
    """Blocks of each stage; empty for a DLA."""
    stages = [stage for stage, _ in _blocks(state_dict)]
    return tuple(stages.count(stage) for stage in sorted(set(stages)))


def _out_channels(state_dict: Mapping[str, torch.Tensor]) -> int:
    """Of the last feature map; 0: the key that shows it is missing."""
    blocks = _blocks(state_dict)
    last = "backbone.level5.root.bn.weight"
    if blocks:
        stage, block = blocks[-1]
        last = f"backbone.stages.{stage}.{block}.bn3.weight"
    return state_dict[last].numel() if last in state_dict else 0
