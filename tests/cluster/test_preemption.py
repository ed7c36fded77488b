"""Signals, requeues, limits and lost nodes on a real cluster: the run ends as if nothing happened.

All in full speed, at random steps. `make soak` sends twenty signals.
"""

import json
import os
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runs import differences, heartbeat_step, read_state, rows

from .conftest import Cluster

pytestmark = pytest.mark.cluster

ONE_NODE = ("--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=1")
TWO_NODES = ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1")
STEPS_PER_EPOCH = 1437 // 64
EVERY_STEPS = 10


def arguments(folder: Path, name: str, epochs: int) -> list[str]:
    return [
        "quickstart",
        f"trainer.max_epochs={epochs}",
        "data.global_batch_size=64",
        "augment.mixup=0.4",
        "optim.ema_decay=0.9",
        f"checkpoint.every_steps={EVERY_STEPS}",
        "logging.wandb=disabled",
        f"run.dir={folder}",
        f"run.name={name}",
    ]


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def to_all(number: int) -> Callable[[Cluster, int], None]:
    name = signal.Signals(number).name.removeprefix("SIG")
    return lambda cluster, job: void(cluster.call("scancel", f"--signal={name}", str(job)))


def to_one(number: int) -> Callable[[Cluster, int], None]:
    def send(cluster: Cluster, job: int) -> None:
        ranks = [
            process
            for process, environment in cluster.processes(job).items()
            if environment.get("SLURM_PROCID") == "1" and b"train" in command_line(process)
        ]
        assert len(ranks) == 1
        os.kill(ranks[0], number)

    return send


def command_line(process: int) -> bytes:
    return Path(f"/proc/{process}/cmdline").read_bytes()


def void(_: object) -> None:
    pass


