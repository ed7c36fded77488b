"""What is asked of SLURM, and what is said of its answers; `scontrol` is a script here."""

import os
from pathlib import Path

import pytest

from res2net.callbacks.requeue import requeue


class Controller:
    """Answers `scontrol show job 7` by its state, `scontrol requeue 7` by lines of a shell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requeues("exit 0")
        self.shows("RUNNING")

    def shows(self, state: str, reason: str = "None", restarts: int = 0) -> None:
        line = f"JobId=7 JobName=x JobState={state} Reason={reason} Restarts={restarts}"
        (self.folder / "job").write_text(line)

    def requeues(self, script: str) -> None:
        command = self.folder / "scontrol"
        command.write_text(
            f'#!/bin/sh\necho "$@" >> {self.folder}/asked\n'
            f'case "$*" in *show*) cat {self.folder}/job; exit;; esac\n{script}\n'
        )
        command.chmod(0o755)

    def count(self) -> int:
        """How often a requeue was asked for."""
        return (self.folder / "asked").read_text().splitlines().count("requeue 7")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Controller:
    for name, value in {"JOB_ID": "7", "STEP_ID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return Controller(tmp_path)


def test_outside_a_job_nothing_is_asked(slurm: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_STEP_ID")  # a shell in an allocation
    assert requeue() == ""
    assert not (slurm.folder / "asked").exists()


@pytest.mark.parametrize(("state", "reason"), [("RUNNING", "None"), ("COMPLETING", "TimeLimit")])
def test_a_job_that_runs_or_is_out_of_time_is_requeued(
    slurm: Controller, state: str, reason: str
) -> None:
    slurm.shows(state, reason)
    assert requeue() == "SLURM job 7 is requeued and goes on by itself"
    assert slurm.count() == 1


def test_of_an_array_one_task_alone_is_requeued(
    slurm: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the number 7 it would be all of them: it is the array's number, too."""
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert requeue() == "SLURM job 7 is requeued and goes on by itself"
    asked = (slurm.folder / "asked").read_text().splitlines()
    assert "requeue 7_2" in asked and slurm.count() == 0


@pytest.mark.parametrize("state", ["COMPLETING", "CANCELLED"])
def test_a_job_that_is_cancelled_is_not(slurm: Controller, state: str) -> None:
    slurm.shows(state)
    assert "is being cancelled and not requeued: submit it again" in requeue()
    assert slurm.count() == 0


def test_a_job_that_others_have_requeued_is_left_to_them(
    slurm: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    slurm.shows("COMPLETING", restarts=3)
    assert requeue() == "SLURM job 7 is requeued and goes on by itself"
    assert slurm.count() == 0
    slurm.shows("RUNNING", restarts=2)
    requeue()
    assert slurm.count() == 1


def test_the_requeue_ends_the_one_who_asks_for_it(slurm: Controller) -> None:
    """SLURM's signal to all processes of the job reaches scontrol, too."""
    shown = slurm.folder / "job"
    slurm.requeues(f"sed -i s/Restarts=0/Restarts=1/ {shown}; kill -TERM $$")
    assert requeue() == "SLURM job 7 is requeued and goes on by itself"
    assert slurm.count() == 1
    # a signal that was another's
    slurm.shows("RUNNING")
    slurm.requeues("kill -TERM $$")
    assert requeue() == "SLURM job 7 was not requeued (exit code -15): submit it again to go on"
    assert slurm.count() == 1 + 3


def test_a_refusal_is_told(slurm: Controller) -> None:
    slurm.requeues("echo 'Requested operation is presently disabled' >&2; exit 1")
    assert requeue() == (
        "SLURM job 7 was not requeued (Requested operation is presently disabled): "
        "submit it again to go on"
    )
    assert slurm.count() == 1
