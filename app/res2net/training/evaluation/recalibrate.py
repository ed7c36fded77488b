"""Statistics of BN as the weights are now, instead of as they were on the way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import lightning as L
import torch
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from res2net.data.datamodule import ImageDataModule


class Recalibration(L.Callback):
    """BN's statistics become those of some images, right before an evaluation. Logs nothing.

    Args:
        data: its evaluation images, in full batches for every rank.
    """

    def __init__(self, data: ImageDataModule) -> None:
        self.data = data

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        stream = self.data.open_val_stream(
            trainer.world_size, trainer.global_rank, trainer.strategy.root_device
        )

        def batches() -> Iterator[torch.Tensor]:
            for _ in range(stream.order.batches):
                images, _labels = next(stream)
                yield self.data.finish(images, training=False)

        assert isinstance(pl_module.model, nn.Module)
        with trainer.precision_plugin.forward_context():
            recalibrate(pl_module.model, batches())


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Replace BN's running means and variances by their means over the given batches.

    Each batch counts the same, over all ranks where there are several. Everything but BN is as in
    evaluation (no dropout, no stochastic depth); modes and momenta are as before in the end.
    Networks without BN, or whose BN keeps no statistics, stay as they are.

    Args:
        model: on the device of the batches. All of its BN is recalibrated, frozen ones too.
        batches: normalised images (N, 3, H, W), as in training; under SyncBatchNorm equally many
            on every rank.

    Raises:
        ValueError: there is no batch at all on this rank; nothing was changed.
    """
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]
    if not norms:
        return
    rest = iter(batches)
    first = next(rest, None)
    if first is None:
        raise ValueError("no batches to recalibrate BN on")
    modes = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    try:
        model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean of all batches
            norm.train()
        for images in chain([first], rest):
            model(images)
    finally:
        for module, mode in modes:
            module.training = mode
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    if distributed.is_initialized():
        _average(norms)


def _average(norms: list[_BatchNorm]) -> None:
    """Over all ranks, each weighing as many batches as it saw."""
    buffers = [b for norm in norms for b in (norm.running_mean, norm.running_var) if b is not None]
    tracked = norms[0].num_batches_tracked
    assert tracked is not None
    count = tracked.double().reshape(1)
    sums = torch.cat([*(buffer.double().flatten() * count for buffer in buffers), count])
    distributed.all_reduce(sums)
    means = (sums[:-1] / sums[-1]).split([buffer.numel() for buffer in buffers])
    for buffer, mean in zip(buffers, means, strict=True):
        buffer.copy_(mean.view_as(buffer))
    for norm in norms:
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.fill_(sums[-1].item())
