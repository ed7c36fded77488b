"""The doctor on this machine as it is, and on the same machine with something broken."""

import json
import os
import sys
from importlib import import_module, metadata

import pytest
import torch

from res2net.cli.main import main
from res2net.cluster.doctor import Check, examine
from res2net.cluster.doctor.accounts import wandb_login
from res2net.cluster.doctor.decoding import decode
from res2net.cluster.doctor.devices import cuda, driver
from res2net.cluster.doctor.resources import cores, disk, memory
from res2net.cluster.doctor.slurm import slurm
from schemas import fits


@pytest.fixture(autouse=True)
def plain_machine(tmp_path, monkeypatch):
    """Nothing of the user's or the cluster's: an own home, folder and PATH, no job."""
    for name in os.environ:
        if name.startswith(("SLURM_", "WANDB_", "MASTER_")) or name == "NETRC":
            monkeypatch.delenv(name)
    for name in ("home", "work", "bin"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")


def command(tmp_path, monkeypatch, name: str, script: str) -> None:
    """Put a command on PATH."""
    file = tmp_path / "bin" / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{file.parent}:{os.environ['PATH']}")


def only(checks) -> Check:
    (check,) = checks
    return check


def found(name: str) -> Check:
    return only(check for check in examine() if check.name == name)


# --- This machine --------------------------------------------------------------------------------


def test_this_machine_passes_and_the_json_says_so(capsys, tmp_path):
    assert main(["doctor", "--json"]) == 0
    printed = fits("doctor", capsys.readouterr().out)
    assert list(printed) == ["checks"]
    checks = {check["name"]: check for check in printed["checks"]}
    assert len(checks) == len(printed["checks"])
    for check in checks.values():
        assert list(check) == ["name", "status", "value", "advice"]
        assert check["status"] in ("ok", "warn")
        assert bool(check["advice"]) == (check["status"] != "ok")
        assert check["value"]
    for name in ("torch", "torchvision", "lightning", "omegaconf", "wandb", "nvidia-dali-cuda130"):
        assert checks[name]["value"] == metadata.version(name)
    assert checks["res2net"]["value"] == metadata.version("res2net-lightning")
    assert checks["decode on the cpu"]["status"] == "ok"
    assert {"python", "driver", "cores", "memory", "disk", "wandb login", "slurm"} <= set(checks)
    assert list((tmp_path / "work").iterdir()) == [], "the doctor leaves nothing behind"


def test_the_table_holds_every_check(capsys):
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["check", "status", "value", "what", "to", "do"]
    assert any(line.startswith("torch ") and metadata.version("torch") in line for line in lines)


# --- Packages ------------------------------------------------------------------------------------


def test_a_missing_package_fails_alone(monkeypatch, capsys):
    version = metadata.version

    def without(name: str) -> str:
        if name == "torchmetrics":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", without)
    assert main(["doctor", "--json"]) == 1
    checks = fits("doctor", capsys.readouterr().out)["checks"]
    failed = only(check for check in checks if check["status"] == "fail")
    assert (failed["name"], failed["value"]) == ("torchmetrics", "not installed")
    assert failed["advice"].startswith("pip install 'torchmetrics>=")


def test_a_package_below_the_floor(monkeypatch):
    version = metadata.version
    monkeypatch.setattr(
        metadata, "version", lambda name: "1.0.0" if name == "omegaconf" else version(name)
    )
    check = found("omegaconf")
    assert (check.status, check.value) == ("fail", "1.0.0 is too old")
    assert check.advice.startswith("pip install 'omegaconf>=")


def test_dali_that_cannot_be_imported(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    monkeypatch.delitem(sys.modules, "res2net.data.dali.stream", raising=False)
    assert main(["doctor", "--json"]) == 1
    checks = json.loads(capsys.readouterr().out)["checks"]
    failed = {check["name"]: check for check in checks if check["status"] == "fail"}
    assert {"nvidia-dali-cuda130", "decode on the cpu"} <= set(failed)
    assert "cannot be imported" in failed["nvidia-dali-cuda130"]["value"]
    assert checks[-1]["name"] == "slurm", "the checks after it go on"


def test_without_packaging_or_rich_there_is_still_an_answer(monkeypatch, capsys):
    for name in [*sys.modules]:
        if name.partition(".")[0] in ("packaging", "rich"):
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "res2net.cli.tables", raising=False)  # it has them already
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    monkeypatch.setitem(sys.modules, "rich.box", None)
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert only(line for line in lines if line.startswith("fail  packages"))
    assert any(line.startswith("ok  res2net") for line in lines)


def test_the_project_is_not_installed(monkeypatch):
    monkeypatch.setattr("res2net.cluster.doctor.packages.DISTRIBUTION", "no-such-distribution")
    checks = {check.name: check for check in examine()}
    assert checks["res2net"].status == checks["packages"].status == "fail"
    assert "pip install -e ." in checks["res2net"].advice
    assert checks["disk"].status == "ok"


# --- Devices and resources -----------------------------------------------------------------------


def test_driver(tmp_path, monkeypatch):
    command(tmp_path, monkeypatch, "nvidia-smi", "echo 580.95.05; echo 580.95.05")
    assert only(driver()) == Check("driver", "ok", "580.95.05")
    command(tmp_path, monkeypatch, "nvidia-smi", "echo NVIDIA-SMI has failed; exit 9")
    check = only(driver())
    assert (check.status, check.value) == ("warn", "NVIDIA-SMI has failed")


def test_a_driver_without_a_device_for_pytorch(tmp_path, monkeypatch):
    command(tmp_path, monkeypatch, "nvidia-smi", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    check = only(cuda())
    assert check.status == "warn"
    assert "finds no device it can use" in check.value
    assert "CUDA_VISIBLE_DEVICES" in check.advice


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_cuda_device():
    checks = {check.name: check for check in examine()}
    assert torch.cuda.get_device_name(0) in checks["cuda:0"].value
    assert checks["decode on the gpu"].status == "ok"


@pytest.mark.parametrize(
    ("usable", "present", "status"), [(1, 8, "warn"), (2, 8, "ok"), (1, 1, "ok")]
)
def test_cores(monkeypatch, usable, present, status):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(usable)))
    monkeypatch.setattr(os, "cpu_count", lambda: present)
    check = only(cores())
    assert (check.status, check.value) == (status, f"{usable} of {present} may be used")


