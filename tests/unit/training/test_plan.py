"""On what a run runs: what `auto` becomes, how batches are cut, and what is refused."""

import os
import socket
from dataclasses import replace

import pytest
import torch

from res2net.config.schema import Config, TrainerConfig
from res2net.config.schema_data import DataConfig
from res2net.errors import InputError
from res2net.training.plan import Plan, make_plan


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four cores, no GPU, nothing launched."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for name in list(os.environ):
        if name.startswith("SLURM_") or name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MASTER_ADDR", "localhost")


def config(global_batch_size: int, accumulate: int = 1) -> Config:
    return Config(
        data=DataConfig(global_batch_size=global_batch_size),
        trainer=TrainerConfig(accumulate=accumulate),
    )


# Batches


def test_the_global_batch_is_cut_into_equal_parts() -> None:
    plan = Plan("cuda", devices=4, num_nodes=2, threads=1)
    assert plan.world_size == 8
    assert plan.batch_size(config(256)) == 32
    assert plan.batch_size(config(256, accumulate=4)) == 8
    assert plan.batch_size(config(8)) == 1


@pytest.mark.parametrize(
    ("size", "accumulate", "nearest"),
    [(100, 1, "96 and 104"), (97, 1, "96 and 104"), (100, 3, "96 and 120"), (7, 1, "8")],
)
def test_another_size_is_refused_with_the_nearest_ones(
    size: int, accumulate: int, nearest: str
) -> None:
    plan = Plan("cuda", devices=4, num_nodes=2, threads=1)
    with pytest.raises(InputError) as caught:
        plan.batch_size(config(size, accumulate))
    assert str(caught.value) == (
        f"data.global_batch_size={size} cannot be cut into {8 * accumulate} equal parts "
        f"(4 devices x 2 nodes x {accumulate} accumulated): the nearest sizes are {nearest}"
    )
    for number in nearest.split(" and "):
        plan.batch_size(config(int(number), accumulate))


# Machines


def test_auto_is_one_process_on_the_cpu_or_all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_plan(TrainerConfig(), workers=0) == Plan("cpu", 1, 1, threads=4)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert make_plan(TrainerConfig(), workers=0) == Plan("cuda", 2, 1, threads=2)
    assert make_plan(TrainerConfig(accelerator="cpu"), workers=0) == Plan("cpu", 1, 1, threads=4)


def test_given_numbers_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = TrainerConfig(devices="3", num_nodes="5")
    with pytest.raises(InputError, match=r"^trainer.num_nodes=5: nothing started the command on"):
        make_plan(trainer, workers=0)
    monkeypatch.setenv("NODE_RANK", "0")  # somebody starts each node by hand
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(
        InputError, match=r"NODE_RANK, MASTER_ADDR, MASTER_PORT \(not set: MASTER_P"
    ):
        make_plan(trainer, workers=0)
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert make_plan(trainer, workers=0) == Plan("cpu", 3, 5, threads=1)
    assert make_plan(trainer, workers=7).threads == 7
    assert make_plan(replace(trainer, devices="16"), workers=0).threads == 1


def test_more_processes_than_the_cores_bear_are_refused() -> None:
    make_plan(TrainerConfig(devices="16"), workers=0)
    with pytest.raises(InputError, match=r"^trainer.devices=17: this machine has 4 cores, .* 16 "):
        make_plan(TrainerConfig(devices="17"), workers=0)


def test_gpus_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError) as caught:
        make_plan(TrainerConfig(accelerator="cuda", devices="1"), workers=0)
    assert str(caught.value) == (
        "trainer.accelerator=cuda: this machine has no CUDA device; auto or cpu runs without"
    )
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert make_plan(TrainerConfig(devices="2"), workers=0).devices == 2
    with pytest.raises(InputError, match=r"^trainer.devices=3: .* has 2 CUDA devices$"):
        make_plan(TrainerConfig(devices="3"), workers=0)


# Launchers


