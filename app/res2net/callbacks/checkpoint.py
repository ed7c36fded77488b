"""When the state is saved, and which files hold it.

`last.ckpt` is the newest state, `previous.ckpt` the one before it, `best.ckpt` the state at the
highest `val/top1` so far (the first, if it was reached more than once).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from res2net.callbacks.accuracy import Accuracy
from res2net.callbacks.agreement import Agreement, patience
from res2net.callbacks.guard import Guard
from res2net.callbacks.summary import Summary
from res2net.errors import Stopped, WorkError
from res2net.files.atomic import link_or_copy
from res2net.files.lock import Lock
from res2net.files.runs import RunDirectory, say
from res2net.stopping import leave_in_peace, received, trained


class RunLostError(WorkError):
    """Tells by itself what is kept: nothing is to be gone on with at the old place."""


class SaveCheckpoints(Checkpoint):
    """The one saver, at moments when nothing is half done.

    It saves between optimizer steps (gradients of accumulated batches are not stored) and after a
    validation, never between an epoch's last step and its validation: resumed there, Lightning
    would take the validation for done. The step before that is always saved: what a kill in a
    validation undoes is one step. Lightning runs `Checkpoint` callbacks last, so all others have
    finished with the step.

    A signal to any rank (`stopping`) is heard by all at the same step: they save and raise
    `Stopped`. In a validation they leave at once; it is repeated from its beginning. In the same
    way all hear that rank 0 has lost the run: another process took it over, or its directory was
    moved, deleted or replaced. Then nothing is saved, and they raise `RunLostError`.

    Args:
        run: where to.
        accuracies: that of the weights, by which the best is chosen, and others to be told of.
        summary: rewritten after each save.
        guard: looks at the state first, and raises instead of letting a broken one be saved.
        lock: of the run; who has lost it must not write any more.
        every_steps: optimizer steps between two saves, 0 for none.
        every_minutes: minutes between two saves, 0 for none.
        go_on: train on when a save fails, and try again when the next one is due.
        stall_minutes: after which the watchdog awakes; ranks wait longer for each other.
    """

    def __init__(
        self,
        run: RunDirectory,
        accuracies: Sequence[Accuracy],
        summary: Summary,
        guard: Guard,
        lock: Lock,
        *,
        every_steps: int,
        every_minutes: float,
        go_on: bool,
        stall_minutes: float = 0.0,
    ) -> None:
        self.run = run
        self.accuracies = accuracies
        self.summary = summary
        self.guard = guard
        self.lock = lock
        self.every_steps = every_steps
        self.every_minutes = every_minutes
        self.go_on = go_on
        self.stall_minutes = stall_minutes
        self.best: dict[str, float] = {}
        self.seconds = 0.0
        """Spent on saving, by this process."""
        self._due_after_validation = False
        self._saved_at = time.monotonic()
        self._saves = 0
        self._signal = 0
        self._is_lost = 0
        self._failure = ""
        """Of the last save."""

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = self.summary.best = dict(state_dict["best"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._saved_at = time.monotonic()
        self._agreement = Agreement(patience(self.stall_minutes))

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any
    ) -> None:
        trained()  # when all ranks have the gradients of all: they come here at the same time

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        elapsed = time.monotonic() - self._saved_at
        late = 0 < 60 * self.every_minutes <= elapsed
        # a wish is heard one step later: its number tells it from those that were met meanwhile
        wish, self._signal, self._is_lost = self._agreement.exchange(
            (self._saves + 1) * late, received(), self.lock.lost
        )
        self._end_if_lost()
        batches_left = trainer.num_training_batches - (batch_idx + 1)
        if batches_left == 0:
            self._due_after_validation = True
            return
        due = self.every_steps > 0 and trainer.global_step % self.every_steps == 0
        before_validation = batches_left == trainer.accumulate_grad_batches
        if wish > self._saves or due or before_validation or self._signal:
            self._save(trainer)
        self._leave_if_asked(trainer)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._due_after_validation:
            _, self._signal, self._is_lost = self._agreement.exchange(0, received(), self.lock.lost)
            self._end_if_lost()
            self._leave_if_asked(trainer, " in its validation: that step and it are done again")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._due_after_validation:
            return
        self._due_after_validation = False
        results = {k: v for accuracy in self.accuracies for k, v in accuracy.row.items()}
        before = self.best
        is_best = not before or results["val/top1"] > before["val/top1"]
        if is_best:
            self.best = {"epoch": trainer.current_epoch, **results}
        if not self._save(trainer, is_best=is_best):
            self.best = before  # as the file is

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._is_lost = self.lock.is_lost()
        self._end_if_lost()
        if self._failure:  # told when the other callbacks have ended, too
            raise WorkError(f"trained to the end, but {self._failure}", of_all_ranks=True)

    def _end_if_lost(self) -> None:
        if self._is_lost:
            raise RunLostError(self.lock.loss(), of_all_ranks=True)

    def _leave_if_asked(self, trainer: L.Trainer, where: str = "") -> None:
        if self._signal:
            name = signal.Signals(self._signal).name
            step = trainer.global_step
            leave_in_peace()
            raise Stopped(f"by {name} at step {step}{where}", number=self._signal)

    def _save(self, trainer: L.Trainer, *, is_best: bool = False) -> bool:
        """Whether it worked, the same on all ranks.

        Raises:
            WorkError: on all ranks, if it did not and the run is not to go on, or if it is lost.
        """
        self.guard.check(trainer, saving=True)
        start = time.monotonic()
        # not Trainer.save_checkpoint: where rank 0 fails in it the others wait for ever
        state = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        failure = self._write(trainer, state, is_best=is_best) if trainer.is_global_zero else ""
        self._failure, self._is_lost = trainer.strategy.broadcast((failure, self.lock.is_lost()))
        self._end_if_lost()
        self._saved_at = time.monotonic()
        self.seconds += self._saved_at - start
        self._saves += 1
        if self._failure and not self.go_on:
            raise WorkError(self._failure, of_all_ranks=True)
        if self._failure:
            say(f"step {trainer.global_step}: {self._failure}; going on")
        return not self._failure

    def _write(self, trainer: L.Trainer, state: dict[str, Any], *, is_best: bool) -> str:
        """Write one file, then give it its names; a kill at any place leaves whole files.

        Best comes first: killed before `last.ckpt` is replaced, the run goes on from the state
        before and comes to the same best again. Returns what went wrong, if anything did.
        """
        if self.lock.is_lost():
            return ""
        try:
            trainer.strategy.save_checkpoint(state, self.run.next)
            if is_best:
                link_or_copy(self.run.next, self.run.best)
            if self.run.last.exists():
                link_or_copy(self.run.last, self.run.previous)
            self.run.next.replace(self.run.last)
        except WorkError as error:
            return str(error)
        except OSError as error:
            return f"cannot give {self.run.next} its name: {error}"
        self.summary.best = self.best
        self.summary.write(trainer, "running")
        return ""
