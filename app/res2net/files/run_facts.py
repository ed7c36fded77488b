"""What a run came to and how it was set, from the plain files that it leaves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from res2net.errors import InputError
from res2net.files.metrics import Metrics, read_metrics
from res2net.files.runs import RunDirectory

_OF_THE_PLACE = ("run.name", "run.dir", "run.resume")
_OF_THE_LOSS = ("loss.", "augment.mix", "augment.cutmix")


@dataclass(frozen=True)
class RunFacts:
    """One run, finished or not."""

    path: Path
    settings: dict[str, Any]
    """Full key -> value, as in `config.yaml`."""
    summary: dict[str, Any]
    """Empty before there is one."""
    metrics: Metrics

    def row(self) -> dict[str, Any]:
        """Figures by name; None for what is not known (yet). Accuracies are fractions 0..1."""
        best = self.summary.get("best") or {}
        model = self.settings.get("model.name")
        max_epochs = self.settings.get("trainer.max_epochs")
        speeds = [speed for _, speed in self.metrics.curves["train", "images_per_second"]]
        averaged = self.metrics.curves["val_ema", "top1"]
        epochs = len(self.metrics.curves["val", "top1"])
        return {
            "run": str(self.path),
            "status": self.summary.get("status"),
            "model": model if isinstance(model, str) else None,
            "parameters": self.summary.get("parameters"),
            "epochs": epochs,
            "max_epochs": max_epochs if isinstance(max_epochs, int) else None,
            "top1": self.summary.get("val/top1"),
            "top5": self.summary.get("val/top5"),
            "ema_top1": averaged[-1][1] if averaged else None,
            "loss": self.summary.get("val/loss"),
            "best_top1": best.get("val/top1"),
            "best_epoch": None if best.get("epoch") is None else best["epoch"] + 1,
            "images_per_second": median(speeds) if speeds else None,
            "wall_seconds": self.summary.get("wall_seconds"),
        }


def read_run(path: Path) -> RunFacts:
    """Read the run directory `path`.

    Raises:
        InputError: it is none, or one of its files cannot be read.
    """
    run = RunDirectory(path)
    if not run.is_run():
        what = "holds no config.yaml" if path.is_dir() else "is no directory"
        raise InputError(f"{path}: not a run: {what}; expected checkpoints/<run.name>")
    try:
        settings = {
            f"{group}.{leaf}": value
            for group, leaves in run.read_config().items()
            for leaf, value in leaves.items()
        }
        summary = run.read_summary()
        metrics = read_metrics(run.metrics)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: a file of this run cannot be read: {reason}") from error
    return RunFacts(path, settings, summary, metrics)


def differing(runs: Sequence[RunFacts]) -> dict[str, list[Any]]:
    """Full key -> its value in each run, of the settings that are not the same in all.

    None where a run, of an older version, does not have the key. Names and places do not count.
    """
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    values = {key: [run.settings.get(key) for run in runs] for key in keys}
    return {
        key: found
        for key, found in values.items()
        if key not in _OF_THE_PLACE and any(value != found[0] for value in found)
    }


def of_the_loss(keys: Iterable[str]) -> list[str]:
    """Those of the settings that say what is minimised: the function or its targets."""
    return [key for key in keys if key.startswith(_OF_THE_LOSS)]
