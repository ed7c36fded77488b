"""What this machine offers to training, tried out rather than looked up, and what is missing."""

from __future__ import annotations

import importlib
import netrc
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from res2net.files.atomic import atomic_write

if TYPE_CHECKING:
    from packaging.requirements import Requirement

DISTRIBUTION = "res2net-lightning"
GIB = 2**30
LITTLE_MEMORY = 4 * GIB
LITTLE_DISK = 5 * GIB
"""A run of res2net50 keeps four checkpoints of 200 MB, and W&B its own files."""

# The modules whose names are not their distributions'.
_MODULES = {"nvidia-dali-cuda130": "nvidia.dali", "pillow": "PIL", "pyyaml": "yaml"}


@dataclass(frozen=True)
class Check:
    """One finding."""

    name: str
    status: Literal["ok", "warn", "fail"]
    """`warn`: training works, but not as well as it might; `fail`: it does not."""
    value: str
    """What was found, in one line."""
    advice: str = ""
    """What to do; empty if the status is ok."""


def examine(runs: str | os.PathLike[str] = "checkpoints") -> Iterator[Check]:
    """Look at everything, in the order in which one thing needs another. Raises nothing.

    A check that fails on the way says so as its own finding, and the others go on.

    Args:
        runs: The folder that runs are written to; it is not created.
    """
    install = "install the project and its requirements: pip install -e ."
    steps: list[tuple[str, Callable[[], Iterable[Check]], str]] = [
        ("res2net", _res2net, install),
        ("packages", _packages, install),
        ("driver", _driver, "mend the NVIDIA driver: nvidia-smi does not answer"),
        ("cuda", _cuda, "mend PyTorch first"),
        ("cores", _cores, "set data.workers by hand"),
        ("memory", _memory, "look at the free memory by hand"),
        ("disk", lambda: _disk(Path(runs)), "write runs elsewhere: run.dir=PATH"),
        ("decode on the cpu", lambda: _decode(None), "mend nvidia-dali first: training needs it"),
        ("decode on the gpu", _decode_on_gpu, "CUDA 13 needs NVIDIA's driver 580 or newer"),
        ("wandb login", _wandb_login, "set WANDB_API_KEY"),
        ("slurm", _slurm, "look at the SLURM_* variables of this job"),
    ]
    for name, step, advice in steps:
        try:
            yield from step()
        # Broken installations fail in any way they can: that is what is looked for here.
        except Exception as error:
            yield Check(name, "fail", _one_line(error), advice)


def _res2net() -> Iterator[Check]:
    yield Check("res2net", "ok", metadata.version(DISTRIBUTION))
    yield Check("python", "ok", f"{platform.python_version()} ({sys.executable})")


def _packages() -> Iterator[Check]:
    from packaging.requirements import Requirement

    for line in metadata.requires(DISTRIBUTION) or ():
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        yield _package(requirement)
    if sys.platform != "linux":
        yield Check(
            "system",
            "warn",
            platform.system(),
            "training needs Linux or WSL2; predicting and converting work here",
        )


def _package(requirement: Requirement) -> Check:
    name = requirement.name
    wanted = f"{name}{requirement.specifier}"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(name, "fail", "not installed", f"pip install '{wanted}'")
    if not requirement.specifier.contains(version, prereleases=True):
        return Check(name, "fail", f"{version} is too old", f"pip install '{wanted}'")
    try:
        importlib.import_module(_MODULES.get(name, name))
    # Libraries that do not match raise ImportError, OSError, RuntimeError, AttributeError.
    except Exception as error:
        broken = f"{version} cannot be imported: {_one_line(error)}"
        return Check(name, "fail", broken, f"pip install --force-reinstall '{wanted}'")
    return Check(name, "ok", version)


def _driver() -> Iterator[Check]:
    if shutil.which("nvidia-smi") is None:
        yield Check("driver", "ok", "no nvidia-smi, so no NVIDIA driver")
        return
    answer = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    lines = dict.fromkeys((answer.stdout or answer.stderr).splitlines())  # one a device
    advice = "without a driver training runs on the CPU"
    yield _good_or_warn(answer.returncode == 0, "driver", _one_line(", ".join(lines)), advice)


def _cuda() -> Iterator[Check]:
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0 and shutil.which("nvidia-smi") is None:
        yield Check("cuda", "ok", "no device: training runs on the CPU")
    elif count == 0:
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA at all"
        reasons = "; ".join(_one_line(warning.message) for warning in caught)
        yield Check(
            "cuda",
            "warn",
            f"PyTorch ({built}) finds no device it can use; {reasons}".rstrip("; "),
            "training runs on the CPU; look at CUDA_VISIBLE_DEVICES and at the driver's version",
        )
    for number in range(count):
        name = torch.cuda.get_device_name(number)
        memory = torch.cuda.get_device_properties(number).total_memory
        value = f"{name}, {memory / GIB:.0f} GiB"
        try:  # a device for which PyTorch has no kernels, or which is taken, is listed as well
            torch.zeros(8, device=f"cuda:{number}").add_(1).sum().item()
        except RuntimeError as error:
            yield Check(
                f"cuda:{number}",
                "fail",
                f"{value}: {_one_line(error)}",
                "install a PyTorch built for this device, or hide it by CUDA_VISIBLE_DEVICES",
            )
        else:
            yield Check(f"cuda:{number}", "ok", value)


