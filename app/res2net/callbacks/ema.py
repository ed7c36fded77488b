"""An exponential moving average of weights and buffers, kept beside them and evaluated with them.

Logs nothing: `callbacks.accuracy` logs `val_ema/...` from what the average gives in validation.
"""

from __future__ import annotations

import copy
from typing import Any

import lightning as L
import torch
from torch import distributed, nn

_PREFIX = "model."
"""Of the keys, as in `state_dict`."""


class Average(L.Callback):
    """average <- decay * average + (1 - decay) * weights, every so many optimizer steps.

    The first update copies. Rank 0's average is the one: BN statistics differ by rank between two
    steps, and a checkpoint holds rank 0's. So that all ranks evaluate that one, it is sent to them
    before a validation.

    Args:
        decay: share of the average that each update keeps.
        every: optimizer steps between two updates.

    Attributes:
        network: the average while a fit runs; outside the LightningModule, whose `state_dict` holds
            the raw weights.
    """

    def __init__(self, *, decay: float, every: int) -> None:
        self.decay = decay
        self.every = every
        self.network: nn.Module | None = None
        self._updates = 0
        self._stored: dict[str, Any] | None = None
        self._step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # copied here and not before: on the device, with the weights that a resume has loaded
        assert isinstance(pl_module.model, nn.Module)
        self.network = copy.deepcopy(pl_module.model).requires_grad_(False).eval()
        self._updates = 0
        if self._stored is not None:
            state = self._stored["ema_state_dict"]
            self.network.load_state_dict(
                {key.removeprefix(_PREFIX): value for key, value in state.items()}
            )
            self._updates = self._stored["ema_updates"]
            self._stored = None
        self._step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if trainer.global_step == self._step:
            return  # batches are being accumulated
        self._step = trainer.global_step
        if self._step % self.every == 0:
            assert isinstance(pl_module.model, nn.Module)
            self._update(pl_module.model)

    @torch.no_grad()
    def _update(self, model: nn.Module) -> None:
        """A few kernels, and none of them is waited for: torch's AveragedModel copies a counter to
        the device in each update, for which the host waits until the step is done."""
        assert self.network is not None
        ours, theirs = (_by_kind(network) for network in (self.network, model))
        if self._updates == 0:
            torch._foreach_copy_(ours[0], theirs[0])
        else:
            torch._foreach_lerp_(ours[0], theirs[0], 1 - self.decay)
        if ours[1]:
            torch._foreach_copy_(ours[1], theirs[1])
        self._updates += 1

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.network is not None and distributed.is_initialized():
            for buffer in self.network.buffers():
                distributed.broadcast(buffer, src=0)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        assert self.network is not None
        state = self.network.state_dict()
        checkpoint["ema_state_dict"] = {_PREFIX + key: value for key, value in state.items()}
        checkpoint["ema_updates"] = self._updates

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._stored = {key: checkpoint[key] for key in ("ema_state_dict", "ema_updates")}


def _by_kind(network: nn.Module) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """What is averaged, and the counters of batches, which are taken as they are."""
    every = [*network.parameters(), *network.buffers()]
    return (
        [tensor.detach() for tensor in every if tensor.is_floating_point()],
        [tensor for tensor in every if not tensor.is_floating_point()],
    )
