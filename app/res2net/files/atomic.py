"""Write a file so that at every moment either the old one or the new one is there, whole.

The new content goes to a temporary file in the same directory (a rename across file systems is a
copy), reaches the disk by fsync and takes the old name's place by `os.replace`. A kill leaves at
most a temporary file, which `remove_stale_temporaries` clears.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from res2net.errors import InputError
from res2net.files import place
from res2net.files.names import plain_json

StrPath = str | os.PathLike[str]

_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")


@contextmanager
def atomic_write(path: StrPath) -> Iterator[BinaryIO]:
    """Open a binary stream whose content becomes `path` when the block ends without an exception.

    On any exception, KeyboardInterrupt included, the temporary file is removed and the old file
    stays. A symbolic link at `path` is replaced, not followed. Raises OSError as `open` does, and
    `place.GoneError`.
    """
    target = Path(path)
    place.check(target)
    temporary = _temporary_for(target)
    try:
        with open(temporary, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(target.parent)


def atomic_write_text(path: StrPath, text: str) -> None:
    """Write `text` as UTF-8, line ends as they are."""
    with atomic_write(path) as stream:
        stream.write(text.encode("utf-8"))


def atomic_write_json(path: StrPath, value: Any) -> None:
    """Write `value` as JSON for people to read: indented, keys in their order.

    Raises ValueError for NaN and infinities, which JSON has not, TypeError for other types.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    atomic_write_text(path, plain_json(text) + "\n")


@contextmanager
def new_folder(path: Path) -> Iterator[None]:
    """Make the folder, and those above it; what is new and empty goes again if the block fails."""
    # not Path.exists, which raises for a name that is too long
    missing = [folder for folder in (path, *path.parents) if not os.path.exists(folder)]
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in missing:
            with suppress(OSError):  # something was kept in it
                folder.rmdir()
        raise


def try_folder(path: Path) -> None:
    """Try to make a file in the folder, which may be missing; nothing stays. Before long work.

    Raises:
        InputError: The folder cannot be made, or nothing in it.
    """
    try:
        with suppress(_Tried), new_folder(path):
            _try(path / "new")
            raise _Tried
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: cannot be written ({reason}); choose another folder") from error


def new_file(path: StrPath, suffixes: Collection[str]) -> Path:
    """The path, if a new file can be made there, which is tried; asked before long work.

    Raises:
        InputError: Another suffix, something stands there already, there is no such folder, or it
            takes no file of this name.
    """
    target = Path(path)
    if target.suffix not in suffixes:
        choices = ", ".join(suffixes)
        raise InputError(f"{target}: the suffix says the form of the file; choices: {choices}")
    if os.path.lexists(target):
        raise InputError(f"{target}: exists already and is never overwritten; choose another name")
    if not os.path.isdir(target.parent):
        raise InputError(f"{target}: there is no folder {str(target.parent)!r}; make it first")
    try:
        _try(target)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(f"{target}: the name is too long; choose another") from error
        folder, reason = str(target.parent), error.strerror or error
        raise InputError(f"{target}: the folder {folder!r} cannot be written ({reason})") from error
    return target


def link_or_copy(source: StrPath, destination: StrPath) -> None:
    """Give `source` a second name at once: a hard link, or a copy where links are not supported.

    The two names share their bytes, so both files may only ever be replaced, never written into.
    Raises FileNotFoundError if `source` is missing; then `destination` stays as it was.
    """
    target = Path(destination)
    place.check(target)
    temporary = _temporary_for(target)
    temporary.unlink(missing_ok=True)
    try:
        # Linux links the symbolic link itself, whatever `follow_symlinks` says: resolve it first.
        os.link(os.path.realpath(source), temporary)
        os.replace(temporary, target)
    except OSError:
        with open(source, "rb") as original, atomic_write(target) as copy:
            shutil.copyfileobj(original, copy, 1 << 20)
    finally:
        # Renaming one link of a file onto another does nothing by POSIX and leaves both names.
        temporary.unlink(missing_ok=True)
    sync_directory(target.parent)


def remove_stale_temporaries(directory: StrPath) -> None:
    """Remove what killed writers left. Only for a directory that no other process writes to now.

    Process ids are not asked: a run goes on after a kill on another machine, or in a container
    where its id is the same as before.
    """
    for entry in os.scandir(directory):
        if _TEMPORARY.fullmatch(entry.name):
            Path(entry.path).unlink(missing_ok=True)


def sync_directory(directory: StrPath) -> None:
    """Bring a directory's names to the disk: without it a power cut can undo an `os.replace`."""
    if sys.platform == "win32":  # directories cannot be opened there
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot do this and need not.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


class _Tried(Exception):
    """Takes `new_folder` back."""


def _try(target: Path) -> None:
    """Make the temporary file that `atomic_write` needs, and remove it. Raises OSError.

    Permissions do not tell: root has all of them for file systems that take no file, too.
    """
    temporary = _temporary_for(target)
    temporary.open("ab").close()
    temporary.unlink(missing_ok=True)


def _temporary_for(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}.tmp")