def summary_of(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


def check_signals(
    cluster: Cluster,
    folder: Path,
    layout: tuple[str, ...],
    signals: list[Callable[[Cluster, int], None]],
    *,
    epochs: int,
    seed: int,
) -> None:
    whole = cluster.submit(folder, *layout, arguments=arguments(folder, "whole", epochs))
    assert cluster.wait(whole, seconds=200).state == "COMPLETED"
    number = cluster.submit(folder, *layout, arguments=arguments(folder, "signalled", epochs))
    run = folder / "signalled"
    chance = random.Random(seed)
    steps = epochs * STEPS_PER_EPOCH
    at = sorted(chance.sample(range(1, steps - 10), len(signals)))
    for restarts, (step, send) in enumerate(zip(at, signals, strict=True)):
        # the leg's own steps: the file is there from the leg before
        before = heartbeat_step(run)
        until(lambda: heartbeat_step(run) >= max(step, before + 1), 200)  # noqa: B023
        send(cluster, number)
        until(lambda: int(cluster.describe(number)["Restarts"]) == restarts + 1)  # noqa: B023
    job = cluster.wait(number, seconds=300)

    assert (job.state, job.exit_code) == ("COMPLETED", 0), job.output
    assert job.output.count("is requeued and goes on by itself") == len(signals), job.output
    assert "Traceback" not in job.output
    summary = summary_of(run)
    assert summary["restarts"] == len(signals)
    assert summary["steps"] == steps
    # what stops in a validation has saved the state one step before it; else nothing is done twice
    stops = [int(step) for step in re.findall(r"stopped by \w+ at step (\d+)", job.output)]
    repeated = sum(step % STEPS_PER_EPOCH == 0 for step in stops)
    assert len(stops) == len(signals)
    assert summary["steps_executed"] - steps == repeated, stops
    state = read_state(folder / "whole/last.ckpt")
    assert differences(state, read_state(run / "last.ckpt")) == []
    assert rows(folder / "whole") == rows(run)


def test_three_signals(cluster: Cluster, tmp_path: Path) -> None:
    signals = [to_all(signal.SIGUSR1), to_one(signal.SIGTERM), to_all(signal.SIGTERM)]
    check_signals(cluster, tmp_path, ONE_NODE, signals, epochs=4, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("layout", [ONE_NODE, TWO_NODES])
def test_ten_signals(cluster: Cluster, tmp_path: Path, layout: tuple[str, ...]) -> None:
    signals = [to_all(signal.SIGUSR1)] * 4 + [to_all(signal.SIGTERM)] * 3
    signals += [to_one(signal.SIGTERM)] * 3
    if layout == TWO_NODES:  # seven, seven and six of both
        signals[0] = to_all(signal.SIGTERM)
    random.Random(2).shuffle(signals)
    check_signals(cluster, tmp_path, layout, signals, epochs=12, seed=3)


def test_time_limit_operator_and_scancel(cluster: Cluster, tmp_path: Path) -> None:
    """A job that never ends by itself: stopped in three ways, nothing is ever lost."""
    limits = ("--time=2", "--signal=USR1@30")  # a minute and a half for the start-up
    asked = arguments(tmp_path, "long", 10_000)
    number = cluster.submit(tmp_path, *TWO_NODES, *limits, arguments=asked)
    run = tmp_path / "long"
    restarts = lambda: int(cluster.describe(number)["Restarts"])  # noqa: E731
    until(lambda: restarts() == 1)  # thirty seconds before the limit
    assert summary_of(run)["status"] == "interrupted"
    first = heartbeat_step(run)
    assert first > 0

    cluster.call("scontrol", "update", f"jobid={number}", "timelimit=10")
    until(lambda: heartbeat_step(run) > first)
    cluster.call("scontrol", "requeue", str(number))
    until(lambda: restarts() == 2)
    until(lambda: summary_of(run)["status"] == "interrupted")
    second = heartbeat_step(run)

    until(lambda: heartbeat_step(run) > second)
    cluster.call("scancel", str(number))
    job = cluster.wait(number, seconds=60)
    assert job.state == "CANCELLED" and restarts() == 2
    said = [line for line in job.output.splitlines() if line.startswith("stopped by ")]
    assert [line.split()[2] for line in said] == ["SIGUSR1", "SIGTERM", "SIGTERM"]
    assert "is requeued and goes on by itself" in said[1]
    assert "is being cancelled and not requeued" in said[2]
    assert "Traceback" not in job.output
    summary = summary_of(run)
    assert summary["status"] == "interrupted"
    assert 0 <= summary["steps_executed"] - summary["steps"] <= 3  # stopped in validations
    assert read_state(run / "last.ckpt")["global_step"] == summary["steps"]


def test_a_lost_node(cluster: Cluster, tmp_path: Path) -> None:
    """The job goes on, on the other node, from the last state saved."""
    epochs = 3
    asked = arguments(tmp_path, "lost", epochs)
    number = cluster.submit(tmp_path, *ONE_NODE, arguments=asked)
    run = tmp_path / "lost"
    until(lambda: heartbeat_step(run) > STEPS_PER_EPOCH)
    node = cluster.describe(number)["NodeList"]
    cluster.lose_node(node, number)
    try:
        until(lambda: int(cluster.describe(number)["Restarts"]) == 1)
        until(lambda: cluster.describe(number)["JobState"] == "RUNNING")
        other = cluster.describe(number)["NodeList"]
        job = cluster.wait(number, seconds=120)
    finally:
        cluster.start_node(node)
    assert other != node
    assert (job.state, job.exit_code) == ("COMPLETED", 0), job.output
    summary = summary_of(run)
    assert (summary["restarts"], summary["steps"]) == (1, epochs * STEPS_PER_EPOCH)
    assert 0 <= summary["steps_executed"] - summary["steps"] <= EVERY_STEPS
    assert not (run / "lock").exists()


ARRAY_TASK = """
import os, sys, time
from pathlib import Path
from res2net.callbacks.requeue import requeue

folder, task = Path(sys.argv[1]), os.environ["SLURM_ARRAY_TASK_ID"]
with open(folder / f"started-{task}", "a") as file:
    file.write("once more\\n")
holds_the_number = os.environ["SLURM_JOB_ID"] == os.environ["SLURM_ARRAY_JOB_ID"]
if holds_the_number and not int(os.environ.get("SLURM_RESTART_COUNT") or 0):
    while sum(1 for _ in folder.glob("ended-*")) < 2:
        time.sleep(0.1)
    (folder / "said").write_text(f"{task} {requeue()}")
    time.sleep(60)  # until SLURM ends it
(folder / f"ended-{task}").touch()
"""


def test_of_an_array_one_task_is_requeued(cluster: Cluster, tmp_path: Path) -> None:
    """One task has the array's number as its own, and SLURM would take all for meant by it."""
    script = tmp_path / "task.py"
    script.write_text(ARRAY_TASK)
    array = cluster.submit_command(
        tmp_path, "--array=0-2", "--requeue", command=f"python {script} {tmp_path}"
    )
    until(lambda: sum(1 for _ in tmp_path.glob("ended-*")) == 3)
    stopped, said = (tmp_path / "said").read_text().split(maxsplit=1)
    assert said == f"SLURM job {array} is requeued and goes on by itself"
    for task in "012":
        starts = (tmp_path / f"started-{task}").read_text().splitlines()
        assert len(starts) == (2 if task == stopped else 1)
        assert cluster.describe(f"{array}_{task}")["Restarts"] == str(len(starts) - 1)  # type: ignore[arg-type]
