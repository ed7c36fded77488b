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
from res2net.files.atomic import atomic_write_text, new_folder
from res2net.files.names import LONGEST, shown

SHELLS = ("bash", "interactive")
"""Names of jobs by which Lightning takes the job for a shell."""
SECONDS = 120.0
"""For SLURM's answer."""

# Variables whose names are not those of the options; they would win over the script's lines.
_VARIABLES = {"time": "SBATCH_TIMELIMIT", "array": "SBATCH_ARRAY_INX"}
_LINE = re.compile(r"#+SBATCH --([a-z-]+)")
_RANGE = "[0-9]+(-[0-9]+(:[0-9]+)?)?"
_NAMES = r"[\w.@+:/-]+(,[\w.@+:/-]+)*"
_SHAPES = {
    "time": ("([0-9]+-)?[0-9]+(:[0-9]+){0,2}|(?i:infinite|unlimited)", "minutes or 24:00:00"),
    "array": (f"{_RANGE}(,{_RANGE})*(%[0-9]+)?", "0-4, 1,3,5 or 1-12%4"),
    "partition": (_NAMES, "a name, or names with commas between"),
    "account": (_NAMES, "a name"),
}
"""Option -> what sbatch takes, and how a message says so."""
_WHOSE = {"chdir": "the working directory", "output": "run.dir and run.name: the log"}
"""Options that nobody gave as such."""
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
            InputError: a name that Lightning takes for a shell's, no option of sbatch, or a value
                that it would not take.
        """
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
            if not re.fullmatch("[a-z][a-z-]{1,40}", name):
                raise InputError(
                    f"--sbatch '{shown(option)}': expected NAME=VALUE or NAME, as qos=high"
                )
            options[name] = value
        if options["job-name"] in SHELLS:
            raise InputError(
                f"--job-name {options['job-name']}: means a shell to Lightning; choose another"
            )
        for name, (shape, words) in _SHAPES.items():
            if (value := options.get(name, "")) and not re.fullmatch(shape, value):
                raise InputError(f"--{name} '{shown(value)}': expected {words}")
        return options


def batch_script(
    options: Mapping[str, str], arguments: Sequence[str], *, environment: str | os.PathLike[str]
) -> str:
    """The text of a script that runs `res2net train ARGUMENT ...` by itself.

    It is slurm/train.sbatch, with `array` among the options slurm/array.sbatch, with other #SBATCH
    lines and, before its first command, the arguments and the Python environment.

    All that comes from outside goes in here and is quoted here: for sbatch, whose lines have rules
    of their own, and for the shell.

    Raises:
        InputError: a value that no line of a script can hold as it is.
    """
    for name, value in options.items():
        _check_text(_WHOSE.get(name, f"--{name}"), value)
    for argument in arguments:
        _check_text("CONFIG key=value", argument)
    python = os.fspath(environment)
    _check_text("the Python environment", python)
    if ":" in python:
        raise InputError(f"the Python environment '{python}': a : in its path would part PATH")
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
        f"VENV={shlex.quote(python)}\n",
        f"(($#)) || set -- {shlex.join(arguments)}\n",
    ]
    return "".join(text)


def log_pattern(folder: Path, name: str, *, array: bool) -> str:
    """The option `output` for the run `name`: a new file for each job.

    Raises InputError for a path with a backslash, behind which SLURM fills in nothing.
    """
    path = str(folder.absolute() / name)
    if "\\" in path:
        raise InputError(
            f"'{shown(path)}': SLURM reads a backslash in the name of an output file as its own; "
            "choose another run.dir or another working directory"
        )
    return path.replace("%", "%%") + ("-%A_%a.out" if array else "-%j.out")


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
        with new_folder(folder):
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


def sbatch_command(sbatch: str, script: Path) -> list[str]:
    """What hands in a script; a path that begins with a dash stays a path."""
    return [sbatch, "--parsable", f"./{script}" if str(script).startswith("-") else str(script)]


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


def _check_text(what: str, value: str) -> None:
    """Raises InputError, naming the value, for what no line of a script holds as it is.

    Neither for a reader, nor for a shell: what is seen in the script is what is run.
    """
    if shown(value) != value:
        raise InputError(
            f"{what} '{shown(value, longest=200)}': a batch script takes no control or invisible "
            f"characters, nor bytes that are no UTF-8, nor more than {LONGEST:,} characters"
        )


def _option_line(name: str, value: str) -> str:
    """As sbatch reads it: a backslash takes the next sign as it is, also within quotes."""
    if re.search(r"[^\w@%+=:,./-]", value, re.ASCII):
        value = '"' + re.sub(r'(["\\#])', r"\\\1", value) + '"'
    return f"#SBATCH --{name}{'=' if value else ''}{value}\n"
