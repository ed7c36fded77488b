"""Graphics cards: the driver, PyTorch's view of them, NCCL."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from collections.abc import Iterator

from res2net.cluster.doctor.check import Check, good_or_warn, one_line

GIB = 2**30


def driver() -> Iterator[Check]:
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
    yield good_or_warn(answer.returncode == 0, "driver", one_line(", ".join(lines)), advice)


def cuda() -> Iterator[Check]:
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0 and shutil.which("nvidia-smi") is None:
        yield Check("cuda", "ok", "no device: training runs on the CPU")
    elif count == 0:
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA at all"
        reasons = "; ".join(one_line(warning.message) for warning in caught)
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
                f"{value}: {one_line(error)}",
                "install a PyTorch built for this device, or hide it by CUDA_VISIBLE_DEVICES",
            )
        else:
            yield Check(f"cuda:{number}", "ok", value)


def nccl() -> Iterator[Check]:
    """What GPUs talk to each other by."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_nccl_available():
        yield Check("nccl", "ok", ".".join(map(str, torch.cuda.nccl.version())))
    else:
        advice = "several GPUs train together by NCCL: install PyTorch's CUDA build for Linux"
        value = "not in this PyTorch"
        yield good_or_warn(not torch.cuda.is_available(), "nccl", value, advice)
