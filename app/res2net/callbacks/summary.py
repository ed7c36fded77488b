"""`summary.json`: what a run has come to, rewritten whenever its state is saved."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import lightning as L

from res2net.callbacks.accuracy import Accuracy
from res2net.errors import Stopped, WorkError
from res2net.files.atomic import atomic_write_json
from res2net.files.foreign import opened
from res2net.files.place import check
from res2net.files.runs import SCHEMA, RunDirectory
from res2net.files.trouble import Trouble, reason
from res2net.stopping import EndedEarly

PACKAGES = ("res2net-lightning", "torch", "torchvision", "lightning", "nvidia-dali-cuda130")


class Summary(L.Callback):
    """Counts what was really done, over all starts of a run, on rank 0.

    `steps` are those of the state, `steps_executed` also those that a kill undid: the heartbeat
    file keeps their number at every step. `val/...` and `val_ema/...` are of the last epoch, `best`
    is of the one with the best `val/top1`. `steps_per_epoch` is null until the first step;
    `slurm_job` is the number of the last job, empty outside SLURM.

    Where the disk does not take one of the two files the run goes on, and tries again when it is
    due the next time.
    """

    def __init__(
        self, run: RunDirectory, accuracies: Sequence[Accuracy], *, global_batch_size: int
    ) -> None:
        self.run = run
        self.accuracies = accuracies
        self.global_batch_size = global_batch_size
        self.best: Mapping[str, float] = {}
        self._started = time.monotonic()
        self._before: dict[str, Any] = {}
        self._results: dict[str, float | None] = {}
        """Of the last epoch before this start."""
        self._executed = 0
        self._steps_per_epoch: int | None = None
        self._running = False
        """Whether this process writes: rank 0, in a fit."""
        self._heartbeat: int | None = None
        self._heart_trouble = Trouble(run.heartbeat)
        self._trouble = Trouble(run.summary)

    def state_dict(self) -> dict[str, Any]:
        return {"results": self._latest()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._results = dict(state_dict["results"])

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        self._before = self.run.read_summary()
        self._executed = self._before.get("steps_executed") or 0
        if self.run.heartbeat.exists():
            # empty after a kill before the first step
            with opened(self.run.heartbeat) as file:
                executed = (file.read(12) or b"").strip()
            if executed.isdigit():
                self._executed = max(self._executed, int(executed))
        self._running = True
        with self._heart_trouble.attempt():
            self._open_heartbeat()
        restarts = (self._before.get("restarts") or 0) + 1 if self._before else 0
        self._before |= {"restarts": restarts, "wall": self._before.get("wall_seconds") or 0.0}
        self.write(trainer, "running")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._running:  # only now are the steps of the state known, and those of an epoch
            batches = int(trainer.num_training_batches)
            self._steps_per_epoch = batches // trainer.accumulate_grad_batches
            self.write(trainer, "running")

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self._running and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._executed += 1
            line = f"{self._executed:>12} {trainer.global_step:>12} {time.time():.1f}\n"
            with self._heart_trouble.attempt():
                try:
                    os.pwrite(self._open_heartbeat(), line.encode(), 0)
                except OSError:  # a disk that went and came back may know the file no more
                    self._close_heartbeat()
                    raise

    def write(self, trainer: L.Trainer, status: str) -> None:
        """Rank 0 only; `status` is running, completed, interrupted or failed.

        Raises:
            WorkError: `completed` cannot be written; nothing else of the summary is worth a run.
        """
        module = trainer.lightning_module
        summary = {
            "schema": SCHEMA,
            "status": status,
            **self._latest(),
            "best": _finite(self.best) or self._before.get("best", {}),
            "samples_seen": trainer.global_step * self.global_batch_size,
            "steps": trainer.global_step,
            "steps_executed": self._executed,
            "steps_per_epoch": self._steps_per_epoch or self._before.get("steps_per_epoch"),
            "restarts": self._before["restarts"],
            "wall_seconds": round(self._before["wall"] + time.monotonic() - self._started, 1),
            "parameters": sum(parameter.numel() for parameter in module.parameters()),
            "slurm_job": os.environ.get("SLURM_JOB_ID", ""),
            "versions": {"python": platform.python_version()}
            | {package: version(package) for package in PACKAGES},
        }
        if status != "completed":
            with self._trouble.attempt():
                atomic_write_json(self.run.summary, summary)
            return
        try:
            atomic_write_json(self.run.summary, summary)
        except OSError as error:
            raise WorkError(
                f"trained to the end, but cannot write {self.run.summary}: {reason(error)}; what "
                "was saved is kept: make room and finish the run with run.resume=auto"
            ) from error

    def _latest(self) -> dict[str, float | None]:
        results = {k: v for accuracy in self.accuracies for k, v in accuracy.row.items()}
        return _finite(results) or self._results

    def _open_heartbeat(self) -> int:
        if self._heartbeat is None:
            check(self.run.heartbeat)
            self._heartbeat = os.open(self.run.heartbeat, os.O_WRONLY | os.O_CREAT, 0o644)
        return self._heartbeat

    def _close_heartbeat(self) -> None:
        heartbeat, self._heartbeat = self._heartbeat, None
        if heartbeat is not None:
            with suppress(OSError):  # it says once more what a write said
                os.close(heartbeat)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        if self._running:
            stopped = isinstance(exception, KeyboardInterrupt | SystemExit | Stopped | EndedEarly)
            self.write(trainer, "interrupted" if stopped else "failed")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._running = False
        self._close_heartbeat()


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Without NaN and infinities, which JSON has not: a run that diverged still has a summary."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
