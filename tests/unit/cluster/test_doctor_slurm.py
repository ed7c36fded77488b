"""What the doctor makes of SLURM's variables, with SLURM's commands replaced by scripts."""

import os

import pytest
import torch

from res2net.cluster.doctor import Check, slurm

JOB = {
    "SLURM_JOB_ID": "17",
    "SLURM_JOB_NAME": "train",
    "SLURM_JOB_NODELIST": "n[1-2]",
    "SLURM_NNODES": "2",
    "SLURM_NTASKS": "8",
    "SLURM_NTASKS_PER_NODE": "4",
    "SLURM_PROCID": "5",
    "SLURM_STEP_ID": "0",
}


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """In no job, and no command on PATH."""
    for name in [*os.environ]:
        if name.startswith(("SLURM", "MASTER_", "CUDA_VISIBLE")):
            monkeypatch.delenv(name)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


@pytest.fixture
def job(monkeypatch):
    """Variables of a task; None takes one away."""

    def change(**changes: str | None) -> None:
        for name, value in (JOB | changes).items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)

    return change


def command(tmp_path, name: str, script: str) -> None:
    file = tmp_path / "bin" / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def only(checks) -> Check:
    (check,) = checks
    return check


def test_outside_of_a_job_there_is_nothing_to_say():
    for check in (slurm.tasks, slurm.gpus, slurm.time_left, slurm.master_address):
        assert list(check()) == []


def test_name_and_restarts(tmp_path, job):
    command(tmp_path, "scontrol", "")
    job(SLURM_RESTART_COUNT="3")
    assert only(slurm.slurm()) == Check("slurm", "ok", "in job 17 (train), restarted 3 times")
    job(SLURM_JOB_NAME="interactive")
    assert only(slurm.slurm()).status == "fail"
    job(SLURM_JOB_NAME="interactive", SLURM_NTASKS="1")
    assert only(slurm.slurm()).status == "warn"


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({}, "ok", ""),
        ({"SLURM_NTASKS_PER_NODE": None}, "fail", "--ntasks-per-node instead of --ntasks"),
        ({"SLURM_NTASKS_PER_NODE": None, "SLURM_NTASKS": "1"}, "ok", ""),
        ({"SLURM_NTASKS": "7"}, "fail", "the same number of tasks"),
        ({"SLURM_STEP_ID": None}, "warn", "start it by srun: the job has 8 tasks"),
        ({"SLURM_STEP_ID": None, "SLURM_NTASKS": "1"}, "ok", ""),
    ],
)
def test_tasks(job, changes, status, words):
    job(**changes)
    check = only(slurm.tasks())
    assert (check.status, bool(check.advice)) == (status, status != "ok")
    assert words in check.advice
    assert check.value.startswith("nodes: 2 (n[1-2]); ")
    if not changes:
        assert check.value.endswith("tasks: 8, per node: 4; this is 5")


@pytest.mark.parametrize(
    ("allocated", "seen", "per_node", "status", "words"),
    [
        ("4", 4, "4", "ok", ""),
        (None, 0, "4", "ok", ""),
        ("4", 1, "4", "fail", "no --gpus-per-task"),
        ("4", 0, "4", "fail", "PyTorch sees none"),
        ("2", 2, "4", "fail", "--ntasks-per-node=2"),
        ("8", 8, "4", "warn", "--ntasks-per-node=8 uses all"),
        (None, 4, "4", "warn", "not this job's"),
        ("1", 1, None, "ok", ""),
    ],
)
def test_gpus(job, monkeypatch, allocated, seen, per_node, status, words):
    job(SLURM_GPUS_ON_NODE=allocated, SLURM_NTASKS_PER_NODE=per_node, CUDA_VISIBLE_DEVICES="0,3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: seen > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    check = only(slurm.gpus())
    assert (check.status, bool(check.advice)) == (status, status != "ok")
    assert words in check.advice
    assert check.value == (
        f"{allocated or 0} allocated on this node, {seen} seen by this task "
        "(CUDA_VISIBLE_DEVICES: 0,3)"
    )


@pytest.mark.parametrize(
    ("answer", "status", "value"),
    [
        ("echo 1-02:03:04", "ok", "1-02:03:04"),
        ("echo 10:00", "ok", "10:00"),
        ("echo 9:59", "warn", "9:59"),
        ("echo UNLIMITED", "ok", "UNLIMITED"),
        ("echo error: cannot reach the controller >&2; exit 1", "warn", "error: cannot reach"),
    ],
)
def test_time_left(tmp_path, job, answer, status, value):
    job()
    command(tmp_path, "squeue", f'[ "$*" = "-h -j 17 -o %L" ] || exit 9\n{answer}')
    check = only(slurm.time_left())
    assert check.status == status
    assert check.value.startswith(value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1-02:03:04", 93784), ("02:03:04", 7384), ("3:04", 184), ("0", 0), ("INVALID", None)],
)
def test_seconds(text, seconds):
    assert slurm.seconds(text) == seconds


def test_master_address(tmp_path, job, monkeypatch):
    job()
    command(tmp_path, "scontrol", 'echo "localhost\nn2"')
    assert only(slurm.master_address()).value in ("localhost (127.0.0.1)", "localhost (::1)")
    monkeypatch.setenv("MASTER_ADDR", "nowhere.invalid")
    check = only(slurm.master_address())
    assert check.status == "fail"
    assert check.value.startswith("nowhere.invalid has no address: ")
