"""One image file of a stranger's made plain pixels, in a process of its own with little to spend.

Decoders are native code, and what a file takes to decode is not to be seen in its header: hundreds
of passes over one JPEG, say. Here that ends with this process, which imports nothing but Pillow.
`uploads.decode` starts it: `python -m res2net.demo.decoding FILE PIXELS SECONDS`. It writes the
pixels as a PPM, and says what the file was, or why there are none.
"""

from __future__ import annotations

import math
import sys
import warnings

from PIL import Image, ImageFile, UnidentifiedImageError

from res2net.preprocessing import to_rgb

FORMATS = {
    "JPEG": "JPEG",
    "PNG": "PNG",
    "WEBP": "WebP",
    "GIF": "GIF",
    "BMP": "BMP",
    "AVIF": "AVIF",
}
"""By Pillow's names: what browsers show. Of its other readers one starts Ghostscript."""

MOST_PIXELS = 64_000_000
KEPT_PIXELS = 16_000_000
"""A larger image is reduced by a whole number: still more than any network looks at."""

_MEMORY = 2**31


def decode(path: str) -> tuple[Image.Image, str]:
    """RGB of the first picture in a file, up to `KEPT_PIXELS`, and the file's media type.

    Raises:
        ValueError: It has no pixels, or more than `MOST_PIXELS`; nothing was decoded.
        Exception: Damaged files make Pillow fail in any way it can.
    """
    with Image.open(path, formats=list(FORMATS)) as image:
        width, height = image.size
        if width * height == 0:
            raise ValueError(f"has no pixels ({width} x {height})")
        if width * height > MOST_PIXELS:
            raise ValueError(f"has {width * height:,} pixels, more than {MOST_PIXELS:,}")
        rgb = to_rgb(image)
        factor = math.ceil(math.sqrt(width * height / KEPT_PIXELS))
        return (rgb.reduce(factor) if factor > 1 else rgb), _media_type(image)


def main() -> int:
    """0: the pixels are written, and the media type is printed; 1: the reason is."""
    source, pixels, seconds = sys.argv[1:]
    _spend_little(int(seconds))
    Image.MAX_IMAGE_PIXELS = None  # ours is lower
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    warnings.simplefilter("ignore")
    try:
        image, media_type = decode(source)
        image.save(pixels, "PPM")
    except Exception as error:
        print(_reason(error))
        return 1
    print(media_type)
    return 0


def _spend_little(seconds: int) -> None:
    """Let the system end this process at its limits of time, memory and file size."""
    try:
        import resource
    except ImportError:  # Windows: `uploads.decode` ends it after a time
        return
    limits = {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_AS: _MEMORY,
        resource.RLIMIT_FSIZE: KEPT_PIXELS * 3 + 1024,
        resource.RLIMIT_CORE: 0,
    }
    for name, limit in limits.items():
        try:
            resource.setrlimit(name, (limit, limit))
        except (OSError, ValueError):
            continue  # macOS has no such limit of memory, an administrator may have set a lower one


def _media_type(image: Image.Image) -> str:
    kind = str(image.format)  # MPO: several JPEGs, of which browsers show the first
    return f"image/{'jpeg' if kind == 'MPO' else kind.lower()}"


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "is no image in a known format: " + ", ".join(FORMATS.values())
    if isinstance(error, MemoryError):
        return "takes more memory to decode than an image gets here"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror})"
    return " ".join(str(error).split())[:200] or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
