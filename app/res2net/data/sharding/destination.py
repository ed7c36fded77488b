"""Whether shards can be written to a place, asked before the source is looked at."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

from res2net.data.sharding.plan import plan_path
from res2net.data.sources.shards import DESCRIPTION, UNFINISHED
from res2net.errors import InputError


def check_destination(destination: str, source: str) -> None:
    """Leaves everything as it was.

    Raises InputError where the destination lies in the source, holds something else than shards, or
    cannot be made or written.
    """
    directory = Path(os.path.abspath(destination))
    try:
        real = directory.resolve()
        if Path(source).resolve() in (real, *real.parents):
            raise InputError(f"{destination}: lies in {source}; choose a folder outside of it")
        if _holds_others(directory):
            raise InputError(
                f"{destination}: exists already and holds no shards; nothing is overwritten: "
                "choose a new folder"
            )
        if not (directory / DESCRIPTION).is_file():  # complete shards are not written again
            _try_to_make(directory / UNFINISHED)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        why = (error.strerror if isinstance(error, OSError) else "") or str(error)
        raise InputError(
            f"{destination}: no shards can be written there ({why}); choose another folder"
        ) from error


def _holds_others(directory: Path) -> bool:
    if not directory.is_dir():
        return os.path.lexists(directory)
    if (directory / DESCRIPTION).is_file() or plan_path(directory).is_file():
        return False
    return bool({entry.name for entry in directory.iterdir()} - {UNFINISHED})


def _try_to_make(folder: Path) -> None:
    """Make a folder, with those above it that are missing, a file in it, and remove them again.

    Nothing less tells: permissions do not say whether a file system is read-only, or is /proc.
    Raises OSError.
    """
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{nearest} is no folder")
    made: list[Path] = []
    try:
        for name in folder.relative_to(nearest).parts:
            path = (made or [nearest])[-1] / name
            path.mkdir()
            made.append(path)
        with TemporaryFile(dir=folder):
            pass
    finally:
        for path in reversed(made):
            with suppress(OSError):  # another process has put something there
                path.rmdir()
