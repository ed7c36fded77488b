"""Keeps in the checkpoint what Lightning drops, for every rank, so that a resume is exact.

Random number generators, and the parts that are given: the place in the data, sums of metrics,
the length of the log. Each part has `resume_state()` and `load_resume_state(states, rank)`, where
`states` are those of all ranks in order and `rank` is None if the run is now cut into other ranks
or batches.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import lightning as L
import numpy as np
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from res2net.errors import WorkError
from res2net.files.runs import say


class Resumable(Protocol):
    def resume_state(self) -> dict[str, Any]: ...

    def load_resume_state(self, states: Sequence[dict[str, Any]], rank: int | None) -> None: ...


class ExactResume(L.Callback):
    """Stores and restores the state of every rank.

    Args:
        parts: what to keep, by name.
        seed: the run's; each rank's generators are seeded by it and its rank.
        image_size: of the warm-up images, pixels.
    """

    def __init__(self, parts: Mapping[str, Resumable], *, seed: int, image_size: int) -> None:
        self.parts = parts
        self.seed = seed
        self.image_size = image_size
        self._generators: dict[str, Any] | None = None
        self._steps = 0

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        state = {name: part.resume_state() for name, part in self.parts.items()}
        state["generators"] = generator_states()
        checkpoint["ranks"] = gather(state)
        checkpoint["layout"] = _layout(trainer)

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        ranks, stored, layout = checkpoint["ranks"], checkpoint["layout"], _layout(trainer)
        rank = trainer.global_rank if stored == layout else None
        if rank is None:
            say(
                f"resumed on another layout ({_words(stored)}, now {_words(layout)}): the samples "
                "are those of the same epoch, each once; augmentation draws anew"
            )
            rescale_progress(checkpoint, stored["accumulate"], layout["accumulate"])
        for name, part in self.parts.items():
            part.load_resume_state([state[name] for state in ranks], rank)
        self._generators = None if rank is None else ranks[rank]["generators"]
        self._steps = checkpoint["global_step"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        steps = gather(trainer.global_step)
        if len(set(steps)) > 1:
            raise WorkError(
                "ranks have read different states of the run (steps "
                f"{', '.join(map(str, steps))}): the file system lags; start once more",
                of_all_ranks=True,
            )
        if isinstance(trainer.strategy.model, DistributedDataParallel):
            self._build_buckets(trainer.strategy.model, pl_module)
        if self._generators is None:
            seeds = np.random.SeedSequence([self.seed, trainer.global_rank, self._steps])
            seed = int(seeds.generate_state(1)[0])
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
        else:
            load_generator_states(self._generators)

    def _build_buckets(self, model: DistributedDataParallel, pl_module: L.LightningModule) -> None:
        """Let DDP settle how it groups gradients before the first step counts.

        It regroups them after its first backward pass. From three ranks on the sums of the first
        step after any start would otherwise differ in their last bits from those of a run that
        went on.
        """
        buffers = [buffer.clone() for buffer in pl_module.buffers()]
        size = (2, 3, self.image_size, self.image_size)
        images = torch.zeros(size, device=pl_module.device)
        # torch.compile would take this size for another that is to be expected later
        with torch.compiler.set_stance("force_eager"):
            for _ in range(2):
                (model(images).sum() * 0).backward()
        pl_module.zero_grad(set_to_none=True)
        for buffer, kept in zip(pl_module.buffers(), buffers, strict=True):
            buffer.copy_(kept)


def gather(value: Any) -> list[Any]:
    """The values of all ranks, in order, on every rank."""
    if not distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def generator_states() -> dict[str, Any]:
    """States of all global generators, in types that `torch.load(weights_only=True)` admits."""
    _, keys, *rest = np.random.get_state(legacy=True)
    state = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": [torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def load_generator_states(state: Mapping[str, Any]) -> None:
    """Undo `generator_states`."""
    torch.set_rng_state(state["torch"])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    keys, *rest = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *rest))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def rescale_progress(checkpoint: dict[str, Any], stored: int, now: int) -> None:
    """Lightning counts batches: count them in the new number of batches per step."""
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    for part in ("total", "current"):
        counts = progress[part]
        done = counts["ready"] * now // stored
        unfinished = counts["ready"] - counts["completed"]
        counts |= {"ready": done, "started": done, "processed": done}
        counts["completed"] = done - unfinished


def _layout(trainer: L.Trainer) -> dict[str, int]:
    return {"world_size": trainer.world_size, "accumulate": trainer.accumulate_grad_batches}


def _words(layout: Mapping[str, int]) -> str:
    return f"{layout['world_size']} ranks x {layout['accumulate']} accumulated"
