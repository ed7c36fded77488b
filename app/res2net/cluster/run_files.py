"""The plain files of a run, read while they may be written: missing, half there, replaced.

All functions raise OSError as the disk gives it, except for a file that is not there.
"""

from __future__ import annotations

import csv
import json
import pickletools
import time
import zipfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from res2net.errors import InputError
from res2net.files.runs import RunDirectory

_SPEEDS = 10
"""Rows of images per second that the time left is told from."""


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
    words = (_text(run.heartbeat) or "").split()
    try:
        return Beat(int(words[0]), int(words[1]), float(words[2]))
    except (IndexError, ValueError, OverflowError):
        return None


def read_summary(run: RunDirectory) -> dict[str, Any]:
    """Empty before there is one."""
    try:
        read = json.loads(_text(run.summary) or "{}")
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}


def read_config(run: RunDirectory) -> dict[str, Any]:
    """Group -> key -> value; empty before it is written. Raises InputError if it is no YAML."""
    import yaml

    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        tree = yaml.load(_text(run.config) or "{}", Loader=loader)
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{run.path}: config.yaml cannot be read: {reason}") from error
    return tree if isinstance(tree, dict) else {}


def read_metrics(run: RunDirectory) -> tuple[list[float], float | None]:
    """The last images per second, and the last `val/top1`."""
    text = _text(run.metrics) or ""
    speeds: deque[float] = deque(maxlen=_SPEEDS)
    top1 = None
    # the last row may be half written; a kill or a full disk may have torn others
    for row in csv.reader(text[: text.rfind("\n") + 1].replace("\0", "").splitlines()):
        try:
            _, _, split, key, value = row
            if (split, key) == ("train", "images_per_second"):
                speeds.append(float(value))
            elif (split, key) == ("val", "top1"):
                top1 = float(value)
        except ValueError:
            continue
    return [speed for speed in speeds if 0 < speed < float("inf")], top1


def newest_checkpoint(run: RunDirectory) -> Checkpoint | None:
    """By its name: whether it is whole is not looked at, which takes as long as reading it."""
    for path in (run.last, run.previous):
        try:
            found = path.stat()
        except FileNotFoundError:
            continue
        age = round(max(time.time() - found.st_mtime, 0.0), 1)
        return Checkpoint(path.name, _global_step(path), found.st_size, age)
    return None


def _global_step(path: Path) -> int | None:
    """Of a checkpoint, read off its pickle without making anything of it: it comes first there."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
            with archive.open(name) as stream:
                key = False
                for code, argument, _ in pickletools.genops(stream):
                    if key and isinstance(argument, int) and "PUT" not in code.name:
                        return argument
                    key = key or argument == "global_step"
    except Exception:  # zipfile and pickletools meet what is damaged or half there with anything
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
        if file.exists() and not zipfile.is_zipfile(file)
    ]
    if names := _text(run.nonfinite):
        count = len(names.splitlines())
        lines.append(f"{run.nonfinite.name}: {count} images of a batch whose loss was not finite")
    if names := _text(run.quarantine):
        count = len(names.splitlines())
        lines.append(f"{run.quarantine.name}: {count} images could not be decoded: left out")
    return lines


def _text(path: Path) -> str | None:
    """None if there is no such file."""
    try:
        return path.read_text("utf-8", "surrogateescape")
    except FileNotFoundError:
        return None