def _cores() -> Iterator[Check]:
    present = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else present
    value = f"{usable} of {present} may be used"
    advice = "decoding will be slow; in SLURM ask for more --cpus-per-task"
    yield _good_or_warn(usable > 1 or present == 1, "cores", value, advice)


def _memory() -> Iterator[Check]:
    if not Path("/proc/meminfo").is_file():
        yield Check("memory", "ok", "not known on this system")
        return
    bytes_of = _numbers("/proc/meminfo", unit=1024)
    free, total = bytes_of["MemAvailable:"], bytes_of["MemTotal:"]
    limit = Path("/sys/fs/cgroup/memory.max")  # a container's
    if limit.is_file() and (allowed := limit.read_text().strip()) != "max":
        used = int(limit.with_name("memory.current").read_text())
        used -= _numbers("/sys/fs/cgroup/memory.stat")["inactive_file"]  # given back on demand
        free, total = min(free, int(allowed) - used), min(total, int(allowed))
    value = f"{free / GIB:.1f} of {total / GIB:.1f} GiB free"
    advice = "a smaller data.global_batch_size needs less"
    yield _good_or_warn(free >= LITTLE_MEMORY, "memory", value, advice)


def _numbers(file: str, unit: int = 1) -> dict[str, int]:
    """Lines of a name and a number."""
    lines = (line.split() for line in Path(file).read_text().splitlines())
    return {words[0]: int(words[1]) * unit for words in lines}


def _disk(runs: Path) -> Iterator[Check]:
    folder = runs.absolute()
    while not folder.exists():
        folder = folder.parent
    probe = folder / f".doctor-{os.getpid()}"
    try:
        with atomic_write(probe) as file:
            file.write(bytes(2**20))
        probe.unlink()
    except OSError as error:
        yield Check(
            "disk",
            "fail",
            f"{folder} cannot be written: {error.strerror or error}",
            "get access or make room, or write runs elsewhere: run.dir=PATH",
        )
        return
    free = shutil.disk_usage(folder).free
    value = f"{free / GIB:.1f} GiB free in {folder}, writing works"
    advice = "make room, or write runs elsewhere: run.dir=PATH"
    yield _good_or_warn(free >= LITTLE_DISK, "disk", value, advice)


def _decode(device_id: int | None) -> Iterator[Check]:
    """Read one generated JPEG the way training does: file, decoder, resize, crop, iterator."""
    from PIL import Image

    from res2net.data.dali.stream import Stream
    from res2net.data.order import EvalOrder
    from res2net.data.sources.folder import FolderSource
    from res2net.preprocessing import Preprocessing

    name = "decode on the cpu" if device_id is None else "decode on the gpu"
    colour = (200, 120, 40)
    with tempfile.TemporaryDirectory() as folder:
        Image.new("RGB", (96, 64), colour).save(Path(folder) / "image.jpg", quality=95)
        stream = Stream(
            FolderSource.of_files(folder, ["class"], {"class": ["image.jpg"]}),
            EvalOrder(count=1, batch_size=1),
            preprocessing=Preprocessing(image_size=32),
            threads=1,
            device_id=device_id,
        )
        images, _ = next(stream)  # uint8 (1, 3, 32, 32)
    found = images.float().mean(dim=(0, 2, 3)).tolist()
    if max(abs(a - b) for a, b in zip(found, colour, strict=True)) > 4:
        wrong = f"wrong pixels: {[round(value) for value in found]} instead of {list(colour)}"
        yield Check(name, "fail", wrong, "reinstall nvidia-dali-cuda130; on a GPU, the driver")
    else:
        yield Check(name, "ok", "a JPEG, by DALI")


def _decode_on_gpu() -> Iterator[Check]:
    import torch

    if torch.cuda.is_available():
        yield from _decode(0)


def _wandb_login() -> Iterator[Check]:
    # Where W&B itself looks; only whether there is something, never what.
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc
    file = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    by = "WANDB_API_KEY" if os.environ.get("WANDB_API_KEY") else ""
    try:
        if not by and file.is_file() and netrc.netrc(file).authenticators(host):
            by = str(file)
        value = f"{host}, by {by}" if by else f"not logged in to {host}"
    except (netrc.NetrcParseError, OSError):  # the message may quote a password
        value = f"not logged in to {host}: {file} is malformed or cannot be read"
    advice = "runs are logged offline; `wandb login` sends them"
    yield _good_or_warn(bool(by), "wandb login", value, advice)


def _slurm() -> Iterator[Check]:
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        yield Check("slurm", "ok", f"not in a job; {shutil.which('sbatch') or 'no sbatch'}")
        return
    name = os.environ.get("SLURM_JOB_NAME", "")
    value = f"in job {job} ({name})"
    if name in ("bash", "interactive"):
        yield Check(
            "slurm",
            "warn",
            value,
            "Lightning ignores SLURM in a job of this name, so that each task would train alone: "
            "choose another --job-name",
        )
    else:
        advice = "no scontrol on PATH: a stopped run cannot requeue itself"
        yield _good_or_warn(shutil.which("scontrol") is not None, "slurm", value, advice)


def _good_or_warn(good: bool, name: str, value: str, advice: str) -> Check:
    return Check(name, "ok", value) if good else Check(name, "warn", value, advice)


def _one_line(error: object) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 300 else f"{words[:297]}..."
