"""What SLURM says of a job, where it can be asked."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

TIMEOUT = 10.0
"""Seconds: a controller that is down lets its clients wait for minutes."""

PENDING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")
"""Waiting for its first or its next start: nothing of it runs."""

ENDED = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "GONE", "NODE_FAIL",
         "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT")  # fmt: skip
"""Nothing of it runs, and it does not start again. COMPLETING is not among them: its processes may
still be there."""

SUSPENDED = ("STOPPED", "SUSPENDED")
"""Its processes stand still and will go on."""


@dataclass(frozen=True)
class Job:
    """A job as the controller sees it."""

    number: str
    state: str
    """SLURM's word, such as RUNNING; GONE for a job that the controller no longer knows."""
    restarts: int = 0
    """How many times it was requeued."""
    reason: str = ""
    """Why it waits or ended: `Resources`, `JobHeldUser`; empty where there is none."""


def ask(number: str) -> Job | None:
    """The job of this number; None if there is no SLURM here or it does not answer in time."""
    if not number.isdecimal() or shutil.which("scontrol") is None:
        return None
    try:
        asked = subprocess.run(
            ["scontrol", "--oneliner", "show", "job", number],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            start_new_session=True,  # signals to the group of this process do not end it
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if asked.returncode:
        return Job(number, "GONE") if "Invalid job id" in asked.stderr else None
    # the number of an array is also that of its last job: all jobs of the array are listed
    for line in asked.stdout.splitlines():
        fields = dict(re.findall(r"(?:^| )(\w+)=(\S*)", line))
        if fields.get("JobId") == number and "JobState" in fields:
            restarts, reason = fields.get("Restarts", ""), fields.get("Reason", "")
            return Job(
                number,
                fields["JobState"],
                int(restarts) if restarts.isdecimal() else 0,
                "" if reason == "None" else reason,
            )
    return None
