"""Gives a job that was stopped back to SLURM, which starts it again later, perhaps elsewhere."""

from __future__ import annotations

import os
import subprocess

from res2net.files import slurm

TIMEOUT = 30.0
"""Seconds for SLURM's answer: its controller may be busy, or starting again itself."""

ATTEMPTS = 3


def requeue() -> str:
    """Requeue the SLURM job that this process is a task of; for global rank 0.

    Not one that is being cancelled, nor one that SLURM or an operator has requeued already: these
    get a SIGTERM, too.

    Returns what became of it, in words; nothing where there is no job.
    """
    number = os.environ.get("SLURM_JOB_ID", "")
    if not number.isdecimal() or "SLURM_STEP_ID" not in os.environ:  # not a task
        return ""
    for _ in range(ATTEMPTS):
        job = slurm.ask(number)
        if job and job.restarts > int(os.environ.get("SLURM_RESTART_COUNT") or 0):
            return f"SLURM job {number} is requeued and goes on by itself"
        if job and job.state not in ("RUNNING", "SUSPENDED") and job.reason != "TimeLimit":
            return (
                f"SLURM job {number} is being cancelled and not requeued: submit it again to go on"
            )
        try:
            done = subprocess.run(
                ["scontrol", "requeue", _task_of_array() or number],
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                start_new_session=True,  # signals to the group of this process do not end it
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            why = str(error)
            break
        if done.returncode == 0:
            return f"SLURM job {number} is requeued and goes on by itself"
        why = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        if done.returncode > 0:
            break
        # ended by a signal to all processes of the job, as a requeue sends one: look again
    return f"SLURM job {number} was not requeued ({why}): submit it again to go on"


def _task_of_array() -> str:
    """This job's name where it is a task of an array: one of them has the number of the whole array
    as its own, and by that number all would start again, those that have ended, too."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{key}", "") for key in ("JOB_ID", "TASK_ID"))
    return f"{array}_{task}" if array.isdecimal() and task.isdecimal() else ""
