"""A file that grows, on a disk that may be full, read-only or over quota for a while."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from res2net.files.place import check
from res2net.files.trouble import Trouble


class AppendedFile:
    """Takes pieces and never raises OSError: what cannot be written now waits in memory, in order.

    Its folder is made if need be. On the disk are whole pieces only; only a kill can tear one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pending = b""
        """What is not on the disk yet."""
        self._trouble = Trouble(path, "what belongs there waits in memory")
        self._cut_at: int | None = None
        """In bytes: what stands behind is torn or from before, and must go first."""

    @property
    def length(self) -> int:
        """Of what is on the disk and stays there, in bytes."""
        try:
            length = self.path.stat().st_size
        except OSError:  # there is no such file yet
            return 0
        return length if self._cut_at is None else min(length, self._cut_at)

    def append(self, piece: bytes, *, keep: int | None = None) -> None:
        """Write what waits, and then the piece; `keep`: cut the file to so many bytes before."""
        if keep is not None:
            self.pending, self._cut_at = b"", keep
        self.pending += piece
        with self._trouble.attempt():
            self._write()

    def sync(self) -> None:
        """Bring the file to the disk, with what waits if there is room now."""
        with self._trouble.attempt():
            self._write()
            with self.path.open("rb") as file:
                os.fsync(file.fileno())

    def _write(self) -> None:
        if not self.pending and self._cut_at is None:
            return
        check(self.path)
        self.path.parent.mkdir(exist_ok=True)
        with self.path.open("ab", buffering=0) as file:
            start = file.seek(0, os.SEEK_END)
            if self._cut_at is not None and start > self._cut_at:
                file.truncate(self._cut_at)
                start = self._cut_at
            self._cut_at = start
            try:
                left = memoryview(self.pending)
                while left:
                    left = left[file.write(left) :]
            except BaseException:  # short of room, or interrupted
                with suppress(OSError):  # then it is cut before the next write
                    file.truncate(start)
                raise
        # not before it is closed: a network file system finds out there that a quota is used up
        self.pending, self._cut_at = b"", None
