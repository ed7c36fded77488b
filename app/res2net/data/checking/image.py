"""One image file: what it is, whether training can read it, and what is odd about it.

The header is read by Pillow, the verdict is DALI's.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from res2net.data.sources.scan import EXTENSIONS

MAX_PIXELS = 2 * 89_478_485
"""Beyond this Pillow, and so `res2net predict`, refuses an image as a decompression bomb."""

LONG = 10
"""From this ratio of its sides on an image is odd: resized whole, as predict does, it is huge."""

WhyNot = Callable[[np.ndarray], str | None]
"""Why training's decoder refuses the bytes of a file, uint8 (bytes,), in a few words; None: it does
not."""

# What Pillow calls the content of files that may bear an extension.
_CONTENT = {
    ".jpg": ("JPEG", "MPO"),
    ".jpeg": ("JPEG", "MPO"),
    ".png": ("PNG",),
    ".bmp": ("BMP", "DIB"),
    ".ppm": ("PPM",),
    ".pnm": ("PPM",),
    ".tif": ("TIFF",),
    ".tiff": ("TIFF",),
    ".webp": ("WEBP",),
    ".jp2": ("JPEG2000",),
}
assert _CONTENT.keys() == set(EXTENSIONS)

_KNOWN_TO_DALI = frozenset(name for names in _CONTENT.values() for name in names)

_MAGIC = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"RIFF": "WEBP",
    b"\0\0\0\x0cjP": "JPEG2000",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}

_ODD_MODES = {
    "CMYK": "CMYK, converted to RGB",
    "LAB": "L*a*b*, which training and predict convert differently",
    "RGBA": "transparency, which is dropped",
    "LA": "transparency, which is dropped",
    "PA": "transparency, which is dropped",
    "La": "transparency, which is dropped",
    "F": "floating-point pixels: training reads them, predict refuses them",
    "I": "more than 8 bits a pixel, reduced to 8",
}

_ORIENTATION = 0x112


class Look(NamedTuple):
    """What was found in a file; width and height are 0 and the strings empty where unknown."""

    width: int = 0
    height: int = 0
    format: str = ""
    """Pillow's name: JPEG, PNG, MPO, ..."""
    mode: str = ""
    """Pillow's: RGB, L, CMYK, P, I;16, ..."""
    broken: str = ""
    """Why training cannot use it; empty: it can."""
    odd: tuple[str, ...] = ()
    """What to know about it."""


def look_at(encoded: np.ndarray, name: str, *, max_pixels: int, why_not: WhyNot) -> Look:
    """Judge the bytes of an image file, uint8 (bytes,), that is called `name`.

    Of more than `max_pixels` it is broken, and is not decoded. Pillow's own limit and its warnings
    are the caller's to switch off: both are global.
    """
    if not encoded.size:
        return Look(broken="empty")
    try:
        image = Image.open(io.BytesIO(encoded.data))
        look = Look(image.width, image.height, image.format or "", image.mode)
        odd = _oddities(image, name)
    except Exception:  # damaged headers make Pillow fail in any way it can
        if why_not(encoded):
            return Look(broken=_what_else(encoded.tobytes()))
        return Look(odd=("training reads it, Pillow and so predict do not",))
    if look.width * look.height > max_pixels:
        size = f"{look.width:,} x {look.height:,} pixels"
        return look._replace(broken=f"{size}, more than {max_pixels:,} in all: not decoded")
    if why_not(encoded):
        return look._replace(broken=_why(image))
    return look._replace(odd=odd)


def _oddities(image: Image.Image, name: str) -> tuple[str, ...]:
    odd = []
    extension = os.path.splitext(name)[1].lower()
    if extension in _CONTENT and image.format not in _CONTENT[extension]:
        odd.append(f"{image.format} named {extension}")
    # Of a PNG without EXIF in its header Pillow would decode the pixels to look behind them.
    if image.format != "PNG" or "exif" in image.info:
        orientation = image.getexif().get(_ORIENTATION, 1)
        if orientation in range(2, 9):
            odd.append(f"EXIF orientation {orientation}, which training does not apply")
    if note := _ODD_MODES.get("I" if image.mode.startswith("I") else image.mode):
        odd.append(note)
    elif "transparency" in image.info:
        odd.append(_ODD_MODES["RGBA"])
    # RGB of 16 bits has no mode of its own: only its tiles tell, as RGB;16B
    if ";16" in str(getattr(image, "tile", "")) and not image.mode.startswith("I"):
        odd.append(_ODD_MODES["I"])
    if image.format in _KNOWN_TO_DALI and getattr(image, "n_frames", 1) > 1:
        odd.append("several images in one file; the first is used")
    if max(image.size) >= LONG * min(image.size):
        odd.append(f"{LONG} times as long as wide, or more: predict takes much memory for it")
    return tuple(odd)


def _why(image: Image.Image) -> str:
    """The reason why an image of which Pillow reads the header is not decoded."""
    if image.format not in _KNOWN_TO_DALI:
        return f"{image.format}, which training cannot decode"
    try:
        image.load()
    except Exception as error:
        if "truncated" in str(error):  # Pillow adds how many bytes; one reason is enough for all
            return f"truncated {image.format}"
        return f"damaged {image.format} ({str(error) or type(error).__name__})"
    return f"{image.format} that Pillow reads and training's decoder does not"


def _what_else(encoded: bytes) -> str:
    """What a file is that is no image."""
    start = encoded[:512].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page, no image"
    if not encoded.strip(b"\0"):
        return "zero bytes only"
    if encoded[4:8] == b"ftyp" and encoded[8:12] in (b"heic", b"heix", b"mif1", b"hevc"):
        return "HEIC, which training cannot decode"
    for magic, form in _MAGIC.items():
        if encoded.startswith(magic):
            return f"damaged {form}, its header already"
    return "no image in a known format"
