"""TensorBoard's files, in `tensorboard/` below the run directory.

Logs what the other callbacks log.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from res2net.errors import InputError
from res2net.files.append import AppendedFile
from res2net.files.runs import RunDirectory


class TensorBoard(L.Callback):
    """Adds TensorBoard's logger when training starts.

    Not before: only then is it known at which step. What an earlier leg of the run wrote after the
    checkpoint, as it was killed later, is hidden from there on.
    """

    def __init__(self, run: RunDirectory) -> None:
        """Raises InputError where the package that knows the files is missing; creates nothing."""
        check_installed()
        self.run = run

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            events = Events(self.run.path / "tensorboard", trainer.global_step)
            trainer.loggers = [*trainer.loggers, events]


def check_installed() -> None:
    """Raises InputError where the package that knows the files is missing."""
    if find_spec("tensorboard") is None:
        raise InputError(
            "logging.tensorboard=true: the package that writes its files is not installed; "
            "pip install res2net-lightning[tensorboard], or choose false"
        )


class Events(Logger):
    """One file of events, each on disk as soon as it is known.

    TensorBoard's own writer ends for good at the first write that fails, with a traceback from its
    thread and an error at a later event: here events wait for a disk that is full.

    Source: torch.utils.tensorboard writes the same events; the file is a TFRecord.
    """

    def __init__(self, folder: Path, done: int) -> None:
        """`done`: steps before the first that will be logged; 0 for a new run."""
        from tensorboard.compat.proto.event_pb2 import SessionLog

        super().__init__()
        # files are read in the order of their names
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = AppendedFile(folder / name)
        self._add(file_version="brain.Event:2")
        if done:  # events of that step and later, in other files, are hidden
            self._add(step=done + 1, session_log=SessionLog(status=SessionLog.START))

    @property
    def name(self) -> str:
        return "tensorboard"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=key, simple_value=value) for key, value in metrics.items()]
        self._add(step=step, summary=Summary(value=values))

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The run's `config.yaml` holds them."""

    def _add(self, **event: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = BytesIO()
        RecordWriter(record).write(Event(wall_time=time.time(), **event).SerializeToString())
        self._file.append(record.getvalue())
