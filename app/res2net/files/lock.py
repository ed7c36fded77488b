"""The lock of a run directory: one process writes to it, on whichever machine.

The lock file holds one line that names its holder (`holder.py`), and its holder gives a sign of
life by its time of change. Neither `flock` nor O_EXCL can be trusted on every network file system;
a hard link to a name that must not exist can. Claims are a chain of such links:

    lock               the first claim, with token A
    .lock.after-A      the claim of the one who found A dead, with token B
    .lock.after-B      ...

The last claim of the chain holds the lock. Of all who find A dead only one can make `after-A`, and
A's token never comes again, so nobody ever has to remove or replace what another may be looking
at: the race that taking over by rename has. The new holder then makes its claim the first of the
chain and removes the rest. Who followed a claim that had left the chain meanwhile sees that its own
claim is not on the chain, and begins anew.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from res2net.errors import InputError
from res2net.files.foreign import opened
from res2net.files.holder import Holder, from_json, is_dead, this_process
from res2net.files.place import Place

REFRESH = 20.0
"""Seconds between two signs of life."""

LOOK = 5.0
"""Seconds between two looks at whether the directory is still the same."""

_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)
_MOST_BYTES = 10_000


def living_holder(path: Path) -> Holder | None:
    """Who holds the lock `path`; None if nobody does, or its holder is certainly dead.

    Raises OSError if the lock is there and cannot be read.
    """
    while claim := _last_claim(path):
        if not _is_dead(claim, path):
            return claim.holder
        again = _last_claim(path)
        if again and again.holder.token == claim.holder.token:
            return None
    return None


def last_holder(path: Path) -> Holder | None:
    """Who held the lock `path` last, dead or alive. Raises OSError as `living_holder`."""
    claim = _last_claim(path)
    return claim.holder if claim else None


def taken(path: Path, holder: Holder) -> InputError:
    """What to say to others while `holder` lives."""
    return InputError(
        f"the run {path.parent} is being trained by {holder}: wait for it or end it, or choose "
        f"another run.name; if it is certainly gone, delete {path}"
    )


class Lock:
    """The claim of this process on a run directory.

    A thread gives the signs of life while it is held, and looks whether it still is. While it is,
    its directory is held, too (`place`).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost = False
        """Whether somebody else took it or removed it while it was held: a machine that stood still
        for minutes finds that others went on."""
        self._mine: Holder | None = None
        self._place: Place | None = None
        self._released = threading.Event()

    @property
    def held(self) -> bool:
        """Whether this process holds it, as far as known; a forked child never does."""
        return self._mine is not None and self._mine.pid == os.getpid() and not self.lost

    def acquire(self) -> Holder | None:
        """Take the lock; returns the dead holder that was replaced, None if there was none.

        Raises:
            InputError: a living process holds it, or one of which that cannot be told.
            OSError: the directory cannot be written, the disk is full.
        """
        mine = this_process()
        replaced = self._claim(mine)
        self._mine, self.lost, self._released = mine, False, threading.Event()
        self._place = Place(self.path.parent, self._is_mine)
        threading.Thread(
            target=self._refresh, args=(mine, self._released), name="lock", daemon=True
        ).start()
        return replaced

    def release(self) -> None:
        """Give it up, if it is still ours. What goes wrong is no matter: its holder soon is dead.

        May be called twice, and without having acquired it.
        """
        place, self._place = self._place, None
        if self._mine is None or self._mine.pid != os.getpid():
            return
        mine, self._mine = self._mine, None
        self._released.set()
        with suppress(OSError):
            if place is not None and place.is_gone():
                _remove_from(place, self.path.name, mine)
            elif (claim := _last_claim(self.path)) and claim.holder == mine:
                self.path.unlink(missing_ok=True)
        if place is not None:
            place.let_go()

    def is_lost(self) -> bool:
        """As `lost`, but looked at now."""
        if self._place is not None and self._place.is_gone():
            self.lost = True
        return self.lost

    def loss(self) -> str:
        """Why it is lost, in words: what was kept, and where to look."""
        run = self.path.parent
        if self._place is None or not self._place.is_gone():
            return f"the run {run} was taken over by another process, or its lock was deleted"
        what = f"the run directory {run} was moved, deleted or replaced while it trained"
        now = self._place.now()
        if now is None:
            return (
                f"{what}, and is nowhere on its disk any more: nothing is written again; if it was "
                "moved to another disk, what was saved by then is there"
            )
        return (
            f"{what}, and is {now} now: what was saved is there, nothing was written since; "
            f"go on by run.dir={now.parent} run.name={now.name} run.resume=auto"
        )

    def _claim(self, mine: Holder) -> Holder | None:
        temporary = _temporary(self.path)
        tries = 0
        while True:
            claim = _last_claim(self.path)
            if claim and not _is_dead(claim, self.path):
                raise taken(self.path, claim.holder)
            name = _after(self.path, claim.holder) if claim else self.path
            try:
                _write(temporary, mine)
                if _create(name, temporary, mine):
                    if self._is_last(mine, name):
                        break
                    name.unlink(missing_ok=True)  # it followed one that had left the chain
            except FileNotFoundError:
                if not self.path.parent.is_dir():
                    raise
                # the one who holds it by now clears temporary files: look again
            finally:
                temporary.unlink(missing_ok=True)
            # what this machine remembers of a network directory may be old for a while
            tries += 1
            time.sleep(min(0.001 * 2**tries, 1.0))
        with suppress(OSError):  # a matter of tidiness: the chain is as good
            _tidy(self.path, mine)
        return claim.holder if claim else None

    def _is_last(self, mine: Holder, name: Path) -> bool:
        try:
            last = _last_claim(self.path)
        except BaseException:
            name.unlink(missing_ok=True)
            raise
        return last is not None and last.holder == mine

    def _is_mine(self) -> bool:
        """Raises OSError as `last_holder`."""
        claim = _last_claim(self.path)
        return claim is not None and claim.holder == self._mine

    def _refresh(self, mine: Holder, released: threading.Event) -> None:
        signed = time.monotonic()
        while not released.wait(min(LOOK, REFRESH)):
            if self.is_lost():
                return
            if time.monotonic() - signed < REFRESH:
                continue
            signed = time.monotonic()
            with suppress(OSError):  # the network may be away for a while
                claim = _last_claim(self.path)
                if released.is_set():
                    return
                if claim is None or claim.holder != mine:
                    self.lost = True
                    return
                os.utime(claim.path)


