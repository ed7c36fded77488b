"""Whether a file computes what the network does: the figures that decide whether it is kept."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from res2net.errors import WorkError
from res2net.export.source import InputKind, Source
from res2net.weights.read import read_weights

LIMIT = 1e-4
"""Of the error, for a file of float32 of a network whose own rounding is small."""

BATCHES = (1, 5)
"""Numbers of generated images in a batch: the file must take any number."""

Function = Callable[[torch.Tensor], torch.Tensor]
"""Images as the file takes them (N, C, S, S) -> logits (N, K)."""


@dataclass(frozen=True)
class Agreement:
    """Of a file with the network."""

    images: int
    error: float
    """Largest difference of a logit, divided by the standard deviation of all logits."""
    rounding: float
    """The same of the network itself in float32 against float64: what no file can be held to."""
    same_top1: float
    """Fraction 0..1 of the images with the same first class."""


def generated(source: Source) -> Iterator[torch.Tensor]:
    """Pixels uint8 (N, C, S, S): smooth colours with grain, the same in every call."""
    generator = torch.Generator().manual_seed(0)
    channels, height, width = source.image_shape
    for count in BATCHES:
        coarse = torch.rand((count, channels, 7, 7), generator=generator)
        smooth = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
        grain = 0.1 * torch.randn((count, channels, height, width), generator=generator)
        yield (255 * (smooth + grain).clamp(0, 1)).round().byte()


def agreement(
    source: Source, function: Function, pixels: Iterable[torch.Tensor], *, takes: InputKind
) -> Agreement:
    """Compare on images.

    Args:
        source: Whose network is right.
        function: What the file computes.
        pixels: uint8 (N, C, S, S), in batches.
        takes: What the function takes: pixels, or normalised images.

    Raises:
        WorkError: The network's or the file's logits are not finite, or of different shapes.
    """
    expected, exact, found = [], [], []
    double = copy.deepcopy(source.network).double()
    with torch.inference_mode():
        for batch in pixels:
            images = source.preprocessing.normalise(batch)
            expected.append(source.network(images))
            exact.append(double(images.double()))
            found.append(function(batch if takes == "uint8" else images).float())
    right, given = torch.cat(expected).double(), torch.cat(found).double()  # (N, K)
    if not right.isfinite().all():
        raise WorkError(
            f"{source.weights.source}: the network's output is not finite, so its training "
            "diverged or its weights are damaged; nothing was written, take another checkpoint"
        )
    if given.shape != right.shape or not given.isfinite().all():
        raise WorkError(
            f"the file gives logits {tuple(given.shape)} that are not those of the network "
            f"{tuple(right.shape)} or not finite; nothing was written"
        )
    spread = right.std(correction=0) if right.numel() > 1 else right.abs().max()
    spread = spread.clamp_min(1e-30)
    return Agreement(
        images=len(right),
        error=float((given - right).abs().max() / spread),
        rounding=float((torch.cat(exact) - right).abs().max() / spread),
        same_top1=float((given.argmax(1) == right.argmax(1)).double().mean()),
    )


def hold(found: Agreement, *, form: str) -> None:
    """Raises WorkError: the error is above `LIMIT` and above twice the network's own rounding."""
    limit = max(LIMIT, 2 * found.rounding)
    if not found.error <= limit:
        raise WorkError(
            f"the {form} file differs from the network by {found.error:.1e} of the spread of its "
            f"logits (limit {limit:.1e}) on {found.images} images; nothing was written"
        )


def hold_tensors(file: Path, expected: Mapping[str, torch.Tensor]) -> None:
    """Read a file of weights as every use of it does, and compare it bit for bit.

    Args:
        file: By whatever keys.
        expected: By this project's keys.

    Raises:
        WorkError: A tensor is missing, unexpected or differs; it is named.
    """
    found = read_weights(file).state_dict
    for key in sorted(found.keys() | expected.keys()):
        if key not in found or key not in expected or not _same(found[key], expected[key]):
            raise WorkError(
                f"the file differs from the network in {key}, read back; nothing was written"
            )


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Bit for bit, NaN like all else."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    bits, others = (each.contiguous().reshape(-1).view(torch.uint8) for each in (one, other))
    return torch.equal(bits, others)
