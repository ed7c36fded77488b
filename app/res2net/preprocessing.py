"""What is done to an image before a network sees it: one description, stored in every checkpoint.

`data/dali/graph.py` builds it of DALI operators, `Preprocessing.transform` of torchvision's; on a
CPU the two agree within one grey level, bicubic within two or three. At the rim of an image that is
not cropped it is more: beyond it Pillow has nothing, DALI repeats the last pixel.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from numbers import Real
from typing import TYPE_CHECKING, Any

from res2net.errors import InputError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

INTERPOLATIONS = ("bilinear", "bicubic")

LARGEST = 4096
"""Pixels of a side of what the network sees, the most there may be."""
LARGEST_RESIZED = 8192
"""Pixels of the resized short side, the most there may be: 200 MB, if the image is square."""
_BEYOND = 1e18
"""No number is as large; NaN is not below it either."""
_SMALLEST_STD, _LARGEST_MEAN = 1e-3, 1e3
"""Of values 0..1; a network whose images were not divided has 1/255."""

_LARGEST_RESIZED = 1 << 24
"""Pixels of a whole image whose short side was resized: 64 MB, or what it has itself."""
_PIECE = 2**17
"""Numbers that are normalised at a time on the CPU: half a megabyte of float32."""


@dataclass(frozen=True)
class Preprocessing:
    """Resize the short side to `resize_size`, cut the centre square of `image_size`, normalise.

    The defaults are those of all published Res2Net figures: 256, 224, bilinear.

    Raises:
        InputError: A size that is not between 1 and 4096, a fraction that is not above 0 and up
            to 1, another interpolation, or a mean or std that is not three numbers in their range;
            or size and fraction make a short side of more than 8192.
    """

    image_size: int = 224
    crop_fraction: float = 0.875
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        problems = [
            f"{name}={_shown(getattr(self, name))}: expected {rule}"
            for name, (rule, holds) in _RULES.items()
            if not holds(getattr(self, name))
        ]
        if problems:
            raise InputError(f"preprocessing: {'; '.join(problems)}")
        if self.image_size > LARGEST_RESIZED * self.crop_fraction:
            raise InputError(
                f"preprocessing: crop_fraction={self.crop_fraction!r}: a crop of {self.image_size} "
                f"pixels of a short side of more than {LARGEST_RESIZED:,}"
            )
        # what JSON or NumPy gave, as a cache takes it for a key and a checkpoint holds it
        object.__setattr__(self, "image_size", int(self.image_size))
        object.__setattr__(self, "crop_fraction", float(self.crop_fraction))
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))

    @property
    def resize_size(self) -> int:
        """Pixels of the resized short side: 256 for a crop of 224 at fraction 0.875."""
        return int(self.image_size / self.crop_fraction)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Preprocessing:
        """Read what `to_dict` gave. Raises KeyError where a field is missing."""
        return cls(**{field.name: stored[field.name] for field in fields(cls)})

    def to_dict(self) -> dict[str, Any]:
        """Numbers, strings and lists only, so that a checkpoint or JSON can hold it."""
        values = asdict(self)
        return values | {"mean": list(self.mean), "std": list(self.std)}

    def transform(self) -> Callable[[Image], torch.Tensor]:
        """Torchvision's form, for PIL images: (H, W, C) any mode -> uint8 (3, S, S)."""
        from torchvision.transforms import v2

        mode = v2.InterpolationMode(self.interpolation)
        return v2.Compose(
            [
                self._check_strip,
                v2.RGB(),
                v2.Resize(self.resize_size, interpolation=mode, antialias=True),
                v2.CenterCrop(self.image_size),
                v2.PILToTensor(),
            ]
        )

    def _check_strip(self, image: Image) -> Image:
        """The image itself. Raises InputError for one that would be resized to a huge strip."""
        width, height = image.size
        resized = self.resize_size**2 * max(width, height) // max(1, min(width, height))
        if resized > max(_LARGEST_RESIZED, width * height):
            raise InputError(
                f"{width:,} x {height:,} pixels are {resized:,} with a short side of "
                f"{self.resize_size}, more than {_LARGEST_RESIZED:,}: crop it first"
            )
        return image

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (N, 3, H, W) -> float32 of the same shape and memory format, on its device."""
        import torch

        factor, offset = _affine(self.mean, self.std, images.device)
        if images.is_contiguous(memory_format=torch.channels_last):
            # as rows of pixels: a CPU takes twice as long to broadcast over three numbers
            height, width = images.shape[2:]
            rows = images.permute(0, 2, 3, 1).reshape(-1, height, width * 3)
            factors, offsets = factor.repeat(width), offset.repeat(width)
            if images.device.type == "cpu":
                normal = _in_pieces(rows, factors, offsets)
            else:
                normal = rows.float().mul_(factors).sub_(offsets)
            return normal.view(-1, height, width, 3).permute(0, 3, 1, 2)
        return images.float().mul_(factor.view(1, 3, 1, 1)).sub_(offset.view(1, 3, 1, 1))


@cache
def _affine(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Factor and offset of each channel: on a GPU each copy of numbers would hold a step up."""
    import torch

    scale = [255.0 * value for value in std]
    shift = [value / each for value, each in zip(mean, std, strict=True)]
    with torch.inference_mode(False):  # kept for training as well
        return (
            torch.tensor(scale, device=device).reciprocal(),
            torch.tensor(shift, device=device),
        )


