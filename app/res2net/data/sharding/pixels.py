"""An image file with fewer pixels: decoded, made smaller and encoded as JPEG by Pillow."""

from __future__ import annotations

import io
import warnings

from PIL import Image, UnidentifiedImageError

from res2net.preprocessing import to_rgb, too_large

QUALITY = 90
"""JPEG quality of resized images, where none is given."""

RESAMPLE = Image.Resampling.BICUBIC


class Corrupt(ValueError):
    """An image that cannot be written; the message says why, in words that follow its name."""


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
        raise Corrupt("cannot be decoded (no image in a known format)") from error
    except Image.DecompressionBombError as error:
        raise Corrupt(f"cannot be decoded ({too_large(error)})") from error
    # Damaged files make PIL fail in any way it can: OSError, SyntaxError, ValueError, struct.error.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Corrupt(f"cannot be decoded ({reason})") from error
