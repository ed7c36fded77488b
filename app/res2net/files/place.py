"""Folders that this process writes to for hours: the same ones to the end, or nothing is written.

A folder that is moved, deleted or replaced meanwhile is not made anew, and nothing goes into what
stands in its place: whatever writes below a held folder asks `check` first.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


class GoneError(OSError):
    """The folder is not the one any more that was held. Whoever holds it will tell, once."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.ENOENT, "its folder was moved, deleted or replaced", str(path))


class Place:
    """A folder, known by what it is, not by what it is called.

    Args:
        path: where it is now.
        is_ours: asked where the file system seems to be another one, as after a new mount: whether
            what lies there tells that it is the same folder.
    """

    def __init__(self, path: Path, is_ours: Callable[[], bool] = lambda: False) -> None:
        """Raises OSError."""
        self.path = path
        self._is_ours = is_ours
        # open, so that no other folder gets its number
        self.descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._status = os.fstat(self.descriptor)
        _held.append(self)

    def let_go(self) -> None:
        """May be called twice."""
        if self in _held:
            _held.remove(self)
            os.close(self.descriptor)

    def is_gone(self) -> bool:
        """Whether another folder or nothing stands at the path. Of a network that does not answer
        nothing is concluded."""
        try:
            there = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False
        if there.st_dev == self._status.st_dev:
            return there.st_ino != self._status.st_ino
        with suppress(OSError):
            return not self._is_ours()
        return False

    def now(self) -> Path | None:
        """Where it is today, if it is anywhere and the system tells."""
        with suppress(OSError):
            path = os.readlink(f"/proc/self/fd/{self.descriptor}")
            if os.path.samestat(os.stat(path), self._status):
                return Path(path)
        return None


_held: list[Place] = []


def check(path: Path) -> None:
    """Before something is written to `path`. Raises GoneError below a held folder that is gone."""
    for place in _held:
        if place.path in path.parents and place.is_gone():
            raise GoneError(path)


def is_any_gone() -> bool:
    """Whether a held folder is."""
    return any(place.is_gone() for place in _held)


def make_folder_of(path: Path) -> None:
    """The folder of a file, and those above it. Raises OSError, GoneError as `check`."""
    check(path)
    path.parent.mkdir(parents=True, exist_ok=True)
