"""Parameter groups: what decays, and which learning rate each layer has."""

from __future__ import annotations

from typing import Any

from res2net.models.head import Res2NetClassifier
from res2net.training.optim.layers import layers


def parameter_groups(
    model: Res2NetClassifier,
    *,
    lr: float,
    weight_decay: float,
    decay_norm_and_bias: bool,
    layer_decay: float = 1.0,
    head_lr: float = 1.0,
) -> list[dict[str, Any]]:
    """The parameters that require gradients, those of equal lr and weight decay in one group.

    Args:
        lr: The peak.
        weight_decay: Of kernels and matrices; of norms and biases (one dimension) only with
            `decay_norm_and_bias`.
        layer_decay: A layer k layers below the head has lr * layer_decay**k: a layer is the stem
            or one block (BEiT, arXiv 2106.08254, appendix; ELECTRA, 2003.10555).
        head_lr: The head has lr * head_lr.

    Returns:
        Dictionaries of `params`, `lr`, `weight_decay` and `lr_scale`, the group's lr as a multiple
        of the peak: lr / lr_scale is what the schedule says. In the order of the network from the
        stem to the head, of each layer first what decays.
    """
    cut = layers(model)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for depth, layer in enumerate(cut):
        below_head = len(cut) - 1 - depth
        scale = layer_decay**below_head if below_head else head_lr
        parameters = [p for part in layer for p in part.parameters() if p.requires_grad]
        bare = [p for p in parameters if p.ndim <= 1 and not decay_norm_and_bias]
        spared = set(map(id, bare))
        decayed = [p for p in parameters if id(p) not in spared]
        for members, decay in ((decayed, weight_decay), (bare, 0.0)):
            if members:
                new = {"params": [], "lr": lr * scale, "weight_decay": decay, "lr_scale": scale}
                groups.setdefault((scale, decay), new)["params"] += members
    return list(groups.values())
