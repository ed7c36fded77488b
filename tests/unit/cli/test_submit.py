"""`res2net submit`: what it refuses, what it shows, what it hands to sbatch."""

import json
import os
import sys
from pathlib import Path

import pytest

from res2net.cli.main import main
from res2net.training.rehearsal import dry_run as rehearsal
from schemas import fits


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where sbatch is on PATH; it writes down what it was given."""
    for name in os.environ:
        if name.startswith(("SLURM_", "SBATCH_", "RANK", "LOCAL_RANK", "WORLD_SIZE")):
            monkeypatch.delenv(name)
    sbatch = tmp_path / "bin/sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/called\necho 42\n')
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sbatch.parent}:{os.environ['PATH']}")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["submit", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert not list(Path().iterdir())
    assert not Path("../called").exists()
    return captured.err.splitlines()[-1]


def test_submitted(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["quickstart", "run.name=x", "--no-check", "--gpus", "2", "--nodes", "3"]
    assert main(["submit", *arguments]) == 0
    script = Path("checkpoints/slurm/x.sbatch")
    log = place / "checkpoints/slurm/x-42.out"
    assert capsys.readouterr().out.splitlines() == [
        f"script       {script}",
        f"log          {log}",
        "submitted    job 42",
    ]
    assert Path("../called").read_text() == f"--parsable {script}\n"
    text = script.read_text()
    for line in (
        "--job-name=x",
        "--nodes=3",
        "--gpus-per-node=2",
        "--ntasks-per-node=2",
        f"--chdir={place}",
        f"--output={place}/checkpoints/slurm/x-%j.out",
    ):
        assert f"\n#SBATCH {line}\n" in text
    assert f"\nVENV={sys.prefix}\n" in text
    assert "\n(($#)) || set -- quickstart run.name=x\n" in text

    assert main(["submit", *arguments, "--json"]) == 0
    result = fits("submit", capsys.readouterr().out)
    assert result["script"] == str(script)  # the same again
    assert (result["job"], result["log"], result["rehearsal"]) == ("42", str(log), None)
    assert main(["submit", *arguments, "--time", "1:00:00", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["script"] == "checkpoints/slurm/x-2.sbatch"


def test_a_dry_run_writes_and_calls_nothing(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin" if not Path("/usr/bin/sbatch").exists() else "/bin0")
    arguments = ["submit", "quickstart", "--dry-run", "--no-check", "--gpus", "0", "--tasks", "2"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("would write checkpoints/slurm/quickstart.sbatch:\n")
    assert "\n#SBATCH --ntasks-per-node=2\n" in shown
    assert "\n#SBATCH --gpus-per-node" not in shown
    assert shown.endswith("and call: sbatch --parsable checkpoints/slurm/quickstart.sbatch\n")
    assert main([*arguments, "--array", "0-4", "--json"]) == 0
    result = fits("submit", capsys.readouterr().out)
    assert result["job"] is None
    assert "\n#SBATCH --array=0-4\n" in result["text"]
    assert result["log"] == f"{place}/checkpoints/slurm/quickstart-JOB_%a.out"
    assert not list(place.iterdir())
    assert not Path("../called").exists()

    assert "sbatch: not on PATH" in refusal(capsys, "quickstart", "--no-check")


def test_the_training_is_tried_for_the_processes_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Tried:
        def lines(self) -> list[str]:
            return ["tried"]

    def dry_run(config, *, devices, num_nodes):  # type: ignore[no-untyped-def]
        trainer = config.trainer
        asked.append((devices, num_nodes, trainer.accelerator, trainer.precision))
        assert config.run.resume == "auto"
        return Tried()

    monkeypatch.setattr(rehearsal, "dry_run", dry_run)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    settings = ["trainer.accelerator=cuda", "trainer.precision=16-mixed"]
    assert main(["submit", "quickstart", "--gpus", "4", "--nodes", "2", *settings]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0] == "tried"
    assert "trainer.precision=16-mixed" in Path("checkpoints/slurm/quickstart.sbatch").read_text()
    cpus = ["--gpus", "0", "--tasks", "2", "trainer.accelerator=cpu"]
    assert main(["submit", "quickstart", *cpus]) == 0
    # a login node has no GPU: there it is tried on its CPU
    assert asked == [(4, 2, "auto", "bf16-mixed"), (2, 1, "cpu", "32-true")]


def test_what_the_trial_finds_is_not_submitted(capsys: pytest.CaptureFixture[str]) -> None:
    told = refusal(capsys, "quickstart", "--gpus", "0", "--tasks", "7")
    assert "data.global_batch_size=" in told and "7 devices x 1 nodes" in told


def test_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, expected in (
        (["quickstart", "optim.lrr=1"], "optim.lrr: no such key; did you mean optim.lr"),
        (["quickstart", "--tasks", "2"], "--tasks 2: there is one process for each GPU"),
        (["quickstart", "--gpus", "-1"], "'-1' is not an integer from "),
        (["quickstart", "trainer.accelerator=cpu"], "with --gpus 1 choose cuda or auto"),
        (["quickstart", "trainer.accelerator=cuda", "--gpus", "0"], "choose cpu or auto"),
        (["quickstart", "trainer.devices=2"], "trainer.devices=2: --gpus"),
        (["quickstart", "trainer.num_nodes=2", "--nodes", "3"], "trainer.num_nodes=2: --nodes"),
        (["quickstart", "--job-name", "bash"], "--job-name bash: means a shell"),
        (["quickstart", "--sbatch", "no such"], "--sbatch 'no such': expected NAME=VALUE"),
    ):
        assert expected in refusal(capsys, *arguments, "--no-check")


@pytest.mark.parametrize("sign", ["\n", "\x1b", "\u202e", "\udcff"])
def test_what_would_be_a_command_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, sign: str
) -> None:
    attack = f"gpu{sign}touch X{sign}:"
    for arguments in (
        *(["quickstart", option, attack] for option in ("--partition", "--account", "--time")),
        ["quickstart", "--array", f"0-4{sign}"],
        *(["quickstart", option, attack] for option in ("--job-name", "--sbatch")),
        ["quickstart", "--sbatch", f"qos={attack}"],
        *(["quickstart", f"{key}={attack}"] for key in ("run.name", "run.dir", "data.root")),
        ["quickstart", f"run.dir=a{sign}", f"run.name=b{sign}", "--job-name", "c"],
    ):
        told = refusal(capsys, *arguments, "--no-check")
        assert len(told) > 20 and told.isprintable(), told
    Path(f"c{sign}.yaml").touch()
    assert main(["submit", f"c{sign}", "run.name=x", "--no-check"]) == 2
    Path(f"c{sign}.yaml").unlink()
    elsewhere = place / f"of{sign}touch X{sign}"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for more in ([], ["--dry-run"]):
        assert main(["submit", "quickstart", "run.dir=/nowhere/x", "--no-check", *more]) == 2
        err = capsys.readouterr().err
        assert "the working directory '" in err and err.splitlines()[-1].isprintable()
    monkeypatch.chdir(place)
    elsewhere.rmdir()
    monkeypatch.setattr(sys, "prefix", f"/venv{sign}touch X")
    assert "the Python environment '/venv" in refusal(capsys, "quickstart", "--no-check")


def test_a_run_dir_is_no_option_of_sbatch(place: Path) -> None:
    arguments = ["run.dir=--wrap=touch X;#", "run.name=x", "--no-check"]
    assert main(["submit", "quickstart", *arguments]) == 0
    assert Path("../called").read_text() == "--parsable ./--wrap=touch X;#/slurm/x.sbatch\n"


def test_sbatch_refuses(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place.parent / "bin/sbatch").write_text("#!/bin/sh\necho no such partition >&2; exit 1\n")
    assert main(["submit", "quickstart", "--no-check", "--partition", "x"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(
        "error: sbatch refuses (exit code 1): no such partition; nothing"
    )
    assert Path("checkpoints/slurm/quickstart.sbatch").is_file()
