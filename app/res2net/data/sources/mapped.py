"""Memory maps of files, each made when it is first read.

A page that the disk does not give (an I/O error, a file that was cut meanwhile) ends the process
with SIGBUS, as with every memory map: shards are written once and never changed.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from res2net.errors import InputError

_MOST = 1 << 14


class MappedFiles:
    """Memory maps of files, each made when first asked for, in this process.

    Args:
        paths: where they are read.
        shown: what messages call them; default: their paths.
    """

    def __init__(self, paths: Sequence[str], *, shown: Sequence[str] | None = None) -> None:
        self.paths = tuple(paths)
        self.shown = self.paths if shown is None else tuple(shown)
        self._maps: dict[int, mmap.mmap] = {}
        self._capacity = _most_maps()

    def __getitem__(self, number: int) -> mmap.mmap:
        mapped = self._maps.get(number)
        if mapped is None:
            mapped = _map(self.paths[number])
            if len(self._maps) >= self._capacity:
                # The oldest; arrays that are views of it keep it open until they are gone.
                self._maps.pop(next(iter(self._maps)), None)
            self._maps[number] = mapped
        return mapped

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self.paths, self.shown)


def _rebuilt(paths: Sequence[str], shown: Sequence[str]) -> MappedFiles:
    return MappedFiles(paths, shown=shown)


def _map(path: str) -> mmap.mmap:
    try:
        with open(path, "rb") as file:
            if sys.version_info >= (3, 13):
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ, trackfd=False)
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _most_maps() -> int:
    """How many maps to keep.

    Linux allows a process 65,530 maps. Before Python 3.13 each holds a file descriptor as well, of
    which usually 1,024 are allowed and many more may be asked for; training's and validation's
    files, two of these, leave half of them to others.
    """
    if sys.version_info >= (3, 13) or sys.platform == "win32":
        return _MOST
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * _MOST if hard == resource.RLIM_INFINITY else min(hard, 4 * _MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # a sandbox may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return _MOST if soft == resource.RLIM_INFINITY else max(1, min(soft // 4, _MOST))
