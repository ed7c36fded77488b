"""Ends a run whose loss is no longer finite, and warns of one that jumps or no longer falls.

Logs nothing; prints a line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import chain
from typing import Any

import lightning as L
import torch

from res2net.callbacks.exact_resume import gather
from res2net.callbacks.train_metrics import TrainMetrics
from res2net.callbacks.trends import FALL, PATIENCE, WINDOW, Plateau, Spikes
from res2net.errors import WorkError
from res2net.files.atomic import atomic_write
from res2net.files.names import printable
from res2net.files.runs import RunDirectory, say
from res2net.files.trouble import Trouble

_NEVER = 2**62
_SHOWN = 3
"""Names in the message; the file has all."""


class NotFiniteError(WorkError):
    """Tells by itself what is kept and what to do: going on from there would end here again."""


class Guard(L.Callback):
    """Looks at the losses where something waits for the device anyway: at a row of `TrainMetrics`,
    at the end of an epoch, and before a state is saved (`SaveCheckpoints` calls `check`). In
    between, the first batch whose loss was not finite is noted on the device.

    A state is only saved if the losses so far, all weights and all statistics are finite: a step
    can break the weights after a loss that was not to be blamed.

    Args:
        run: gets `nonfinite.txt`.
        metrics: whose rows are watched; comes before this one among the callbacks.
        names: position of a batch of this rank, counted since the start of the run -> what its
            images are called (`ImageDataModule.names`).
    """

    def __init__(
        self, run: RunDirectory, metrics: TrainMetrics, *, names: Callable[[int], list[str]]
    ) -> None:
        self.run = run
        self.metrics = metrics
        self.names = names
        self._spikes, self._plateau = Spikes(), Plateau()
        self._first = torch.full((), _NEVER)
        self._position = 0
        self._looked_at = 0

    def state_dict(self) -> dict[str, Any]:
        return {"spikes": self._spikes.state_dict(), "plateau": self._plateau.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._spikes.load_state_dict(state_dict["spikes"])
        self._plateau.load_state_dict(state_dict["plateau"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._first = torch.full((), _NEVER, device=pl_module.device)
        self._looked_at = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        batches = int(trainer.num_training_batches)
        self._position = trainer.current_epoch * batches + batch_idx
        broken = ~outputs["batch_loss"].isfinite()
        # a fill takes its number along with the call: nothing is copied to the device, none waits
        self._first.masked_fill_(broken & (self._first == _NEVER), self._position)

        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        row = stepped and trainer.global_step % self.metrics.every_steps == 0
        if row or batch_idx + 1 == batches:
            self.check(trainer)
        if row:
            loss = self.metrics.latest["loss"]
            if (usual := self._spikes.add(loss)) is not None:
                say(
                    f"train/loss {loss:.4g} at step {trainer.global_step} is far above the last "
                    f"rows' {usual:.4g} (median of up to {WINDOW}); if it does not come down, "
                    "lower optim.lr or set optim.clip_norm=1"
                )

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        lowest = self._plateau.add(self.metrics.latest["epoch_loss"])
        if lowest is not None:
            say(
                f"train/epoch_loss has not fallen by {FALL:.0%} below {lowest:.4g} for {PATIENCE} "
                f"epochs (epoch {trainer.current_epoch})"
            )

    def check(self, trainer: L.Trainer, *, saving: bool = False) -> None:
        """Collective: all ranks call it at the same place, and raise together.

        Args:
            saving: also look at the weights and statistics, which are about to be saved.

        Raises:
            NotFiniteError: a loss since the start, or the state, is not finite.
        """
        loss, state = self._first, torch.full_like(self._first, _NEVER)
        if saving:
            state.masked_fill_(~_all_finite(trainer.lightning_module), self._position)
        mine = torch.stack([loss, state])
        everyone = trainer.strategy.reduce(mine.clone(), reduce_op="min")
        assert isinstance(everyone, torch.Tensor)
        firsts = everyone.tolist()
        first = min(firsts)
        if first == _NEVER:
            self._looked_at = trainer.global_step
            return
        which = firsts.index(first)  # at the same batch the loss was first
        names = self.names(first) if mine[which].item() == first else []
        names = [printable(name) for name in chain.from_iterable(gather(names))]
        trouble = Trouble(self.run.nonfinite, "only the first names are told")
        if trainer.is_global_zero:
            # names of files that are no UTF-8 come back as they were
            text = "".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape")
            with trouble.attempt(), atomic_write(self.run.nonfinite) as stream:
                stream.write(text)
        what = ("the training loss is", "weights or BN statistics are")[which]
        listed = "" if trouble.lasts else f", listed in {self.run.nonfinite}"
        raise NotFiniteError(self._message(trainer, what, first, names, listed))

    def _message(
        self, trainer: L.Trainer, what: str, first: int, names: list[str], listed: str
    ) -> str:
        step = first // trainer.accumulate_grad_batches + 1
        shown = ", ".join(names[:_SHOWN])
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        kept = f"{self.run.last} is kept as it was" if self.run.last.is_file() else "none was saved"
        advice = ["a lower optim.lr"]
        if not trainer.gradient_clip_val:
            advice.append("optim.clip_norm=1")
        if trainer.precision == "16-mixed":
            advice.append("trainer.precision=bf16-mixed instead of 16-mixed")
        return (
            f"{what} not finite: first at step {step}, in steps {self._looked_at + 1} to "
            f"{max(step, trainer.global_step)}; batch: {shown}{more}{listed}; "
            f"checkpoint: {kept}; try another run with {', or '.join(advice)}"
        )


def out_of_memory(
    error: BaseException, *, batch_size: int, accumulate: int, precision: str
) -> WorkError:
    """What to say of a torch.OutOfMemoryError.

    Args:
        error: its message may name the size that was asked for.
        batch_size: images per device at once.
        accumulate, precision: the run's `trainer.accumulate` and `trainer.precision`.
    """
    asked = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", str(error))
    size = f" (asked for {asked[1]})" if asked else ""
    advice = []
    if batch_size > 1:
        part = next(n for n in range(2, batch_size + 1) if batch_size % n == 0)
        advice.append(
            f"trainer.accumulate={accumulate * part} takes {batch_size // part} at once and "
            "learns from as many per step"
        )
    if precision == "32-true":
        advice.append("trainer.precision=bf16-mixed")
    if batch_size > 1:
        advice.append("a smaller data.global_batch_size")
    advice.append("a smaller data.image_size")
    images = "1 image" if batch_size == 1 else f"{batch_size} images"
    return WorkError(
        f"out of memory with {images} per device at once{size}, trainer.accumulate={accumulate}, "
        f"trainer.precision={precision}; try {', or '.join(advice)}"
    )


def _all_finite(module: torch.nn.Module) -> torch.Tensor:
    """A bool on the device: whether all weights and buffers are finite."""
    tensors = chain(module.parameters(), module.buffers())
    finite = [tensor.isfinite().all() for tensor in tensors if tensor.is_floating_point()]
    return torch.stack(finite).all()
