"""When the state is saved, and which files hold it.

`last.ckpt` is the newest state, `previous.ckpt` the one before it, `best.ckpt` the state at the
highest `val/top1` so far (the first, if it was reached more than once).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from res2net.callbacks.accuracy import Accuracy
from res2net.callbacks.agreement import Agreement
from res2net.callbacks.guard import Guard
from res2net.callbacks.summary import Summary
from res2net.files.atomic import link_or_copy
from res2net.files.runs import RunDirectory


class SaveCheckpoints(Checkpoint):
    """The one saver, at moments when nothing is half done.

    It saves between optimizer steps (gradients of accumulated batches are not stored) and after a
    validation, never between an epoch's last step and its validation: resumed there, Lightning
    would take the validation for done. Lightning runs `Checkpoint` callbacks last, so all others
    have finished with the step.

    Args:
        run: where to.
        accuracies: that of the weights, by which the best is chosen, and others to be told of.
        every_steps: optimizer steps between two saves, 0 for none.
        every_minutes: minutes between two saves, 0 for none.
        summary: rewritten after each save.
        guard: looks at the state first, and raises instead of letting a broken one be saved.
    """

    def __init__(
        self,
        run: RunDirectory,
        accuracies: Sequence[Accuracy],
        summary: Summary,
        *,
        every_steps: int,
        every_minutes: float,
        guard: Guard | None = None,
    ) -> None:
        self.run = run
        self.accuracies = accuracies
        self.summary = summary
        self.every_steps = every_steps
        self.every_minutes = every_minutes
        self.guard = guard
        self.best: dict[str, float] = {}
        self._due_after_validation = False
        self._saved_at = time.monotonic()
        self._saves = 0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = dict(state_dict["best"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._saved_at = time.monotonic()
        self._agreement = Agreement()

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
        due = self._agreement.exchange((self._saves + 1) * late) > self._saves
        due |= self.every_steps > 0 and trainer.global_step % self.every_steps == 0
        if batch_idx + 1 == trainer.num_training_batches:
            self._due_after_validation = True
        elif due:
            self._save(trainer, is_best=False)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._due_after_validation:
            return
        self._due_after_validation = False
        results = {k: v for accuracy in self.accuracies for k, v in accuracy.row.items()}
        is_best = not self.best or results["val/top1"] > self.best["val/top1"]
        if is_best:
            self.best = {"epoch": trainer.current_epoch, **results}
        self._save(trainer, is_best=is_best)

    def _save(self, trainer: L.Trainer, *, is_best: bool) -> None:
        """Write one file, then give it its names; a kill at any place leaves whole files.

        Best comes first: killed before `last.ckpt` is replaced, the run goes on from the state
        before and comes to the same best again.
        """
        if self.guard is not None:
            self.guard.check(trainer, saving=True)
        trainer.save_checkpoint(self.run.next, weights_only=False)
        if trainer.is_global_zero:
            if is_best:
                link_or_copy(self.run.next, self.run.best)
            if self.run.last.exists():
                link_or_copy(self.run.last, self.run.previous)
            self.run.next.replace(self.run.last)
            self.summary.best = self.best
            self.summary.write(trainer, "running")
        self._saved_at = time.monotonic()
        self._saves += 1
