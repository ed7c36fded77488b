"""`res2net submit` and the batch scripts on a real cluster: training, seeds, an evaluation."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from res2net.cluster.submit import Allocation, batch_script, log_path, log_pattern
from res2net.errors import InputError
from runs import COMMAND
from schemas import fits

from .conftest import SBATCH_SCRIPT, WAITING, Cluster

pytestmark = pytest.mark.cluster

NAME = "a b#c%j'd"  # what a name may hold and a script would take for something else
QUICK = ("quickstart", "trainer.max_epochs=1", "data.global_batch_size=64")
CPUS = ("--gpus", "0", "--cpus", "1", "--json")


def submit(cluster: Cluster, folder: Path, *arguments: str) -> dict:
    done = subprocess.run(
        [COMMAND, "submit", *QUICK, "logging.wandb=disabled", *CPUS, *arguments],
        cwd=folder,
        # which would be taken for the job's
        env={**cluster.environment, "VENV": "/nowhere", "SBATCH_JOB_NAME": "bash"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return fits("submit", done.stdout)


def end(cluster: Cluster, job: str, log: Path) -> str:
    """Wait until a job has done its work; returns what it printed."""
    deadline = time.monotonic() + 100
    while (described := cluster.describe(job))["JobState"] in WAITING:  # type: ignore[arg-type]
        assert time.monotonic() < deadline, described
        time.sleep(0.2)
    printed = log.read_text()
    assert (described["JobState"], described["ExitCode"]) == ("COMPLETED", "0:0"), printed
    return printed


def test_a_training_two_seeds_and_an_evaluation(cluster: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "of a user"
    folder.mkdir()
    one = submit(cluster, folder, f"run.name={NAME}", "--tasks", "2")
    two = submit(cluster, folder, "run.name=seeds", "--no-check", "--array", "0-1")
    assert one["rehearsal"]["devices"] == 2
    assert two["rehearsal"] is None

    log = Path(one["log"])
    assert log.parent == folder / "checkpoints/slurm"
    assert end(cluster, one["job"], log).count("epoch 1/1") == 1
    described = cluster.describe(int(one["job"]))
    assert (described["Requeue"], described["NumTasks"]) == ("1", "2")
    run = folder / "checkpoints" / NAME
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert len(torch.load(run / "last.ckpt", weights_only=True)["ranks"]) == 2

    script = SBATCH_SCRIPT.with_name("test.sbatch")
    options = ("--ntasks-per-node=2", "--cpus-per-task=1", "--output=tested")
    number = cluster.call(
        "sbatch", "--parsable", *options, str(script), str(run), "--json", cwd=folder
    )
    result = json.loads(end(cluster, number, folder / "tested").splitlines()[-1])
    assert (result["images"], result["top1"]) == (360, summary["val/top1"])

    seeds = []
    for task in range(2):
        end(cluster, f"{two['job']}_{task}", Path(two["log"].replace("%a", str(task))))
        checkpoint = torch.load(folder / f"checkpoints/seeds-{task}/last.ckpt", weights_only=True)
        seeds.append(checkpoint["res2net"]["config"]["run"]["seed"])
    assert seeds == [0, 1]


VALUES = (
    *(
        "a b",
        "a#b",
        "#",
        "a\\b",
        "\\",
        "a'b",
        "'",
        'a"b',
        '"',
        "\\\\'\"#",
        "a%jb%%x%A",
        "%",
        "-x",
        "--wrap=x",
    ),
    *(
        "$(touch X)",
        "`touch X`",
        "a;touch X",
        "~",
        "*",
        "!!",
        ":",
        "a=b,c",
        "é日本",
        "a\u00a0b",
        "packjob",
    ),
    *("hetjob", "#SBATCH --nodes=9", "x" * 900, " a ", "a  b", "${IFS}", "&& touch X", "<(x)"),
)


def test_sbatch_reads_what_went_in(cluster: Cluster, tmp_path: Path) -> None:
    """The real sbatch, with values that mean something to it, to SLURM's patterns or to a shell."""
    jobs = {}
    for number, value in enumerate(VALUES):
        place = tmp_path / f"{number}{value[:200]}"
        folder = place / "out"
        folder.mkdir(parents=True)
        allocation = Allocation(value, gpus=0, cpus=1, more=(f"comment={value}", "hold"))
        options = {"chdir": str(place), **allocation.options()}
        if "\\" in value:
            with pytest.raises(InputError, match="backslash"):
                log_pattern(folder, value[:200], array=False)
            with pytest.raises(InputError, match="backslash"):
                log_pattern(place, "x", array=False)
            options["output"] = "/dev/null"
        else:
            options["output"] = log_pattern(folder, value[:200], array=False)
        text = batch_script(options, ["quickstart"], environment=sys.prefix)
        # not the training: where it is, what it is called
        script, shell = tmp_path / f"{number}.sbatch", "pwd; printf '%s\\n' \"$SLURM_JOB_NAME\""
        script.write_text(text.split("\nset -euo pipefail\n")[0] + f"\n{shell}\n")
        jobs[value] = cluster.call("sbatch", "--parsable", str(script), cwd=tmp_path), options
    for value, (job, _) in jobs.items():
        shown = cluster.call("scontrol", "show", "job", job)
        assert f" JobName={value}\n" in f"{shown}\n", shown
        assert f"   Comment={value} \n" in f"{shown}\n", shown
        assert "NumNodes=1" in shown and "NumTasks=1" in shown
    for job, _ in jobs.values():
        cluster.call("scontrol", "release", job)
    for value, (job, options) in jobs.items():
        ended = cluster.wait(int(job), seconds=60, read=False)
        assert ended.state == "COMPLETED", ended
        if "\\" not in value:
            log = Path(log_path(options["output"], job))
            assert log.read_text() == f"{options['chdir']}\n{value}\n"
    assert not list(tmp_path.rglob("X"))
