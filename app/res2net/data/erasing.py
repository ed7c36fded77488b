"""Random erasing (arXiv 1708.04896), on the device, of normalised images."""

from __future__ import annotations

import numpy as np
import torch

AREA = (0.02, 1 / 3)
"""Bounds of the rectangle's share of the image, as in torchvision and timm."""
RATIO = (0.3, 10 / 3)
"""Bounds of its height divided by its width, drawn evenly in the logarithm."""
NUMBERS = 5
"""Random numbers that one image takes."""


def erase(images: torch.Tensor, numbers: np.ndarray, *, probability: float) -> torch.Tensor:
    """Set a rectangle of some images to zero, which is the mean; in place.

    Args:
        images: float (N, C, H, W), normalised.
        numbers: (N, NUMBERS) in [0, 1): whether, area, ratio, place.
        probability: share of the images that are changed.
    """
    height, width = images.shape[2:]
    whether, area, ratio, down, right = numbers.T
    area = height * width * (AREA[0] + area * (AREA[1] - AREA[0]))
    ratio = np.exp(np.log(RATIO[0]) + ratio * np.log(RATIO[1] / RATIO[0]))
    tall = np.minimum(np.rint(np.sqrt(area * ratio)), height)
    wide = np.minimum(np.rint(np.sqrt(area / ratio)), width)
    top = np.floor(down * (height - tall + 1))
    left = np.floor(right * (width - wide + 1))
    tall = np.where(whether < probability, tall, 0)
    corners = torch.from_numpy(np.stack([top, top + tall, left, left + wide]))
    box = corners.to(images.device, non_blocking=True)
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    top_, bottom, left_, end = box[:, :, None]
    inside_rows = (rows >= top_) & (rows < bottom)  # (N, H)
    inside_columns = (columns >= left_) & (columns < end)  # (N, W)
    inside = inside_rows[:, None, :, None] & inside_columns[:, None, None, :]
    return images.masked_fill_(inside, 0.0)
