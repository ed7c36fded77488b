"""Optimizers by name, and the learning rate for another batch size."""

from __future__ import annotations

import math
from typing import Any

import torch

from res2net.config.schema_learning import OptimConfig
from res2net.models.head import Res2NetClassifier
from res2net.training.optim.groups import parameter_groups


def build_optimizer(
    model: Res2NetClassifier, optim: OptimConfig, *, lr: float
) -> torch.optim.Optimizer:
    """The optimizer that `optim` names over `parameter_groups`, at the peak learning rate `lr`."""
    groups = parameter_groups(
        model,
        lr=lr,
        weight_decay=optim.weight_decay,
        decay_norm_and_bias=optim.decay_norm_and_bias,
        layer_decay=optim.layer_decay,
        head_lr=optim.head_lr,
    )
    eps: dict[str, Any] = {"eps": optim.eps} if optim.eps else {}
    match optim.name:
        case "sgd":
            nesterov = optim.nesterov and optim.momentum > 0  # torch refuses the one without
            return torch.optim.SGD(groups, lr=lr, momentum=optim.momentum, nesterov=nesterov)
        case "adamw":
            return torch.optim.AdamW(groups, lr=lr, betas=optim.betas, **eps)
        case "lamb":
            from timm.optim import Lamb  # half a second

            # Its own clipping is off: `optim.clip_norm` says whether gradients are clipped.
            # Groups without decay move as by Adam: the trust ratio is for those with decay.
            return Lamb(groups, lr=lr, betas=optim.betas, max_grad_norm=None, **eps)
        case "muon":
            from timm.optim import Muon

            # What it does with a parameter, by shape: (out, in, kh, kw) and (out, in) become one
            # matrix (out, in * kh * kw), whose momentum is made orthogonal and scaled by
            # 0.2 * sqrt(its larger side): the RMS of an AdamW step (arXiv 2502.16982), so that one
            # lr serves both. One dimension, one input channel per group, a side below 4 or more
            # than 128 times the other: AdamW (with Nesterov's momentum: NAdamW) of betas
            # (0.9, 0.95), at the group's lr and decay.
            return Muon(groups, lr=lr, momentum=optim.momentum, nesterov=optim.nesterov, **eps)


def scaled_lr(optim: OptimConfig, global_batch_size: int) -> tuple[float, str]:
    """The peak learning rate of a run with this global batch, and a line that says what was done.

    The line is empty where nothing is scaled: without `optim.lr_batch`, or at that very batch.
    """
    if optim.lr_batch in (0, global_batch_size):
        return optim.lr, ""
    ratio = global_batch_size / optim.lr_batch
    lr = optim.lr * (ratio if optim.lr_rule == "linear" else math.sqrt(ratio))
    return lr, (
        f"optim.lr: {optim.lr:g} for {optim.lr_batch} images, {lr:g} for "
        f"data.global_batch_size={global_batch_size} ({optim.lr_rule})"
    )
