"""Small files that take long to decode."""

import io

from PIL import Image


def many_scans(width: int, height: int, scans: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again: each is a pass over it all."""
    file = io.BytesIO()
    Image.new("L", (width, height), 77).save(file, "JPEG", progressive=True, quality=50)
    content = file.getvalue()
    last = content.rindex(b"\xff\xda")
    # the tables that it needs come before it, and stay
    return content[:last] + content[last:-2] * scans + content[-2:]