def test_little_memory_and_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("res2net.cluster.doctor.resources.LITTLE_MEMORY", 2**60)
    monkeypatch.setattr("res2net.cluster.doctor.resources.LITTLE_DISK", 2**60)
    assert only(memory()).status == "warn"
    assert only(disk(tmp_path)).status == "warn"


def test_a_folder_for_runs_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    check = only(disk(tmp_path / "file" / "runs"))
    assert check.status == "fail"
    assert "run.dir=PATH" in check.advice


def test_a_decoder_that_gives_wrong_pixels(monkeypatch):
    class Black:
        def __init__(self, *args, **kwargs) -> None:
            pass

        def __next__(self):
            return torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.zeros(1)

    monkeypatch.setattr(import_module("res2net.data.dali.stream"), "Stream", Black)
    check = only(decode(None))
    assert check.status == "fail"
    assert "[0, 0, 0] instead of [200, 120, 40]" in check.value


# --- Accounts and clusters -----------------------------------------------------------------------


def test_wandb_login(tmp_path, monkeypatch):
    assert only(wandb_login()).status == "warn"
    file = tmp_path / "home" / ".netrc"
    file.write_text("machine api.wandb.ai login user password secret\n")
    check = only(wandb_login())
    assert (check.status, check.value) == ("ok", f"api.wandb.ai, by {file}")

    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org:8080")
    assert only(wandb_login()).value == "not logged in to wandb.example.org:8080"
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    check = only(wandb_login())
    assert (check.status, check.value) == ("ok", "wandb.example.org:8080, by WANDB_API_KEY")


def test_a_malformed_netrc_is_not_quoted(tmp_path):
    (tmp_path / "home" / ".netrc").write_text("secret\n")
    check = only(wandb_login())
    assert check.status == "warn"
    assert "malformed" in check.value
    assert "secret" not in check.value + check.advice


def test_slurm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert only(slurm()) == Check("slurm", "ok", "not in a job; no sbatch")
    command(tmp_path, monkeypatch, "sbatch", "")
    assert str(tmp_path / "bin" / "sbatch") in only(slurm()).value

    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    assert "no scontrol" in only(slurm()).advice
    command(tmp_path, monkeypatch, "scontrol", "")
    assert only(slurm()) == Check("slurm", "ok", "in job 17 (train)")
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")
    check = only(slurm())
    assert check.status == "warn"
    assert "--job-name" in check.advice
