"""`metrics.csv`: one row a value, `step,epoch,split,key,value`, on disk as soon as it is known.

Lightning's CSVLogger deletes the file on resume; this one cuts it at the place where the
checkpoint was written, so that a run killed and resumed has the rows of one never killed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from res2net.errors import WorkError
from res2net.files.append import AppendedFile
from res2net.files.runs import is_rank_zero, say

HEADER = "step,epoch,split,key,value\n"


class MetricsCSV(Logger):
    """Appends rows; `train/loss` is written as split `train`, key `loss`.

    Rows that the disk does not take wait in memory, and go into checkpoints.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._file = AppendedFile(path)

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def start(self) -> None:
        """Begin an empty file."""
        self._file.append(HEADER.encode(), keep=0)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values = dict(metrics)
        epoch = int(values.pop("epoch"))
        rows = []
        for name, value in values.items():
            split, _, key = name.partition("/")
            rows.append(f"{step},{epoch},{split},{key},{value!r}\n")
        self._file.append("".join(rows).encode())

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The run's `config.yaml` holds them."""

    @rank_zero_only
    def complete(self) -> None:
        """Call it when the run has ended. Raises WorkError where rows do not get to the disk."""
        self._file.sync()
        if rows := self._file.pending.count(b"\n"):
            raise WorkError(
                f"{self.path} lacks {rows} rows, which the disk does not take; what was saved is "
                "kept: make room and finish the run with run.resume=auto"
            )

    def resume_state(self) -> dict[str, Any]:
        """The file's length, in bytes, which it has on the disk when this returns, and the rows
        that belong behind it, if the disk did not take them."""
        if not is_rank_zero():
            return {}
        self._file.sync()
        return {"bytes": self._file.length, "pending": self._file.pending.decode()}

    def load_resume_state(self, states: Sequence[dict[str, Any]], rank: int | None) -> None:
        """Cut what was written after the checkpoint; write what it kept."""
        if not is_rank_zero():
            return
        length, pending = states[0]["bytes"], states[0].get("pending", "")
        if self.path.exists() and self.path.stat().st_size < length:
            damaged = self.path.with_name("metrics.damaged.csv")
            self.path.replace(damaged)
            say(f"{self.path} lacks rows: kept as {damaged.name}, and begun anew")
            self.start()
        elif self.path.exists() or pending.startswith(HEADER):
            self._file.append(pending.encode(), keep=length)
        else:  # resumed from another run's checkpoint into a new directory
            self.start()
