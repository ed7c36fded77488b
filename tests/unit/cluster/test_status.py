"""How a run stands, in each state, from real checkpoints and from files that are half there."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from metrics_rows import write_metrics
from res2net.cluster.status import SILENT_AFTER, status
from res2net.errors import InputError
from res2net.files.holder import DEAD_AFTER, Holder, this_process
from res2net.files.lock import Lock
from res2net.files.runs import RunDirectory
from res2net.files.slurm import Job

ELSEWHERE = Holder("node7", 123, job="77", started="2026-11-22 22:10:04", boot="b", token="a" * 32)
SUMMARY: dict[str, Any] = {
    "status": "running",
    "best": {"epoch": 1, "val/top1": 0.8125},
    "steps": 40,
    "steps_executed": 41,
    "steps_per_epoch": 22,
    "restarts": 3,
    "slurm_job": "",
}


@pytest.fixture(autouse=True)
def jobs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Job]:
    """What SLURM knows, by number."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    known: dict[str, Job] = {}
    monkeypatch.setattr("res2net.files.slurm.ask", known.get)
    return known


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run of 3 epochs of 22 steps of 16 images: at step 45, saved at 40, after 4 lost steps."""
    run = RunDirectory(tmp_path / "mine")
    run.path.mkdir()
    config = {"model": {"name": "res2net20_cifar"}, "data": {"global_batch_size": 16}}
    run.config.write_text(yaml.safe_dump(config | {"trainer": {"max_epochs": 3}}))
    run.summary.write_text(json.dumps(SUMMARY))
    write_metrics(run.metrics, epochs=2)
    beat(run)
    save(run.last, 40)
    return run


def beat(run: RunDirectory, *, age: float = 0.0) -> None:
    run.heartbeat.write_text(f"{49:>12} {45:>12} {time.time() - age:.1f}\n")


def save(path: Path, step: int) -> None:
    torch.save({"epoch": 1, "global_step": step, "state_dict": {"w": torch.zeros(9)}}, path)


def put(run: RunDirectory, **changes: Any) -> None:
    run.summary.write_text(json.dumps(SUMMARY | changes))


def hold(run: RunDirectory, holder: Holder, *, age: float = 0.0) -> None:
    run.lock.write_text(holder.to_json())
    os.utime(run.lock, (time.time() - age,) * 2)


# States


def test_a_run_that_is_being_trained(run: RunDirectory) -> None:
    lock = Lock(run.lock)
    lock.acquire()
    beat(run, age=-1)  # after the lock was taken
    found = status(run.path)
    lock.release()
    assert (found.state, found.next) == ("running", "nothing")
    assert (found.step, found.steps, found.max_epochs) == (45, 66, 3)
    assert found.epochs == pytest.approx(45 / 22, abs=1e-3)
    assert (found.steps_executed, found.steps_lost, found.restarts) == (49, 4, 3)
    assert found.images_per_second == 5000
    assert found.seconds_left == pytest.approx((66 - 45) * 16 / 5000)
    assert found.top1 == pytest.approx(0.75)
    assert (found.best_top1, found.best_epoch) == (0.8125, 2)
    assert found.model == "res2net20_cifar" and found.remarks == []
    assert found.holder and found.holder["pid"] == os.getpid()
    saved = found.checkpoint
    assert saved and (saved.name, saved.step) == ("last.ckpt", 40)
    assert saved.bytes == run.last.stat().st_size and 0 <= saved.age_seconds < 60


def test_one_that_has_just_begun_again_is_at_its_checkpoint(run: RunDirectory) -> None:
    beat(run, age=10 * SILENT_AFTER)  # of the process before
    hold(run, this_process())
    found = status(run.path)
    assert (found.state, found.step, found.steps_lost) == ("running", 40, 9)


def test_silence(run: RunDirectory) -> None:
    hold(run, replace(this_process(), started="2026-01-01 00:00:00"))
    beat(run, age=SILENT_AFTER - 10)
    assert status(run.path).state == "running"
    beat(run, age=SILENT_AFTER + 10)
    found = status(run.path)
    assert found.state == "silent" and found.step == 45
    assert found.next.startswith("no step for 10 minutes: a long validation, or it has stalled")


@pytest.mark.parametrize("dead_lock", [False, True])
def test_a_killed_run(run: RunDirectory, dead_lock: bool) -> None:
    if dead_lock:
        hold(run, ELSEWHERE, age=DEAD_AFTER + 5)
    found = status(run.path)
    assert (found.state, found.holder) == ("killed", None)
    assert (found.step, found.steps_executed, found.steps_lost) == (40, 49, 9)
    assert found.next == "run.resume=auto goes on from the checkpoint"
    run.last.unlink()
    found = status(run.path)
    assert (found.state, found.checkpoint, found.step) == ("killed", None, 0)
    assert found.next == "nothing was saved: run.resume=auto starts anew"


@pytest.mark.parametrize(
    ("written", "state", "words"),
    [
        ("interrupted", "stopped", "run.resume=auto goes on from the checkpoint"),
        ("failed", "failed", "see what it said last; when that is mended, run.resume=auto goes"),
        ("completed", "completed", "res2net test "),
    ],
)
def test_how_runs_end(run: RunDirectory, written: str, state: str, words: str) -> None:
    put(run, status=written, steps=66, steps_executed=70)
    found = status(run.path)
    assert found.state == state and found.next.startswith(words)
    at = 66 if state == "completed" else 40
    assert (found.step, found.steps_lost) == (at, 70 - at)
    assert (found.seconds_left is None) == (state == "completed")
    # trained on, it is running, whatever the summary says still
    hold(run, this_process())
    assert status(run.path).state == ("completed" if state == "completed" else "running")


def test_one_that_waits_in_slurms_queue(run: RunDirectory, jobs: dict[str, Job]) -> None:
    jobs["77"] = Job("77", "PENDING", reason="Resources")
    hold(run, ELSEWHERE, age=DEAD_AFTER + 5)  # of the lock of the killed process
    found = status(run.path)
    assert found.state == "waiting"
    assert found.next == "SLURM job 77 is PENDING (Resources): it goes on when it is started"
    run.lock.unlink()
    assert status(run.path).state == "killed"
    put(run, status="interrupted", slurm_job="77")  # of the summary, after a clean stop
    assert status(run.path).state == "waiting"
    jobs["77"] = Job("77", "PENDING", reason="JobHeldUser")
    assert status(run.path).next.endswith("held: scontrol release 77")
    jobs["77"] = Job("77", "RUNNING")
    found = status(run.path)
    assert found.state == "stopped" and found.next.startswith("SLURM job 77 is still RUNNING: wait")
    jobs["77"] = Job("77", "CANCELLED")
    assert status(run.path).next == "run.resume=auto goes on from the checkpoint"
    put(run, status="completed", slurm_job="77")
    assert status(run.path).state == "completed"


def test_a_run_that_has_hardly_begun(run: RunDirectory) -> None:
    for path in run.path.iterdir():
        if path != run.config:
            path.unlink()
    found = status(run.path)
    assert (found.state, found.step, found.steps, found.top1) == ("new", 0, None, None)
    assert found.next == "nothing was saved: run.resume=auto starts anew"
    # locked, and nothing else there yet
    run.config.unlink()
    hold(run, this_process())
    assert status(run.path).state == "running"


def test_what_is_no_run(tmp_path: Path, run: RunDirectory) -> None:
    (tmp_path / "empty").mkdir()
    for name, words in (("empty", "holds no config.yaml"), ("none", "is no directory")):
        with pytest.raises(InputError, match=f"{name}: not a run: {words}"):
            status(tmp_path / name)
    run.config.write_text("- [")
    with pytest.raises(InputError, match=r"config\.yaml cannot be read"):
        status(run.path)


# Files that tell of trouble, and files that are half there


def test_remarks(run: RunDirectory) -> None:
    run.stalled(2).write_text("File ...")
    run.quarantine.write_text("a.jpg\tis empty\nb.jpg\tis empty\n")
    run.nonfinite.write_text("c.jpg\n")
    assert [remark.split(" ")[0] for remark in status(run.path).remarks] == [
        "stalled-rank2.txt:",
        "nonfinite.txt:",
        "quarantine.txt:",
    ]
    assert status(run.path).remarks[2].startswith("quarantine.txt: 2 images")


def test_a_checkpoint_that_is_damaged_or_missing(run: RunDirectory) -> None:
    save(run.previous, 30)
    run.last.write_bytes(run.last.read_bytes()[:300])
    saved = status(run.path).checkpoint
    assert saved and (saved.name, saved.step) == ("last.ckpt", None)
    run.last.unlink()
    found = status(run.path)
    assert found.checkpoint and found.checkpoint.name == "previous.ckpt"
    assert found.checkpoint.step == found.step == 30


def test_torn_rows_are_passed_over(run: RunDirectory) -> None:
    with run.metrics.open("a") as file:
        file.write("50,2,tra60,2,train,images_per_second,9\nx,\n61,2,val,top1,\n62,2,val,top1,0.9")
    assert status(run.path).top1 == pytest.approx(0.75)
    with run.metrics.open("a") as file:
        file.write("\n")
    assert status(run.path).top1 == pytest.approx(0.9)


@pytest.mark.parametrize("name", ["summary.json", "heartbeat", "metrics.csv", "last.ckpt", "lock"])
def test_any_file_cut_anywhere(run: RunDirectory, name: str) -> None:
    hold(run, ELSEWHERE, age=DEAD_AFTER + 5)
    path = run.path / name
    whole = path.read_bytes()
    for length in [0, 1, *range(2, len(whole), max(len(whole) // 25, 1))]:
        path.write_bytes(whole[:length])
        status(run.path)
    path.write_bytes(b"\xff\x00" * 50)
    status(run.path)


WRITER = """
import json, os, sys
from pathlib import Path
from res2net.files.lock import Lock
from res2net.files.runs import RunDirectory
run = RunDirectory(Path(sys.argv[1]))
files = {path: path.read_bytes() for path in run.path.iterdir()}
print("ready", flush=True)
while True:
    lock = Lock(run.lock)
    lock.acquire()
    for path, content in files.items():
        half = path.with_name(path.name + ".half")
        half.write_bytes(content)
        half.replace(path)
        if path != run.config:
            path.write_bytes(content[: len(content) // 2])
            path.unlink()
    lock.release()
"""


def test_a_run_that_is_written_meanwhile(run: RunDirectory) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(run.path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout and process.stdout.readline() == "ready\n"
        until = time.monotonic() + 2
        seen = set()
        while time.monotonic() < until:
            seen.add(status(run.path).state)
        assert process.poll() is None
        assert {"running", "killed"} <= seen
    finally:
        process.kill()
        process.communicate()


def test_it_needs_no_pytorch_and_no_rich() -> None:
    code = (
        "import sys, res2net.cluster.status; "
        "assert not {'torch', 'lightning', 'numpy', 'rich', 'omegaconf'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
