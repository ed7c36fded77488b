"""A checksum of a whole zip file, in its comment.

The checksums that a zip file has are of its members' contents. Its table of contents has none, and
is read otherwise by `zipfile` than by PyTorch: one flipped bit there turned a tensor into whatever
stood in the memory, without an error, where `zipfile.testzip` found nothing wrong.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import BinaryIO

_MARK = b"res2net crc32 "
_COMMENT = len(_MARK) + 8
"""Bytes."""
_CHUNK = 1 << 20


class SummedZip:
    """A stream for one who writes a zip file without a comment, from its beginning to its end.

    Any zip reader opens the file.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._sum = 0
        self._held = b""
        """The last two bytes: at the end they are the length of the comment."""

    def write(self, data: bytes | memoryview) -> int:
        """As of any stream."""
        view = memoryview(data).cast("B")
        if len(view) >= 2:
            self._pass_on(self._held)
            self._pass_on(view[:-2])
            self._held = bytes(view[-2:])
        else:
            held = self._held + bytes(view)
            self._pass_on(held[:-2])
            self._held = held[-2:]
        return len(view)

    def flush(self) -> None:
        self._stream.flush()

    def finish(self) -> None:
        """Write the comment; nothing may be written after it."""
        assert self._held == b"\0\0", "no zip file without a comment"
        self._pass_on(_COMMENT.to_bytes(2, "little"))
        self._stream.write(_MARK + f"{self._sum:08x}".encode())

    def _pass_on(self, data: bytes | memoryview) -> None:
        self._sum = zlib.crc32(data, self._sum)
        self._stream.write(data)


def matches(path: Path) -> bool | None:
    """Whether the file is as it was written; None if it has no such checksum. Raises OSError."""
    left = path.stat().st_size - _COMMENT
    if left <= 0:
        return None
    with path.open("rb") as stream:
        stream.seek(left)
        comment = stream.read()
        if not comment.startswith(_MARK):
            return None
        stream.seek(0)
        found = 0
        while left and (chunk := stream.read(min(_CHUNK, left))):
            found = zlib.crc32(chunk, found)
            left -= len(chunk)
    return comment == _MARK + f"{found:08x}".encode()
