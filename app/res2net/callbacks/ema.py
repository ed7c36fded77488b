"""An exponential moving average of weights and buffers, kept beside them and evaluated with them.

Logs nothing: `callbacks.accuracy` logs `val_ema/...` from what the average gives in validation.
"""

from __future__ import annotations

from typing import Any

import lightning as L
from torch import distributed, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

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
        self._averaged: AveragedModel | None = None
        self._stored: dict[str, Any] | None = None
        self._step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # built here, on the device: its counter stays on the CPU, where looking at it costs nothing
        assert isinstance(pl_module.model, nn.Module)
        averaged = AveragedModel(
            pl_module.model, multi_avg_fn=get_ema_multi_avg_fn(self.decay), use_buffers=True
        )
        averaged.requires_grad_(False).eval()
        if self._stored is not None:
            state = self._stored["ema_state_dict"]
            averaged.module.load_state_dict(
                {key.removeprefix(_PREFIX): value for key, value in state.items()}
            )
            averaged.n_averaged.fill_(self._stored["ema_updates"])
            self._stored = None
        self._averaged, self.network = averaged, averaged.module
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
        assert self._averaged is not None and isinstance(pl_module.model, nn.Module)
        if self._step % self.every == 0:
            self._averaged.update_parameters(pl_module.model)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.network is not None and distributed.is_initialized():
            for buffer in self.network.buffers():
                distributed.broadcast(buffer, src=0)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        assert self._averaged is not None
        state = self._averaged.module.state_dict()
        checkpoint["ema_state_dict"] = {_PREFIX + key: value for key, value in state.items()}
        checkpoint["ema_updates"] = int(self._averaged.n_averaged)

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._stored = {key: checkpoint[key] for key in ("ema_state_dict", "ema_updates")}
