"""Shards copied to a disk of the node itself before training reads them (`data.stage_to`).

All ranks of a node, of all jobs there, ask for the same copy. A lock lets one process work at a
time: the first copies, the others wait and then find the files whole. The kernel takes the lock
from a process that dies; the next one goes on with the file at which it stopped.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from res2net.data.sources.scan import counted
from res2net.data.sources.shards import ShardSource
from res2net.errors import InputError, WorkError
from res2net.files.runs import say

PATIENCE = 600.0
"""Seconds without a sign of life after which the process that copies counts as stuck."""
TELL_EVERY = 30.0
"""Seconds between two lines that say how far it is."""

_CHUNK = 1 << 24
_POLL = 0.2
_LOCK = ".lock"


@dataclass(frozen=True)
class Original:
    """A file to be copied, as it is where the data set lies."""

    path: Path
    size: int
    time: int
    """Of its last change, in whole seconds: not every file system keeps parts of them."""

    @classmethod
    def at(cls, path: str) -> Original:
        """Raises InputError."""
        try:
            status = os.stat(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        return cls(Path(path), status.st_size, int(status.st_mtime))

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def half(self) -> str:
        """What the copy is called until it is whole."""
        return f".{self.name}.part"

    def is_whole(self, folder: Path) -> bool:
        """Whether the copy is there, all of it."""
        try:
            status = os.stat(folder / self.name)
        except OSError:
            return False
        return (status.st_size, int(status.st_mtime)) == (self.size, self.time)

    def copy(self, folder: Path, came: Callable[[int], None]) -> None:
        """Tell `came` the bytes of each piece. Raises OSError."""
        half = folder / self.half
        with open(self.path, "rb", buffering=0) as source, open(half, "wb") as copy:
            while chunk := source.read(_CHUNK):
                copy.write(chunk)
                came(len(chunk))
        os.utime(half, (self.time, self.time))
        if (size := _size(half)) != self.size:
            raise OSError(0, f"{size:,} bytes came, not {self.size:,}: it was changed meanwhile")
        os.replace(half, folder / self.name)


@dataclass(frozen=True)
class Staging:
    """Copies to be made, before anything reads them."""

    folder: Path
    files: tuple[Original, ...]
    """No two of the same name."""

    def copy(self) -> None:
        """Copy what is not there yet, or wait until another process of this node has done so.

        A copy is whole when it has its name: with the original's size and time of change. So it
        serves again when the job comes back to this node.

        Raises:
            InputError: the folder cannot be written, or has too little space.
            WorkError: copying failed on the way, or the process that copies is stuck.
        """
        if not self._lacking():
            return
        try:
            # closed to others: the data may be, and a copy there must be this user's own
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = open(self.folder / _LOCK, "a+b")  # noqa: SIM115
        except OSError as error:
            raise InputError(
                f"data.stage_to: {self.folder} on {socket.gethostname()} cannot be written "
                f"({error.strerror}); choose another folder, or leave it empty"
            ) from error
        with lock, _held(lock.fileno(), self.folder, self._progress):
            self._copy_lacking(lock.fileno())

    def _lacking(self) -> list[Original]:
        return [file for file in self.files if not file.is_whole(self.folder)]

    def _progress(self) -> str:
        copies = (self.folder / name for f in self.files for name in (f.name, f.half))
        total = sum(file.size for file in self.files)
        return f"{sum(map(_size, copies)) / 1e9:.3g} of {total / 1e9:.3g} GB are there"

    def _copy_lacking(self, lock: int) -> None:
        lacking = self._lacking()
        if not lacking:
            return
        total = sum(file.size for file in lacking)
        host = socket.gethostname()
        # what a killed process left half is written over
        halves = sum(_size(self.folder / file.half) for file in lacking)
        free = shutil.disk_usage(self.folder).free + halves
        if free < total:
            raise InputError(
                f"data.stage_to: {self.folder} on {host} has {free:,} bytes free and the data take "
                f"{total:,}; choose another folder, or leave it empty to read them where they lie"
            )
        start = time.monotonic()
        done, told = 0, start
        # whichever rank of a node comes first copies, and tells
        what = f"{counted(len(lacking), 'shard')}, {total / 1e9:.3g} GB"
        say(f"copying {what}, to {self.folder}", every_rank=True)

        def came(count: int) -> None:
            nonlocal done, told
            done += count
            os.utime(lock)  # the sign of life for those who wait
            if (now := time.monotonic()) - told >= TELL_EVERY:
                told, speed = now, done / (now - start)
                say(
                    f"copied {done / 1e9:.3g} of {total / 1e9:.3g} GB, {speed / 1e6:.0f} MB/s, "
                    f"{(total - done) / speed:.0f} s to go",
                    every_rank=True,
                )

        for file in lacking:
            try:
                file.copy(self.folder, came)
            except OSError as error:
                raise WorkError(
                    f"copying {file.path} to {self.folder} on {host} failed ({error.strerror}); "
                    "whole copies there are kept: mend that and start again, or leave "
                    "data.stage_to empty"
                ) from error
        seconds = time.monotonic() - start
        say(f"copied {total / 1e9:.3g} GB in {seconds:.0f} s", every_rank=True)


def plan_staging(stage_to: str, *sources: ShardSource) -> tuple[Staging, tuple[ShardSource, ...]]:
    """What to copy below `stage_to`, and the sources that read it there; copies nothing yet.

    `~` and variables such as $TMPDIR are filled in here, as they are on this node. Below
    `stage_to` the copies lie in a folder of this user's and data set's own. The images, their order
    and their names are those of `sources`.

    Raises:
        InputError: a variable that is not set here.
    """
    place = os.path.expanduser(os.path.expandvars(stage_to))
    if "$" in place:
        raise InputError(
            f"data.stage_to={stage_to}: {socket.gethostname()} has no such environment variable"
        )
    # one copy by whatever way the folder is named; the files keep the names they have there
    paths = sorted(
        {
            os.path.join(os.path.realpath(os.path.dirname(file)), os.path.basename(file))
            for source in sources
            for file in source.files
        }
    )
    files = tuple(map(Original.at, paths))
    # shards that were written anew have another folder: jobs may still read the former ones
    owner = os.getuid() if sys.platform != "win32" else 0
    key = hashlib.sha256(repr((owner, files)).encode("utf-8", "surrogateescape")).hexdigest()
    folder = Path(os.path.abspath(place), f"res2net-{key[:12]}")
    return Staging(folder, files), tuple(source.moved(str(folder)) for source in sources)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextmanager
def _held(lock: int, folder: Path, progress: Callable[[], str]) -> Iterator[None]:
    """Wait for the lock for as long as its holder gives signs of life. Raises WorkError."""
    import fcntl

    seen, since, told = -1, 0.0, -TELL_EVERY
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            # by the change, not by the clock's time: the file may be an old one
            if (sign := os.fstat(lock).st_mtime_ns) != seen:
                seen, since = sign, time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                raise WorkError(
                    f"the process that copies the data to {folder} on {socket.gethostname()} has "
                    f"given no sign of life for {PATIENCE:.0f} s; look at the disks, or leave "
                    "data.stage_to empty"
                ) from None
        if (now := time.monotonic()) - told >= TELL_EVERY:
            told = now
            say(f"waiting for the process that copies the data to {folder}: {progress()}")
        time.sleep(_POLL)
    yield  # closing the file gives the lock back