def set_environment(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_torchrun_tells_processes_and_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, LOCAL_WORLD_SIZE="4", WORLD_SIZE="12")
    plan = make_plan(TrainerConfig(), workers=0)
    assert plan == Plan("cpu", 4, 3, threads=1, launcher="torchrun")


def test_srun_tells_processes_and_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, SLURM_NTASKS="6", SLURM_NTASKS_PER_NODE="2", SLURM_NNODES="3")
    # in a batch script, outside of srun, this is one process
    assert make_plan(TrainerConfig(), workers=0) == Plan("cpu", 1, 1, threads=4)
    set_environment(monkeypatch, SLURM_STEP_ID="0")
    plan = make_plan(TrainerConfig(), workers=0)
    assert plan == Plan("cpu", 2, 3, threads=2, launcher="srun")
    # cores that are bound to the task are its own
    set_environment(monkeypatch, SLURM_CPUS_PER_TASK="3")
    assert make_plan(TrainerConfig(), workers=0).threads == 3


def test_numbers_that_differ_from_the_launchers_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_environment(monkeypatch, LOCAL_WORLD_SIZE="4", WORLD_SIZE="12")
    assert make_plan(TrainerConfig(devices="4", num_nodes="3"), workers=0).world_size == 12
    with pytest.raises(InputError) as caught:
        make_plan(TrainerConfig(devices="2"), workers=0)
    assert str(caught.value) == (
        "trainer.devices=2 trainer.num_nodes=auto: torchrun started 4 processes on each of 3 "
        "nodes; leave both auto"
    )


def test_srun_without_the_tasks_of_a_node_is_refused_unless_it_is_one_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_environment(monkeypatch, SLURM_STEP_ID="0", SLURM_NTASKS="1")
    assert make_plan(TrainerConfig(), workers=0).world_size == 1
    set_environment(monkeypatch, SLURM_NTASKS="4")
    with pytest.raises(InputError, match=r"^4 tasks of SLURM without --ntasks-per-node: "):
        make_plan(TrainerConfig(), workers=0)


def test_another_number_of_tasks_than_nodes_times_tasks_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_environment(
        monkeypatch,
        SLURM_STEP_ID="0",
        SLURM_NTASKS="3",
        SLURM_NTASKS_PER_NODE="2",
        SLURM_NNODES="2",
    )
    with pytest.raises(InputError, match=r"started 3 tasks, but --ntasks-per-node=2 on 2 nodes"):
        make_plan(TrainerConfig(), workers=0)


def test_a_meeting_place_without_an_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def unknown(host: str, port: None) -> None:
        asked.append(host)
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    refused = pytest.raises(InputError, match="where the ranks meet, cannot be resolved")
    monkeypatch.setenv("MASTER_ADDR", "nowhere")
    set_environment(monkeypatch, LOCAL_WORLD_SIZE="1", WORLD_SIZE="1")
    make_plan(TrainerConfig(), workers=0)  # alone it meets nobody
    set_environment(monkeypatch, WORLD_SIZE="2")
    with refused:
        make_plan(TrainerConfig(), workers=0)
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    monkeypatch.delenv("MASTER_ADDR")
    set_environment(
        monkeypatch,
        SLURM_STEP_ID="0",
        SLURM_NTASKS="2",
        SLURM_NTASKS_PER_NODE="1",
        SLURM_NNODES="2",
        SLURM_NODELIST="gpu[07-09,11],big3",
    )
    with refused:
        make_plan(TrainerConfig(), workers=0)
    assert asked == ["nowhere", "gpu07"]


@pytest.mark.parametrize("job", ["bash", "interactive"])
def test_a_shell_in_an_allocation_is_one_process(job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, SLURM_STEP_ID="0", SLURM_NTASKS="1", SLURM_JOB_NAME=job)
    assert make_plan(TrainerConfig(), workers=0) == Plan("cpu", 1, 1, threads=4)
    set_environment(monkeypatch, SLURM_NTASKS="2")
    with pytest.raises(InputError, match=f"job name '{job}' means a shell"):
        make_plan(TrainerConfig(), workers=0)
