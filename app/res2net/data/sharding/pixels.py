"""An image file with fewer pixels: decoded, made smaller and encoded as JPEG by Pillow."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

QUALITY = 90
"""JPEG quality of resized images, where none is given."""

RESAMPLE = Image.Resampling.BICUBIC


class Corrupt(ValueError):
    """An image that cannot be written; the message says why, in a few words."""


def shrink(content: bytes, short_side: int, quality: int) -> bytes | None:
    """An image file -> a JPEG whose short side has `short_side` pixels; None: it has no more now.

    The long side is cut to whole pixels as torchvision's Resize does. EXIF data are left out, its
    orientation with them, which neither training nor evaluation looks at. Every image is decoded,
    the small ones to see whether it can be.

    Raises Corrupt.
    """
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(content)) as image:
            warnings.simplefilter("ignore")  # of EXIF data, large images: nothing to act on
            image.load()
            width, height = image.size
            shorter = min(width, height)
            if shorter <= short_side:
                return None
            size = (short_side * width // shorter, short_side * height // shorter)
            stream = io.BytesIO()
            to_rgb(image).resize(size, RESAMPLE).save(stream, "JPEG", quality=quality)
            return stream.getvalue()
    except UnidentifiedImageError as error:
        raise Corrupt("no image in a known format") from error
    # Damaged files make PIL fail in any way it can: OSError, SyntaxError, ValueError, struct.error.
    except Exception as error:
        raise Corrupt(" ".join(str(error).split()) or type(error).__name__) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB of 8 bits, as evaluation sees an image of any mode. Raises ValueError for 32 bits."""
    if image.mode == "F":
        raise ValueError("has floating-point pixels; expected 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits a pixel, which PIL would clip to 255
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError("has pixels of 32 bits; expected 8 or 16")
        grey = ((values + 128) // 257).astype(np.uint8)  # 65535 -> 255, rounded as DALI does
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "P":  # the same colours, but without PIL's warning about transparency
        image = image.convert("RGBA")
    return image.convert("RGB")
