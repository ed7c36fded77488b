"""A real SLURM cluster of two virtual nodes on this machine, for the tests of this folder."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SBATCH_SCRIPT = HERE.parents[1] / "slurm" / "train.sbatch"
WAITING = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING")


@dataclass(frozen=True)
class Job:
    """A job that has ended."""

    number: int
    state: str
    """SLURM's word: COMPLETED, FAILED, CANCELLED, ..."""
    exit_code: int
    seconds: float
    """Time it ran."""
    output: str
    """What it printed, on stdout and stderr."""


@dataclass(frozen=True)
class Cluster:
    """SLURM's commands, pointed at the cluster of the tests."""

    environment: Mapping[str, str]
    folder: Path
    """State of its daemons."""

    def call(self, *command: str, cwd: Path | None = None) -> str:
        """Run a command of SLURM's and return what it prints."""
        done = subprocess.run(
            command, env=self.environment, cwd=cwd, capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout.strip()

    def submit(self, folder: Path, *options: str, arguments: list[str]) -> int:
        """Submit slurm/train.sbatch in `folder`; returns the job's number."""
        command = ["sbatch", "--parsable", *options, str(SBATCH_SCRIPT), *arguments]
        return int(self.call(*command, cwd=folder))

    def submit_command(self, folder: Path, *options: str, command: str) -> int:
        """Submit one command, which srun starts once for each task; returns the job's number."""
        wrap = f'--wrap=. "$VENV/bin/activate"; exec srun {command}'
        return int(self.call("sbatch", "--parsable", *options, wrap, cwd=folder))

    def describe(self, number: int) -> dict[str, str]:
        """What SLURM knows of a job: JobState, ExitCode, StdOut, NodeList, Restarts, ..."""
        shown = self.call("scontrol", "--oneliner", "show", "job", str(number))
        return dict(re.findall(r"(\w[\w:/]*)=(\S*)", shown))

    def processes(self, job: int) -> dict[int, dict[str, str]]:
        """Process ids of a running job's tasks and batch scripts, with their environments."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                variables = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            environment = dict(line.split("=", 1) for line in variables if "=" in line)
            if environment.get("SLURM_JOB_ID") == str(job):
                found[int(entry.name)] = environment
        return found

    def lose_node(self, node: str, job: int) -> None:
        """As by a power cut: the node's daemon and all of a job, the only one on it."""
        daemons = [int((self.folder / f"slurmd-{node}.pid").read_text())]
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (entry / "cmdline").read_bytes().startswith(f"slurmstepd: [{job}.".encode()):
                    daemons.append(int(entry.name))
        for process in (*daemons, *self.processes(job)):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def start_node(self, node: str) -> None:
        """Again, after `lose_node`."""
        subprocess.run([HERE / "cluster-node.sh", self.folder, node], check=True, timeout=30)
        deadline = time.monotonic() + 30
        while self.call("sinfo", "--noheader", f"--nodes={node}", "--format=%T") != "idle":
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def wait(self, number: int, *, seconds: float, read: bool = True) -> Job:
        """Until a job has ended. A job that is still there after `seconds` is cancelled: fails.

        `read`: what it printed; not where SLURM tells another name of that file than it has.
        """
        start = time.monotonic()
        while (job := self.describe(number))["JobState"] in WAITING:
            if time.monotonic() - start > seconds:
                self.call("scancel", str(number))
                printed = Path(job["StdOut"])
                tail = printed.read_text()[-3000:] if printed.exists() else "(nothing)"
                pytest.fail(
                    f"job {number} is {job['JobState']} ({job['Reason']}) after {seconds} s; "
                    f"it printed:\n{tail}"
                )
            time.sleep(0.2)
        hours, minutes, rest = map(int, job["RunTime"].split(":"))
        return Job(
            number,
            job["JobState"],
            int(job["ExitCode"].split(":")[0]),
            3600 * hours + 60 * minutes + rest,
            Path(job["StdOut"]).read_text() if read else "",
        )


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Started once for all tests, and stopped by its process ids whatever happens."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    missing = [name for name in ("slurmctld", "slurmd", "sbatch", "munged") if not _has(name, path)]
    if missing:
        pytest.fail(
            f"{', '.join(missing)}: not installed. These tests run a real SLURM cluster on this "
            "machine; on Debian and Ubuntu: "
            "apt-get install --no-install-recommends slurm-wlm munge"
        )
    folder = tmp_path_factory.mktemp("slurm") / "cluster"
    started = _script("cluster-start.sh", folder)
    if started.returncode:
        pytest.fail(started.stderr)
    lines = (folder / "environment").read_text().splitlines()
    # Nothing of a job in which the tests themselves may run; the batch script activates VENV.
    foreign = ("SLURM_", "SBATCH_", "SRUN_", "MASTER_", "OMP_", "RANK", "LOCAL_", "WORLD_SIZE")
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(foreign)},
        **dict(line.split("=", 1) for line in lines),
        "VENV": sys.prefix,
    }
    try:
        yield Cluster(environment, folder)
    finally:
        stopped = _script("cluster-stop.sh", folder)
    assert stopped.returncode == 0 and not stopped.stderr, stopped.stderr


def _script(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(HERE / name), str(folder)], capture_output=True, text=True, timeout=120
    )


def _has(command: str, path: str) -> bool:
    return shutil.which(command, path=path) is not None
