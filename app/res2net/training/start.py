"""Where a run begins: anew, from a checkpoint, or not at all because it has ended.

Every rank asks for itself and finds the same, because nothing changes the files until all ranks
train; only rank 0 creates anything.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from res2net.config.load import differences, to_yaml
from res2net.config.schema import Config
from res2net.errors import DamagedFileError, InputError
from res2net.files.atomic import (
    atomic_write_json,
    atomic_write_text,
    new_folder,
    remove_stale_temporaries,
)
from res2net.files.foreign import count_lines
from res2net.files.lock import Lock, living_holder, taken
from res2net.files.runs import RunDirectory, is_sound
from res2net.weights.torch_file import read_torch

MAY_CHANGE = ("trainer.devices", "trainer.num_nodes", "trainer.accumulate", "trainer.max_epochs",
              "trainer.stall_minutes", "data.workers", "data.stage_to", "data.on_corrupt",
              "data.max_pixels")  # fmt: skip
MAY_CHANGE_GROUPS = ("run.name", "run.dir", "run.resume", "logging.", "checkpoint.")


_SHOWN = 200
"""Characters of a value that a message shows."""


Seen = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True)
class Start:
    """The decision: a checkpoint to go on from, or None; and lines to say."""

    checkpoint: Path | None = None
    complete: bool = False
    messages: tuple[str, ...] = ()
    seen: Seen = field(default=(), compare=False)
    """The files of the run by which it was decided."""


def find_start(config: Config, run: RunDirectory) -> Start:
    """Decide by `run.resume` and what lies in the run directory.

    1. No directory, an empty one, or one in which nothing was trained yet: a new run (from the
       checkpoint that `run.resume` names).
    2. A run, and `run.resume` empty: refused; nothing is ever overwritten.
    3. A run that has ended: complete, unless `trainer.max_epochs` was raised.
    4. A run, and `auto`: from its newest whole checkpoint; anew if it was killed before the first.
    5. A run, and a path: from that checkpoint, which must be one of this run's.

    Raises:
        InputError: refused, another process trains this run, or the configuration differs in what a
            resumed run must keep.
    """
    if run.path.is_dir() and (holder := living_holder(run.lock)):
        raise taken(run.lock, holder)
    seen = _files(run)
    return replace(_find_start(config, run), seen=seen)


def _find_start(config: Config, run: RunDirectory) -> Start:
    resume = config.run.resume
    path = Path(resume) if resume not in ("", "auto") else None
    if path is not None and not is_sound(path):
        why = "is damaged or no checkpoint" if path.is_file() else "no such file"
        raise InputError(f"run.resume={resume}: {why}; give a checkpoint or auto")
    _check_writable(run.path)
    if not run.path.exists() or (run.path.is_dir() and not _holds_work(run)):
        if path is None:
            return Start()
        return Start(path, messages=_announce(config, _stored_config(path), str(path)))
    if not run.is_run():
        raise InputError(f"{run.path} exists and is not a run: choose another run.name or run.dir")
    if not resume:
        raise InputError(
            f"the run {run.path} exists: run.resume=auto goes on with it, run.name=NAME starts "
            "another"
        )
    stored = _read_config(run)
    messages = _announce(config, stored, str(run.config))
    summary, warning = _read_summary(run)
    messages = (*messages, *filter(None, [warning]))
    if path is not None:
        if path.resolve().parent != run.path.resolve():
            raise InputError(
                f"run.resume={resume}: the run {run.path} exists and this is none of its "
                "checkpoints: run.name=NAME starts another run from it"
            )
        return Start(path, messages=messages)
    if (
        summary.get("status") == "completed"
        and config.trainer.max_epochs <= stored["trainer"]["max_epochs"]
        # its end can be had again from the state before
        and (is_sound(run.last) or not is_sound(run.previous))
    ):
        asked, epochs = config.trainer.max_epochs, stored["trainer"]["max_epochs"]
        fewer = (
            f"trainer.max_epochs={asked}: the run has been trained for {epochs}, which is not "
            f"taken back; run.name=NAME trains another for {asked}"
        )
        return Start(complete=True, messages=(fewer,) if asked < epochs else ())
    checkpoint, warning = run.newest_checkpoint()
    if checkpoint is None and "val/top1" in summary:
        raise InputError(
            f"the run {run.path} has trained, but its checkpoints are gone: bring one back, or "
            "start anew with another run.name"
        )
    return Start(checkpoint, messages=(*messages, *filter(None, [warning])))


def claim(config: Config, run: RunDirectory, start: Start, lock: Lock) -> None:
    """Make the directory, lock it and clear what a killed leg left in it; on rank 0 alone.

    Raises:
        InputError: nothing can be made there, or another process has been quicker.
    """
    try:
        with new_folder(run.path):
            lock.acquire()
            try:
                _begin(config, run, start)
            except BaseException:
                lock.release()
                raise
    except OSError as error:
        raise InputError(
            f"cannot write to {run.path} ({error.strerror}): make room or access, or choose "
            "another run.dir"
        ) from error


def remove_dead_lock(run: RunDirectory) -> None:
    """Remove what a leg that was killed after its last word left of its lock."""
    if run.lock.exists():
        lock = Lock(run.lock)
        with suppress(OSError, InputError):  # one that cannot be removed harms nobody
            lock.acquire()
            lock.release()


def _begin(config: Config, run: RunDirectory, start: Start) -> None:
    if _files(run) != start.seen:
        raise InputError(
            f"the run {run.path} was changed by another process since this one looked: "
            "start it once more"
        )
    summary, damaged = _read_summary(run)
    if damaged:
        run.summary.unlink()
    elif summary:
        # before the configuration: killed in between, more epochs must not look completed
        atomic_write_json(run.summary, summary | {"status": "running"})
    run.next.unlink(missing_ok=True)
    remove_stale_temporaries(run.path)
    if run.plots.is_dir():
        remove_stale_temporaries(run.plots)
    atomic_write_text(run.config, to_yaml(config))


def _read_config(run: RunDirectory) -> dict[str, dict[str, Any]]:
    """Raises InputError if it is damaged; one that was cut off lacks the last group.

    Also where the run would write into what is no file of its own.
    """
    run.refuse_links()
    try:
        stored = run.read_config()
        epochs = stored["trainer"]["max_epochs"]
        if type(epochs) is int and "logging" in stored:
            return stored
    except (InputError, LookupError):
        pass
    raise InputError(
        f"{run.config} is damaged: restore it, or go on under another name, as checkpoints have "
        f"it, too: run.name=NAME run.resume={run.last}"
    )


def _read_summary(run: RunDirectory) -> tuple[dict[str, Any], str]:
    """It, and a line to say if it is damaged: what it counts is not worth a run."""
    try:
        return run.read_summary(), ""
    except InputError:
        return {}, f"{run.summary} is damaged: restarts and time are counted anew"


def _files(run: RunDirectory) -> Seen:
    """Which files these are, not only what they are called."""
    seen: list[tuple[int, int, int] | None] = []
    for path in (run.config, run.last, run.previous):
        try:
            stat = path.stat()
            seen.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
        except OSError:
            seen.append(None)
    return tuple(seen)


def _holds_work(run: RunDirectory) -> bool:
    """Anything but what a leg leaves that has ended before its first step."""
    begun = (run.lock, run.config, run.summary, run.metrics, run.heartbeat, run.wandb_id)
    known = {*(file.name for file in begun), "wandb", "tensorboard"}
    names = {entry.name for entry in run.path.iterdir() if not entry.name.startswith(".")}
    if not names <= known:
        return True
    summary, damaged = _read_summary(run)
    if damaged or summary.get("steps_executed", 0):
        return True
    # a step is told by its heartbeat, then by rows below the heading
    return any(
        file.name in names and _has_more(file, lines)
        for file, lines in ((run.heartbeat, 0), (run.metrics, 1))
    )


def _has_more(file: Path, lines: int) -> bool:
    """Than so many lines; also what is no plain file, which no leg leaves."""
    try:
        return count_lines(file) > lines
    except InputError:
        return True


def _check_writable(path: Path) -> None:
    own = [path] if path.is_dir() else []
    existing = next(place for place in (*own, *path.absolute().parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(
            f"cannot write to {existing}, where the run {path} belongs: choose another run.dir"
        )


def _announce(config: Config, stored: Mapping[str, Any], where: str) -> tuple[str, ...]:
    changed = differences(stored, config)
    refused = [
        f"{key} was {_shown(old)}, now {_shown(new)}"
        for key, (old, new) in changed.items()
        if key not in MAY_CHANGE and not key.startswith(MAY_CHANGE_GROUPS)
    ]
    if refused:
        raise InputError(
            f"a resumed run keeps its configuration ({where}): {'; '.join(refused)}; "
            f"may change: {', '.join(MAY_CHANGE)}, logging.*, checkpoint.*; run.name=NAME starts "
            "another run"
        )
    return tuple(
        f"changed since the start of the run: {key} was {_shown(old)}, now {_shown(new)}"
        for key, (old, new) in changed.items()
        if not key.startswith("run.")
    )


def _shown(value: Any) -> str:
    text = "empty" if value == "" else " ".join(str(value).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _stored_config(path: Path) -> Mapping[str, Any]:
    try:
        stored = read_torch(path)
    except DamagedFileError as error:  # a zip file, but of something else
        raise InputError(
            f"run.resume={path}: is no checkpoint; give a checkpoint or auto"
        ) from error
    except InputError as error:
        raise InputError(f"run.resume={path}: {error}") from error
    if not isinstance(stored, dict) or "res2net" not in stored or "loops" not in stored:
        raise InputError(
            f"run.resume={path}: holds weights but no state of a run; model.weights={path} "
            "starts a run from them"
        )
    description = stored["res2net"]
    config = description.get("config") if isinstance(description, dict) else None
    if not isinstance(config, dict) or not all(
        isinstance(group, dict) for group in config.values()
    ):
        raise InputError(
            f"run.resume={path}: its configuration is damaged; give another checkpoint"
        )
    return config
