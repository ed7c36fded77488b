"""`metrics.csv`: one row a value, `step,epoch,split,key,value`, on disk as soon as it is known.

Lightning's CSVLogger deletes the file on resume; this one cuts it at the place where the
checkpoint was written, so that a run killed and resumed has the rows of one never killed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from res2net.files.runs import is_rank_zero

HEADER = "step,epoch,split,key,value\n"


class MetricsCSV(Logger):
    """Appends rows; `train/loss` is written as split `train`, key `loss`."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def start(self) -> None:
        """Begin an empty file."""
        self.path.write_text(HEADER)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values = dict(metrics)
        epoch = int(values.pop("epoch"))
        rows = []
        for name, value in values.items():
            split, _, key = name.partition("/")
            rows.append(f"{step},{epoch},{split},{key},{value!r}\n")
        with self.path.open("a") as file:
            file.write("".join(rows))

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The run's `config.yaml` holds them."""

    def resume_state(self) -> dict[str, Any]:
        """The file's length in bytes, which it has on the disk when this returns."""
        if not is_rank_zero():
            return {}
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
            return {"bytes": file.seek(0, os.SEEK_END)}

    def load_resume_state(self, states: Sequence[dict[str, Any]], rank: int | None) -> None:
        """Cut what was written after the checkpoint."""
        if not is_rank_zero():
            return
        if not self.path.exists():  # resumed from another run's checkpoint into a new directory
            self.start()
        elif self.path.stat().st_size > states[0]["bytes"]:
            os.truncate(self.path, states[0]["bytes"])