def _remove_from(place: Place, name: str, mine: Holder) -> None:
    """The lock from a directory that is called otherwise now: whoever goes on there need not wait
    for this process to count as dead. Raises OSError."""
    descriptor = os.open(name, os.O_RDONLY, dir_fd=place.descriptor)
    with open(descriptor, "rb") as file:
        holder = from_json(file.read(_MOST_BYTES))
    if holder == mine:
        os.unlink(name, dir_fd=place.descriptor)


@dataclass(frozen=True)
class _Claim:
    """One file of the chain."""

    path: Path
    holder: Holder
    changed: float
    """Its time of change, by the clock of the file system."""


def _last_claim(path: Path) -> _Claim | None:
    claim = _read(path)
    seen = set()
    while claim and (following := _read(_after(path, claim.holder))):
        seen.add(claim.holder.token)
        if following.holder.token in seen:  # no lock makes a circle; a file may have been put there
            break
        claim = following
    return claim


def _read(path: Path) -> _Claim | None:
    """None if there is no such file. A file that is cut off is a claim of an unknown holder."""
    for left in (2, 1, 0):
        try:
            with opened(path) as file:
                text, status = file.read(_MOST_BYTES) or b"", os.fstat(file.fileno())
            break
        except InputError:  # a pipe, a device or a directory of this name
            text, status = b"", path.stat()
            break
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:  # a link to itself
                text, status = b"", path.lstat()
                break
            # another machine replaced it between opening and reading
            if error.errno != errno.ESTALE or not left:
                raise
    holder = from_json(text)
    if holder is None:
        # its place in the chain needs a token, the same for all who look
        token = f"unreadable-{status.st_ino}-{status.st_mtime_ns}"
        holder = Holder(host="", pid=0, token=token)
    return _Claim(path, holder, status.st_mtime)


def _is_dead(claim: _Claim, path: Path) -> bool:
    return is_dead(claim.holder, silent=lambda: _now(path) - claim.changed)


def _now(path: Path) -> float:
    """By the clock of the file system of `path`: machines may differ by more than minutes.

    By that of this machine where no file can be made.
    """
    temporary = _temporary(path)
    try:
        with temporary.open("xb"):
            pass
        os.utime(temporary)  # without a time: the file server's
        return temporary.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _after(path: Path, holder: Holder) -> Path:
    return path.with_name(f".{path.name}.after-{holder.token}")


def _temporary(path: Path) -> Path:
    """A new name, of the kind that `atomic.remove_stale_temporaries` clears after a kill."""
    return path.with_name(f".{path.name}-{uuid4().hex}.{os.getpid()}.tmp")


def _write(path: Path, holder: Holder) -> None:
    with path.open("w") as file:
        file.write(holder.to_json())
        file.flush()
        os.fsync(file.fileno())


def _create(name: Path, temporary: Path, mine: Holder) -> bool:
    """Give the temporary file the name `name`; whether that was free."""
    try:
        os.link(temporary, name)
        return True
    except FileExistsError:
        # over the network the answer to a link that was made may be lost, and it is asked again
        there = _read(name)
        return there is not None and there.holder == mine
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    try:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    try:
        with open(descriptor, "w") as file:
            file.write(mine.to_json())
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        name.unlink(missing_ok=True)
        raise
    return True


def _tidy(path: Path, mine: Holder) -> None:
    """Make the claim that holds the lock the first of the chain, and remove all others."""
    claim = _read(path)
    if claim is None or claim.holder != mine:
        temporary = _temporary(path)
        try:
            _write(temporary, mine)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    for other in path.parent.glob(f".{path.name}.after-*"):
        if other != _after(path, mine):
            other.unlink(missing_ok=True)
