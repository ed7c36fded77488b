"""Learning rate as a pure function of the optimizer step."""

import math

WARMUP_START = 0.01
"""Warm-up begins at this share of the peak."""


def lr_factor(
    step: int,
    *,
    name: str,
    total_steps: int,
    steps_per_epoch: int,
    warmup_epochs: float = 0.0,
    end_factor: float = 0.0,
    step_epochs: float = 30.0,
    gamma: float = 0.1,
) -> float:
    """What the peak learning rate is multiplied by at `step` (0 is the first).

    1. Below `warmup_epochs`: a line from WARMUP_START to 1.
    2. `cosine`: half a cosine over the steps that are left, from 1 to `end_factor`.
    3. `step`: `gamma` to the power of the drops so far, one every `step_epochs` from the start
       of the run (paper, section 4.2: a tenth every 30 epochs).
    """
    warmup_steps = round(warmup_epochs * steps_per_epoch)
    if step < warmup_steps:
        return WARMUP_START + (1 - WARMUP_START) * step / warmup_steps
    if name == "cosine":
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return end_factor + (1 - end_factor) * (1 + math.cos(math.pi * progress)) / 2
    if name == "step":
        return gamma ** (step // round(step_epochs * steps_per_epoch))
    raise ValueError(f"schedule {name!r}: cosine or step")
