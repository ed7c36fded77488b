"""How runs stand, from the plain files that they leave: asked while they are written, too.

Without torch.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

from res2net.cluster.run_files import (
    Checkpoint,
    newest_checkpoint,
    read_config,
    read_heartbeat,
    read_metrics,
    read_summary,
    remarks,
)
from res2net.errors import InputError
from res2net.files import slurm
from res2net.files.holder import Holder
from res2net.files.lock import last_holder, living_holder
from res2net.files.runs import RunDirectory

SILENT_AFTER = 600.0
"""Seconds without a step after which a run may have stalled."""

State = Literal[
    "new", "running", "silent", "waiting", "stopped", "killed", "failed", "completed"
]  # fmt: skip


@dataclass(frozen=True)
class Status:
    """One run. None stands for what is not known (yet)."""

    run: str
    state: State
    next: str
    """What to do, a sentence."""
    model: str | None
    step: int
    """Of a run that is being trained the last step, else the one that it goes on from."""
    steps: int | None
    """All of the run."""
    epochs: float | None
    """Done, with the part of the present one."""
    max_epochs: int | None
    restarts: int | None
    steps_executed: int
    """Also those that were done again after a kill, or have to be."""
    steps_lost: int
    """`steps_executed - step`."""
    images_per_second: float | None
    seconds_left: float | None
    """Of training alone, without validations."""
    top1: float | None
    """`val/top1` of the last epoch, a fraction."""
    best_top1: float | None
    best_epoch: int | None
    """Counted from 1."""
    seconds_since_step: float | None
    checkpoint: Checkpoint | None
    holder: dict[str, Any] | None
    """The process that trains it, as in the lock."""
    remarks: list[str] = field(default_factory=list)
    """Of files that tell of trouble."""


def status(path: Path) -> Status:
    """Look at the run directory `path`.

    Raises:
        InputError: it is none, or cannot be read.
    """
    run = RunDirectory(path)
    try:
        if not run.is_run() and not run.lock.is_file():  # it is locked before it has anything else
            what = "holds no config.yaml" if path.is_dir() else "is no directory"
            raise InputError(f"{path}: not a run: {what}; expected checkpoints/<run.name>")
        return _status(run)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def _status(run: RunDirectory) -> Status:
    holder = living_holder(run.lock)
    former = holder or last_holder(run.lock)
    config, summary = read_config(run), read_summary(run)
    beat, checkpoint = read_heartbeat(run), newest_checkpoint(run)
    speeds, top1 = read_metrics(run)
    now = time.time()

    # a heartbeat from before the lock was taken is of the process before
    alive = beat is not None and holder is not None and beat.time >= (holder.since or 0)
    signs = [beat.time if beat else None, holder.since if holder else None]
    silent = now - max((sign for sign in signs if sign is not None), default=now)
    completed = summary.get("status") == "completed"
    number = former.job if former and former.job else summary.get("slurm_job", "")
    job = None if holder or completed else slurm.ask(str(number))
    saved = _number(checkpoint.step) if checkpoint else 0
    state = _state(summary, holder, job, silent=silent, saved=checkpoint is not None)

    step = beat.step if beat and alive else _number(summary.get("steps")) if completed else saved
    executed = max(_number(summary.get("steps_executed")), beat.executed if beat else 0, step)
    per_epoch = _number(summary.get("steps_per_epoch"))
    max_epochs = _number(_leaf(config, "trainer", "max_epochs")) or None
    steps = per_epoch * max_epochs if per_epoch and max_epochs else None
    speed = median(speeds) if speeds else None
    batch = _number(_leaf(config, "data", "global_batch_size"))
    left = max(steps - step, 0) * batch / speed if steps and speed and not completed else None
    best = summary.get("best")
    best = best if isinstance(best, dict) else {}
    model = _leaf(config, "model", "name")
    return Status(
        run=str(run.path),
        state=state,
        next=_next(run, state, job, silent=silent, saved=checkpoint is not None),
        model=model if isinstance(model, str) else None,
        step=step,
        steps=steps,
        epochs=round(step / per_epoch, 3) if per_epoch else None,
        max_epochs=max_epochs,
        restarts=summary.get("restarts"),
        steps_executed=executed,
        steps_lost=executed - step,
        images_per_second=speed,
        seconds_left=left,
        top1=summary.get("val/top1") if top1 is None else top1,
        best_top1=best.get("val/top1"),
        best_epoch=None if best.get("epoch") is None else best["epoch"] + 1,
        seconds_since_step=round(max(now - beat.time, 0.0), 1) if beat else None,
        checkpoint=checkpoint,
        holder=asdict(holder) if holder else None,
        remarks=remarks(run),
    )


def _state(
    summary: dict[str, Any],
    holder: Holder | None,
    job: slurm.Job | None,
    *,
    silent: float,
    saved: bool,
) -> State:
    written = summary.get("status")
    if written == "completed":
        return "completed"
    if holder:
        return "silent" if silent > SILENT_AFTER else "running"
    if job and job.state in (*slurm.PENDING, "CONFIGURING"):
        return "waiting"
    if written == "failed":
        return "failed"
    if written == "interrupted":
        return "stopped"
    return "killed" if written or saved else "new"


def _next(
    run: RunDirectory, state: State, job: slurm.Job | None, *, silent: float, saved: bool
) -> str:
    """What to do."""
    resume = "run.resume=auto goes on from the checkpoint" if saved else (
        "nothing was saved: run.resume=auto starts anew"
    )  # fmt: skip
    if job and state in ("stopped", "killed", "failed", "new") and job.state not in slurm.ENDED:
        return f"SLURM job {job.number} is still {job.state}: wait for it; else {resume}"
    if state == "waiting" and job:
        reason = f" ({job.reason})" if job.reason else ""
        held = "Held" in job.reason or job.state in ("REQUEUE_HOLD", "SPECIAL_EXIT")
        do = f"held: scontrol release {job.number}" if held else "it goes on when it is started"
        return f"SLURM job {job.number} is {job.state}{reason}: {do}"
    if state == "silent":
        return (
            f"no step for {silent / 60:.0f} minutes: a long validation, or it has stalled; if so, "
            f"end it, and {resume}"
        )
    if state == "failed":
        return f"see what it said last; when that is mended, {resume}"
    return {
        "running": "nothing",
        "completed": f"res2net test {run.path}; a greater trainer.max_epochs trains on",
    }.get(state, resume)


def _leaf(config: dict[str, Any], group: str, name: str) -> Any:
    leaves = config.get(group)
    return leaves.get(name) if isinstance(leaves, dict) else None


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0
