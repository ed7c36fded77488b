"""Optimizers and their parameter groups."""

from typing import Any

from torch import nn, optim


def parameter_groups(
    model: nn.Module, *, weight_decay: float, decay_norm_and_bias: bool
) -> list[dict[str, Any]]:
    """The trainable parameters as one or two groups.

    Norm weights and biases are the parameters with one dimension; without decay on them they
    form the second group.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if decay_norm_and_bias:
        return [{"params": parameters, "weight_decay": weight_decay}]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def build_optimizer(
    model: nn.Module,
    *,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    decay_norm_and_bias: bool,
) -> optim.Optimizer:
    """SGD over `parameter_groups`."""
    groups = parameter_groups(
        model, weight_decay=weight_decay, decay_norm_and_bias=decay_norm_and_bias
    )
    return optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0)
