"""Heat laid over images: what is cold stays as it is, what is hot glows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from res2net.files.atomic import atomic_write
from res2net.plots.tiles import SIDE

PICTURE_SIDE = 448
"""Pixels, at least, of an image in a picture of its own."""

_COLORS = "turbo"
_OPAQUE = 0.6
_GAP = 12


def overlay(pixels: np.ndarray, heat: np.ndarray, side: int) -> Image.Image:
    """An image with its heat, as a square of `side` pixels.

    Args:
        pixels: uint8 (H, W, 3).
        heat: (H, W) in 0..1.
        side: Small images are enlarged with their pixels to be seen, the heat smoothly.
    """
    from matplotlib import colormaps

    picture = np.asarray(enlarged(pixels, side), np.float32) / 255
    field = Image.fromarray(np.asarray(heat, np.float32))
    hot = np.asarray(field.resize((side, side), Image.Resampling.BICUBIC)).clip(0, 1)
    colors = colormaps[_COLORS](0.9 * hot)[..., :3]  # without its end, a red that is nearly black
    # The square root shows faint heat, too, yet nothing where there is none.
    opacity = _OPAQUE * np.sqrt(hot)[..., None]
    mixed = picture * (1 - opacity) + colors * opacity
    return Image.fromarray((255 * mixed).round().astype(np.uint8))


def enlarged(pixels: np.ndarray, side: int) -> Image.Image:
    """An image uint8 (H, W, 3) as a square of `side` pixels."""
    small = 2 * max(pixels.shape[:2]) <= side and max(pixels.shape[:2]) <= SIDE // 2
    how = Image.Resampling.NEAREST if small else Image.Resampling.BICUBIC
    return Image.fromarray(pixels).resize((side, side), how)


def save_side_by_side(pictures: Sequence[Image.Image], file: Path) -> None:
    """Write a PNG of pictures of one height, from left to right. Raises OSError."""
    width = sum(picture.width + _GAP for picture in pictures) - _GAP
    whole = Image.new("RGB", (width, pictures[0].height), "white")
    x = 0
    for picture in pictures:
        whole.paste(picture, (x, 0))
        x += picture.width + _GAP
    with atomic_write(file) as stream:
        whole.save(stream, "PNG")
