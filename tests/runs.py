"""Starting the command, and comparing what runs left behind: for tests of several rooms."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

COMMAND = str(Path(sys.executable).with_name("res2net"))
Run = Callable[..., subprocess.CompletedProcess[str]]


def clean_environment() -> dict[str, str]:
    """Of a process that no launcher started and that is logged in nowhere."""
    launcher = ("SLURM_", "LOCAL_", "RANK", "WORLD_SIZE", "MASTER_", "WANDB_", "NODE_RANK")
    return {k: v for k, v in os.environ.items() if not k.startswith(launcher)} | {
        "WANDB_MODE": "offline",
        "COLUMNS": "200",
    }


def differences(a: object, b: object, where: str = "") -> list[str]:
    """Places where two trees of tensors and plain values are not bit for bit the same."""
    import torch

    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [where]
    if isinstance(a, dict) and isinstance(b, dict):
        pairs = [(f"{where}.{key}", a.get(key), b.get(key)) for key in a.keys() | b.keys()]
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        pairs = [(f"{where}[{i}]", x, y) for i, (x, y) in enumerate(zip(a, b, strict=True))]
    else:
        return [] if a == b else [f"{where}: {a!r} {b!r}"]
    return [place for name, x, y in pairs for place in differences(x, y, name)]


def read_state(path: Path) -> dict:
    """A checkpoint without what says nothing of the state: the run's name, the log's length."""
    import torch

    state = torch.load(path, weights_only=True)
    del state["res2net"]
    for rank in state["ranks"]:
        del rank["metrics_csv"]  # rows hold timings
    return state


def rows(run: Path) -> list[str]:
    """metrics.csv without the timings."""
    lines = (run / "metrics.csv").read_text().splitlines()
    return [line for line in lines if "images_per_second" not in line]


def heartbeat_step(run: Path) -> int:
    heartbeat = run / "heartbeat"
    words = heartbeat.read_text().split() if heartbeat.exists() else []
    return int(words[1]) if len(words) > 1 else 0
