"""Parts of a network that training leaves as they are, to the bit."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from res2net.errors import InputError
from res2net.models.head import Res2NetClassifier
from res2net.training.optim.layers import stem_and_stages


def frozen_parts(model: Res2NetClassifier, freeze: str) -> tuple[nn.Module, ...]:
    """The parts that `optim.freeze` names: `none`, `backbone`, or a number of stages.

    A number: the stem and the first so many stages.

    Raises:
        InputError: more stages than there are.
    """
    if freeze == "none":
        return ()
    if freeze == "backbone":
        return (model.backbone,)
    stem, stages = stem_and_stages(model.backbone)
    if not freeze.isdecimal() or int(freeze) > len(stages):
        raise InputError(
            f"optim.freeze={freeze}: {model.variant or 'the network'} has {len(stages)} stages; "
            f"choices: none, backbone, 0 (the stem alone) to {len(stages)}"
        )
    return (*stem, *stages[: int(freeze)])


def freeze_parts(parts: Iterable[nn.Module]) -> None:
    """No gradients; to be called before the optimizer is built."""
    for part in parts:
        part.requires_grad_(False)


def hold_still(parts: Iterable[nn.Module]) -> None:
    """Evaluation mode: BN keeps its statistics, and no block is dropped.

    To be called whenever the whole network was put into training mode.
    """
    for part in parts:
        part.eval()
