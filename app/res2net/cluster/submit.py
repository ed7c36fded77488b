"""The shipped batch scripts, filled in for one training and handed to SLURM."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from res2net.errors import InputError, WorkError
from res2net.files.atomic import atomic_write_text

SHELLS = ("bash", "interactive")
"""Names of jobs by which Lightning takes the job for a shell."""
SECONDS = 120.0
"""For SLURM's answer."""

# Variables whose names are not those of the options; they would win over the script's lines.
_VARIABLES = {"time": "SBATCH_TIMELIMIT", "array": "SBATCH_ARRAY_INX"}
_LINE = re.compile(r"#+SBATCH --([a-z-]+)")
_START = "set -euo pipefail\n"


@dataclass(frozen=True)
class Allocation:
    """What to ask SLURM for; empty: what the script or the cluster says."""

    job_name: str
    nodes: int = 1
    tasks: int = 1
    """Per node."""
    gpus: int = 1
    """Per node; as many as tasks, or none."""
    cpus: int | None = None
    """Per task."""
    time: str = ""
    partition: str = ""
    account: str = ""
    array: str = ""
    more: tuple[str, ...] = ()
    """Other options of sbatch, as `qos=high` or `exclusive`; these win."""

    def options(self) -> dict[str, str]:
        """sbatch's options by name; of those that take no value the value is empty.

        Raises:
            InputError: a name that Lightning takes for a shell's, or no option of sbatch.
        """
        if self.job_name in SHELLS:
            raise InputError(
                f"--job-name {self.job_name}: means a shell to Lightning; choose another"
            )
        given = {
            "job-name": self.job_name,
            "nodes": str(self.nodes),
            "ntasks-per-node": str(self.tasks),
            "cpus-per-task": str(self.cpus or ""),
            "gpus-per-node": str(self.gpus or ""),
            "time": self.time,
            "partition": self.partition,
            "account": self.account,
            "array": self.array,
        }
        options = {name: value for name, value in given.items() if value}
        for option in self.more:
            name, _, value = option.lstrip("-").partition("=")
            if not re.fullmatch("[a-z][a-z-]+", name) or "\n" in value:
                raise InputError(f"--sbatch {option!r}: expected NAME=VALUE or NAME, as qos=high")
            options[name] = value
        return options


def batch_script(
    options: Mapping[str, str], arguments: Sequence[str], *, environment: str | os.PathLike[str]
) -> str:
    """The text of a script that runs `res2net train ARGUMENT ...` by itself.

    It is slurm/train.sbatch, with `array` among the options slurm/array.sbatch, with other #SBATCH
    lines and, before its first command, the arguments and the Python environment.
    """
    lines = _template("array" if "array" in options else "train").splitlines(keepends=True)
    left = dict(options)
    text, end = [], 0
    for line in lines:
        found = _LINE.match(line)
        if found and found[1] in left:
            line = _option_line(found[1], left.pop(found[1]))
        text.append(line)
        if line.startswith("#SBATCH"):
            end = len(text)
    text[end:end] = [_option_line(*option) for option in left.items()]
    start = text.index(_START) + 1
    text[start:start] = [
        f"VENV={shlex.quote(os.fspath(environment))}\n",
        f"(($#)) || set -- {shlex.join(arguments)}\n",
    ]
    return "".join(text)


def log_pattern(folder: Path, name: str, *, array: bool) -> str:
    """The option `output` for the run `name`: a new file for each job."""
    return f"{folder.absolute() / name}".replace("%", "%%") + ("-%A_%a.out" if array else "-%j.out")


def log_path(pattern: str, job: str) -> str:
    """Where the job writes; of an array `%a` stands for the number of the task."""
    path = re.sub("%[jA]", job, pattern.replace("%%", "\0"))
    return path.replace("\0", "%")


def find_sbatch() -> str:
    """Its path. Raises InputError where there is none."""
    found = shutil.which("sbatch")
    if found is None:
        raise InputError(
            "sbatch: not on PATH; submit from a machine of a SLURM cluster, or look at the script "
            "by --dry-run"
        )
    return found


def write_script(folder: Path, name: str, text: str) -> Path:
    """Write it as `<name>.sbatch`, with a number where another one has that name.

    Raises InputError where it cannot be written.
    """
    number = 1
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            path = folder / (f"{name}.sbatch" if number == 1 else f"{name}-{number}.sbatch")
            if not os.path.lexists(path):
                atomic_write_text(path, text)
                return path
            if path.read_bytes() == text.encode():
                return path
            number += 1
    except OSError as error:
        raise InputError(
            f"cannot write {folder}, where the script and the output belong ({error.strerror}): "
            "choose another run.dir"
        ) from error


def submit(command: Sequence[str], options: Mapping[str, str]) -> str:
    """Run sbatch; returns the job's id.

    Raises WorkError with sbatch's words where it refuses.
    """
    given = {_VARIABLES.get(name, f"SBATCH_{name.upper().replace('-', '_')}") for name in options}
    environment = {name: value for name, value in os.environ.items() if name not in given}
    kept = f"nothing was submitted; the script is {command[-1]}"
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise WorkError(
            f"sbatch gave no answer for {SECONDS:.0f} s; see by squeue whether the job is there "
            f"before you try again; the script is {command[-1]}"
        ) from error
    except OSError as error:
        raise WorkError(f"{command[0]}: cannot be run ({error.strerror}); {kept}") from error
    job = done.stdout.strip().partition(";")[0]  # with several clusters: id;cluster
    if done.returncode or not job.isdecimal():
        words = " ".join((done.stderr or done.stdout).split())
        raise WorkError(f"sbatch refuses (exit code {done.returncode}): {words}; {kept}")
    return job


def _template(name: str) -> str:
    package = Path(__file__).resolve().parents[1]
    folder = package / "slurm"  # in the wheel
    if not folder.is_dir():
        folder = package.parents[1] / "slurm"  # in a checkout
    return (folder / f"{name}.sbatch").read_text("utf-8")


def _option_line(name: str, value: str) -> str:
    return f"#SBATCH --{name}{'=' if value else ''}{shlex.quote(value) if value else ''}\n"
