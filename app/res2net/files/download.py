"""Fetch a published file: with a progress bar, resumed where it broke off, never without its hash.

Bytes are gathered in `<name>.part` beside the destination; the destination exists only once the
hash of the whole file is right. Processes that want the same file wait for the first one.
"""

from __future__ import annotations

import hashlib
import os
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.error import HTTPError, URLError

from res2net.errors import InputError, WorkError
from res2net.files.atomic import StrPath, sync_directory
from res2net.files.runs import say

if TYPE_CHECKING:
    from rich.progress import Progress

Algorithm = Literal["md5", "sha256"]

TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as lost."""

_CHUNK = 1 << 16
_SHORTEST_DIGEST = 8  # torch hub's file names carry eight hex digits


class DownloadError(WorkError):
    """The network failed.

    Attributes:
        reason: What happened, without what was kept and what to do next.
    """

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(f"{reason}; {advice}")
        self.reason = reason


def download(
    url: str,
    destination: StrPath,
    *,
    digest: str | None,
    algorithm: Algorithm = "sha256",
    progress: bool = True,
) -> Path:
    """Return `destination`, fetched from `url` unless it is there, its hash checked either way.

    `digest` is hexadecimal, the whole hash or its first eight digits or more; None where the
    publisher states none and nothing can be checked. The progress bar shows on stderr where that is
    a terminal.

    Raises DownloadError when the network fails (what came so far is kept and the next call goes on
    from there) or the fetched file has the wrong hash (nothing is kept), and InputError when a
    file that was there before has the wrong hash.
    """
    target = Path(destination)
    part = target.with_name(target.name + ".part")
    try:
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            with _only_writer(part, announce=progress):
                if not target.exists():  # another process may have fetched it meanwhile
                    _fetch(url, part, target.name, progress)
                    _place(url, part, target, digest, algorithm)
                    return target
    except (OSError, HTTPException) as error:
        raise DownloadError(f"{url}: {_reason(error)}", _advice(part, target)) from error
    if digest is not None and not verify(target, digest, algorithm):
        raise InputError(
            f"{target}: its {algorithm} is {file_hash(target, algorithm)}, expected {digest}; "
            f"remove it to have it fetched from {url}"
        )
    return target


def verify(path: StrPath, digest: str, algorithm: Algorithm) -> bool:
    """Whether the file's hash begins with `digest` (hexadecimal, at least eight digits)."""
    if len(digest) < _SHORTEST_DIGEST:
        raise ValueError(f"digest {digest!r} is shorter than {_SHORTEST_DIGEST} hex digits")
    return file_hash(path, algorithm).startswith(digest.lower())


def file_hash(path: StrPath, algorithm: Algorithm) -> str:
    """The whole hash of a file, hexadecimal."""
    with open(path, "rb") as stream:
        # "Not for security" lets machines in FIPS mode compute an MD5.
        return hashlib.file_digest(
            stream, lambda: hashlib.new(algorithm, usedforsecurity=False)
        ).hexdigest()


@contextmanager
def _only_writer(part: Path, *, announce: bool) -> Iterator[None]:
    """Hold `part` alone: the jobs of an array start together and want the same data set."""
    if sys.platform == "win32":
        part.touch()
        yield
        return
    import fcntl

    while True:
        with open(part, "ab") as held:
            with suppress(OSError):  # a file system without locks: go on, the hash guards
                try:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if announce:
                        say(f"waiting for the process that fetches {part}", every_rank=True)
                    fcntl.flock(held, fcntl.LOCK_EX)
            # The process before us may have renamed or removed what we opened.
            if _is_at(part, held.fileno()):
                try:
                    yield
                finally:
                    if part.exists() and part.stat().st_size == 0:
                        part.unlink()
                return


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is the one that has this name now."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _fetch(url: str, part: Path, name: str, progress: bool) -> None:
    """Add to `part` what it lacks, or write it anew where the server does not resume."""
    have = part.stat().st_size
    headers = {"Range": f"bytes={have}-"} if have else {}
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=TIMEOUT
        )
    except HTTPError as error:
        if error.code == 416 and have:  # nothing lies beyond what we have: the hash decides
            error.close()
            return
        raise
    with response:
        resumed = response.status == 206
        start = have if resumed else 0
        stated = response.headers["Content-Length"]
        total = None if stated is None else start + int(stated)
        received = start
        with open(part, "ab" if resumed else "wb") as stream, _progress_bar(progress) as bar:
            task = bar.add_task(name, completed=start, total=total)
            while chunk := response.read(_CHUNK):
                stream.write(chunk)
                received += len(chunk)
                bar.update(task, completed=received)
            stream.flush()
            os.fsync(stream.fileno())
    if total is not None and received < total:
        raise ConnectionError(f"the connection closed after {received:,} of {total:,} bytes")


def _progress_bar(shown: bool) -> Progress:
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not (shown and sys.stderr.isatty()),
    )


def _place(url: str, part: Path, target: Path, digest: str | None, algorithm: Algorithm) -> None:
    if digest is not None and not verify(part, digest, algorithm):
        found = file_hash(part, algorithm)
        part.unlink()
        raise DownloadError(
            f"{url}: the {algorithm} of what came is {found}, expected {digest}",
            _advice(part, target),
        )
    os.replace(part, target)
    sync_directory(target.parent)


def _advice(part: Path, target: Path) -> str:
    kept = part.stat().st_size if part.is_file() else 0
    if kept:
        state = f"{kept:,} bytes are kept in {part}; try again to go on from there"
    else:
        state = "nothing was kept; try again"
    return f"{state}, or put the file at {target}"


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        return f"the server answers {error.code} {error.reason}"
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {TIMEOUT:g} seconds"
    return " ".join(str(cause).split()) or type(cause).__name__
