"""What is kept of a misclassified image."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

MISTAKES = 100
"""Of them in W&B's table."""


@dataclass(frozen=True)
class Mistake:
    """An image that was taken for something else."""

    index: int
    """In the validation data."""
    image: Image.Image
    true: str
    predicted: str
    probability: float
    """Of `predicted`, 0..1."""
    loss: float
