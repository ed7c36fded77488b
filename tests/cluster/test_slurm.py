"""`slurm/train.sbatch` on a real cluster: one node and two, refused and already complete."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from .conftest import Cluster, Job

pytestmark = pytest.mark.cluster

ONE_NODE = ("--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=1")
TWO_NODES = ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1")
VALIDATION_IMAGES = 360
STEPS = 1437 // 64


class Run(NamedTuple):
    job: Job
    path: Path


def arguments(folder: Path, *more: str) -> list[str]:
    return [
        "quickstart",
        "trainer.max_epochs=1",
        "data.global_batch_size=64",
        "logging.wandb=disabled",
        f"run.dir={folder}",
        "run.name=digits",
        *more,
    ]


def train(cluster: Cluster, folder: Path, *options: str) -> Run:
    number = cluster.submit(folder, *options, arguments=arguments(folder))
    return Run(cluster.wait(number, seconds=100), folder / "digits")


@pytest.fixture(scope="module")
def one_node(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of two tasks on one node."""
    return train(cluster, tmp_path_factory.mktemp("one-node"), *ONE_NODE)


def assert_two_ranks_trained(run: Run) -> None:
    assert (run.job.state, run.job.exit_code) == ("COMPLETED", 0), run.job.output
    summary = json.loads((run.path / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert (summary["steps"], summary["steps_executed"]) == (STEPS, STEPS)
    correct = summary["val/top1"] * VALIDATION_IMAGES  # each image counted once by the two ranks
    assert correct == pytest.approx(round(correct), abs=1e-6)
    checkpoint = load(run.path)
    assert len(checkpoint["ranks"]) == 2
    assert run.job.output.count("epoch 1/1") == 1  # one rank speaks for both


def load(run: Path) -> dict:
    return torch.load(run / "last.ckpt", weights_only=True)


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """What lies below a folder, with sizes and times."""
    stats = {str(path): path.stat() for path in folder.rglob("*")}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}


def test_two_tasks_on_one_node(one_node: Run) -> None:
    assert_two_ranks_trained(one_node)


def test_one_task_on_each_of_two_nodes(cluster: Cluster, one_node: Run, tmp_path: Path) -> None:
    run = train(cluster, tmp_path, *TWO_NODES)
    assert_two_ranks_trained(run)
    assert set(cluster.describe(run.job.number)["NodeList"].split(",")) == {"n[1-2]"}
    ours, theirs = load(run.path)["state_dict"], load(one_node.path)["state_dict"]
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_run_that_exists_is_refused_or_complete(cluster: Cluster, one_node: Run) -> None:
    folder = one_node.path.parent
    before = files(one_node.path)
    output = f"--output={folder}/%j.out"
    new = cluster.submit(folder, *ONE_NODE, output, arguments=arguments(folder, "run.resume="))
    same = cluster.submit(folder, *ONE_NODE, output, arguments=arguments(folder))

    refused = cluster.wait(new, seconds=100)
    assert (refused.state, refused.exit_code) == ("FAILED", 2), refused.output
    assert f"error: the run {one_node.path} exists: run.resume=auto" in refused.output
    complete = cluster.wait(same, seconds=100)
    assert (complete.state, complete.exit_code) == ("COMPLETED", 0), complete.output
    assert f"already complete: {one_node.path}\n" in complete.output
    assert files(one_node.path) == before
