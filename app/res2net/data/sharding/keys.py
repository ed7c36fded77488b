"""The names of images in shards: what readers of WebDataset take apart without mistakes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from res2net.data.sources.scan import EXTENSIONS

# Control characters, and bytes that are no UTF-8 (os.fsdecode makes surrogates of them).
_UNSAFE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
# WebDataset leaves out members whose first folder looks like __this__.
_META = re.compile(r"^__(?=[^/]*__/)")

_SIGNATURES = {
    b"\xff\xd8\xff": "jpg",
    b"\x89PNG": "png",
    b"RIFF": "webp",
    b"BM": "bmp",
    b"II*\0": "tif",
    b"MM\0*": "tif",
    b"\0\0\0\x0cjP": "jp2",
}


def key_of(path: str) -> str:
    """A path below the data set, `/` between folders -> the key: without the extension.

    Dots in the name become `_`: a key ends at the first of them.
    """
    folder, _, name = path.rpartition("/")
    stem = os.path.splitext(name)[0].replace(".", "_")
    return _META.sub("_", _UNSAFE.sub("_", f"{folder}/{stem}" if folder else stem))


def extension_of(path: str, content: bytes) -> str:
    """The extension in lower case, without its dot; for a path without one that of the content."""
    extension = os.path.splitext(path)[1].lower()
    if extension in EXTENSIONS:
        return extension[1:]
    known = (name for start, name in _SIGNATURES.items() if content.startswith(start))
    return next(known, "img")


def renamed(keys: Iterable[str]) -> dict[int, str]:
    """Index -> another key, for each image whose key an earlier image has: `a-2`, `a-3`."""
    taken: set[str] = set()
    others: dict[int, str] = {}
    following: dict[str, int] = {}  # the number to try next: thousands may have one name
    for index, key in enumerate(keys):
        if key in taken:
            number = following.get(key, 2)
            while f"{key}-{number}" in taken:
                number += 1
            following[key] = number + 1
            others[index] = key = f"{key}-{number}"
        taken.add(key)
    return others
