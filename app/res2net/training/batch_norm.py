"""Whether batch norm has what it needs: more than one value of each channel in a training step."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from res2net.config.schema import Config
from res2net.errors import InputError
from res2net.training.optim.freezing import frozen_parts, hold_still
from res2net.training.plan import Plan
from res2net.zoo import create_model


def check_batch_norm(config: Config, plan: Plan) -> None:
    """One image a device, so small that some map is one pixel, has no deviation from its mean.

    Raises:
        InputError: torch would refuse the first step, or that of the first epoch with such images.
    """
    parts = plan.world_size * config.trainer.accumulate
    together = plan.world_size if config.trainer.sync_batchnorm else 1
    if config.data.global_batch_size // parts * together != 1:
        return  # two images, or a batch that cannot be cut: `Plan.batch_size` says so
    size = config.augment.start_size or config.data.image_size  # the smallest that is met
    if values_per_image(config.model.name, size, freeze=config.optim.freeze) > 1:
        return
    choices = [f"data.global_batch_size={2 * parts}", "a larger data.image_size"]
    if config.augment.start_size:
        choices[1] = "a larger augment.start_size"
    if config.trainer.accumulate > 1:
        choices.append("a smaller trainer.accumulate")
    if plan.world_size > 1 and plan.accelerator == "cuda":
        choices.append("trainer.sync_batchnorm=true")
    raise InputError(
        f"data.global_batch_size={config.data.global_batch_size}: one image per device at once, of "
        f"which the last maps of {config.model.name} have one value per channel at {size} pixels; "
        f"batch norm takes two or more: give {' or '.join(choices)}"
    )


def values_per_image(variant: str, image_size: int, *, freeze: str = "none") -> int:
    """The fewest values of a channel that any batch norm that learns sees of one image.

    Args:
        freeze: `optim.freeze`; what is frozen takes its statistics as they are. 2**31: all is.
    """
    seen = [2**31]

    def look(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append(inputs[0].numel() // inputs[0].shape[1] // 2)

    with torch.device("meta"):  # shapes are enough
        model = create_model(variant).train()
        images = torch.empty(2, 3, image_size, image_size)
    hold_still(frozen_parts(model, freeze))
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.training:
            module.register_forward_pre_hook(look)
    model(images)
    return min(seen)
