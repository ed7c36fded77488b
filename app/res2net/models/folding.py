"""Batch norms folded into the convolutions before them: the same function, fewer layers."""

from __future__ import annotations

import copy
import re
from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def fold_batch_norms(network: Network) -> Network:
    """A copy in evaluation mode whose convolutions have biases and whose norms are identities.

    With the statistics that evaluation uses, a norm is w (x - mean) / sqrt(var + eps) + b for each
    channel, which a convolution can do by itself (arXiv 1712.05877, section 3.2). Computed in
    float64; logits differ by rounding alone. The copy cannot be trained: it has no statistics.

    Raises:
        ValueError: A norm does not stand after a convolution, by the names of this project.
    """
    folded = copy.deepcopy(network).eval()
    modules = dict(folded.named_modules())
    for path, convolution in modules.items():
        if not isinstance(convolution, nn.Conv2d):
            continue
        place = _norm_after(path)
        norm = modules.get(place)
        if isinstance(norm, nn.BatchNorm2d):
            _fold(norm, convolution)
            folded.set_submodule(place, nn.Identity())
    left = [path for path, module in folded.named_modules() if isinstance(module, nn.BatchNorm2d)]
    if left:
        raise ValueError(f"norms that do not stand after a convolution: {', '.join(left)}")
    return folded


def _norm_after(path: str) -> str:
    """conv1 -> bn1, convs.0 -> bns.0, shortcut.conv -> shortcut.bn, base_layer.0 -> base_layer.1"""
    front, _, name = path.rpartition(".")
    if name.isdecimal() and not front.endswith("convs"):
        return f"{front}.{int(name) + 1}".removeprefix(".")
    return re.sub(r"conv(s?\.?\d*)$", r"bn\1", path)


def _fold(norm: nn.BatchNorm2d, convolution: nn.Conv2d) -> None:
    """Give the convolution the scale and the shift of the norm."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None
    with torch.no_grad():
        scale = norm.weight.double() / (variance.double() + norm.eps).sqrt()  # (out_channels,)
        shift = norm.bias.double() - mean.double() * scale
        weight = convolution.weight.double() * scale[:, None, None, None]
    convolution.weight = nn.Parameter(weight.to(convolution.weight.dtype))
    convolution.bias = nn.Parameter(shift.to(convolution.weight.dtype))