def to_rgb(image: Image) -> Image:
    """RGB of 8 bits, as evaluation sees an image of any mode. Raises ValueError for 32 bits."""
    import numpy as np
    from PIL.Image import fromarray

    if image.mode == "F":
        raise ValueError("has floating-point pixels; expected 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits a pixel, which PIL would clip to 255
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError("has pixels of 32 bits; expected 8 or 16")
        grey = ((values + 128) // 257).astype(np.uint8)  # 65535 -> 255, rounded as DALI does
        return fromarray(grey).convert("RGB")
    if image.mode == "P":  # the same colours, but without PIL's warning about transparency
        image = image.convert("RGBA")
    return image.convert("RGB")


def too_large(error: Exception) -> str:
    """PIL's DecompressionBombError in plain words."""
    pixels, limit = re.findall(r"\d+", str(error))[:2]  # it has them nowhere else
    return f"{int(pixels):,} pixels, more than {int(limit):,}"


def _in_pieces(images: torch.Tensor, factors: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """uint8 (N, H, W * 3) -> float32: in pieces that stay in the cache, and without PyTorch's
    threads, which would wait for cores that decode the next batch."""
    import numpy as np
    import torch

    pixels, normal = images.numpy(), torch.empty(images.shape)
    out, factor, offset = normal.numpy(), factors.numpy(), offsets.numpy()
    some = max(1, _PIECE // max(1, images.shape[1:].numel()))
    for start in range(0, len(pixels), some):
        piece = out[start : start + some]
        np.copyto(piece, pixels[start : start + some])
        np.multiply(piece, factor, out=piece)
        np.subtract(piece, offset, out=piece)
    return normal


def _shown(value: Any) -> str:
    """What is wrong, in one line that is no longer than lines are."""
    try:
        text = " ".join(repr(value).split())
    except (ValueError, RecursionError):  # an integer of more digits than Python writes
        return f"a {type(value).__name__}"
    return text if len(text) <= 100 else f"{text[:100]}..."


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, Real) and not isinstance(value, bool)
    return is_real and bool(-_BEYOND < value < _BEYOND)


def _is_integer(value: Any) -> bool:
    return _is_number(value) and value == int(value)


def _are_three(values: Any) -> bool:
    if hasattr(values, "tolist"):  # of NumPy or PyTorch
        values = values.tolist()
    three = isinstance(values, (tuple, list)) and len(values) == 3
    return three and all(map(_is_number, values))


_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "image_size": (
        f"an integer from 1 to {LARGEST}",
        lambda size: _is_integer(size) and 1 <= size <= LARGEST,
    ),
    "crop_fraction": (
        "a number above 0 and up to 1",
        lambda fraction: _is_number(fraction) and 0 < fraction <= 1,
    ),
    "interpolation": (
        f"one of {', '.join(INTERPOLATIONS)}",
        lambda name: isinstance(name, str) and name in INTERPOLATIONS,
    ),
    "mean": (
        f"three numbers from {-_LARGEST_MEAN:g} to {_LARGEST_MEAN:g}",
        lambda values: _are_three(values) and all(abs(value) <= _LARGEST_MEAN for value in values),
    ),
    "std": (
        f"three numbers from {_SMALLEST_STD} to {_LARGEST_MEAN:g}",
        lambda values: (
            _are_three(values) and all(_SMALLEST_STD <= value <= _LARGEST_MEAN for value in values)
        ),
    ),
}
"""What each field of `Preprocessing` must be, in words and as a test."""
