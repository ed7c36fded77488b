"""Memory maps of files, each made when it is first read."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Sequence
from typing import Any

from res2net.errors import InputError


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
    """How many maps to keep: before Python 3.13 each holds a file descriptor, of usually 1,024."""
    if sys.version_info >= (3, 13) or sys.platform == "win32":
        return sys.maxsize
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if limit == resource.RLIM_INFINITY else max(1, limit // 2)
