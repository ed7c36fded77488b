"""The plain files of a run, read while they may be written: missing, half there, replaced.

They may also be somebody else's, who wrote into them what he liked. All functions raise OSError as
the disk gives it, except for a file that is not there.
"""

from __future__ import annotations

import math
import pickletools
import stat
import struct
import time
import zipfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from res2net.errors import InputError
from res2net.files.foreign import count_lines, last_lines, opened, read_text
from res2net.files.runs import RunDirectory

_SPEEDS = 10
"""Rows of images per second that the time left is told from."""
_LONGEST_BEAT = 200
"""Bytes; it has 39."""
_MOST_STEPS = 2**53
_LAST_TIME = 2.0**33
"""Unix time of the year 2242."""
_START = 2**16
"""Bytes of a checkpoint in which its step is found."""
_ZIP_ENTRY = struct.Struct("<4s5H3I2H")
"""The header of a file in a zip archive (PKWARE's APPNOTE, 4.3.7)."""


@dataclass(frozen=True)
class Checkpoint:
    """The newest file that a run goes on from."""

    name: str
    step: int | None
    """Of the state in it; None if the file does not tell."""
    bytes: int
    age_seconds: float


@dataclass(frozen=True)
class Beat:
    """The last step: how many were executed, which of the run it was, and when (Unix time)."""

    executed: int
    step: int
    time: float


def read_heartbeat(run: RunDirectory) -> Beat | None:
    """None before the first step."""
    try:
        words = read_text(run.heartbeat, most=_LONGEST_BEAT).split()
        beat = Beat(int(words[0]), int(words[1]), float(words[2]))
    except (FileNotFoundError, IndexError, ValueError):
        return None
    counts = min(beat.executed, beat.step) >= 0 and max(beat.executed, beat.step) < _MOST_STEPS
    return beat if counts and 0 <= beat.time < _LAST_TIME else None


def read_summary(run: RunDirectory) -> dict[str, Any]:
    """Empty before there is one, and where it is damaged."""
    try:
        return run.read_summary()
    except InputError:
        return {}


def read_config(run: RunDirectory) -> dict[str, Any]:
    """Group -> key -> value; empty before it is written. Raises InputError if it is damaged."""
    try:
        return run.read_config()
    except FileNotFoundError:
        return {}
    except InputError as error:
        raise InputError(f"{run.path}: config.yaml cannot be read: {error}") from error


def read_metrics(run: RunDirectory) -> tuple[list[float], float | None]:
    """The last images per second, and the last `val/top1` among the last rows."""
    speeds: deque[float] = deque(maxlen=_SPEEDS)
    top1 = None
    try:
        rows = last_lines(run.metrics)
    except (FileNotFoundError, InputError):
        rows = []
    for row in rows:
        try:  # a kill or a full disk may have torn rows
            _, _, split, key, text = row.split(",")
            value = float(text)
        except ValueError:
            continue
        if (split, key) == ("train", "images_per_second") and 1e-9 < value < 1e15:
            speeds.append(value)
        elif (split, key) == ("val", "top1"):
            top1 = value if math.isfinite(value) else None
    return list(speeds), top1


def newest_checkpoint(run: RunDirectory) -> Checkpoint | None:
    """By its name: whether it is whole is not looked at, which takes as long as reading it."""
    for path in (run.last, run.previous):
        try:
            found = path.stat()
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
            continue
        age = round(max(time.time() - found.st_mtime, 0.0), 1)
        return Checkpoint(path.name, _global_step(path), found.st_size, age)
    return None


def _global_step(path: Path) -> int | None:
    """Of a checkpoint, read off its pickle without making anything of it: it comes first there."""
    if not zipfile.is_zipfile(path):  # cut off
        return None
    try:
        with opened(path) as file:
            start = file.read(_START) or b""
        # torch.save writes the pickle first, and as it is
        signature, _, _, compression, _, _, _, _, _, name, extra = _ZIP_ENTRY.unpack_from(start)
        place = _ZIP_ENTRY.size + name
        if signature != b"PK\3\4" or compression or not start[:place].endswith(b"/data.pkl"):
            return None
        key = False
        for code, argument, _ in pickletools.genops(start[place + extra :]):
            if key and isinstance(argument, int) and "PUT" not in code.name:
                return argument if 0 <= argument < _MOST_STEPS else None
            key = key or argument == "global_step"
    except Exception:  # pickletools meets what is damaged or half there with anything
        return None
    return None


def remarks(run: RunDirectory) -> list[str]:
    """Of files that tell of trouble, a line a file."""
    lines = [
        f"{file.name}: it stalled; where its threads stood is in there"
        for file in run.stalled_files()
    ]
    lines += [
        f"{file.name}: is damaged"
        for file in (run.last, run.previous, run.best)
        if file.exists() and not (file.is_file() and zipfile.is_zipfile(file))
    ]
    for path, what in (
        (run.nonfinite, "images of a batch whose loss was not finite"),
        (run.quarantine, "images could not be decoded: left out"),
    ):
        try:
            count = count_lines(path)
        except FileNotFoundError:
            continue
        except InputError:
            lines.append(f"{path.name}: is damaged")
        else:
            lines += [f"{path.name}: {count} {what}"] if count else []
    return lines
