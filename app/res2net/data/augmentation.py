"""What happens to training images, and the random numbers of what happens outside DALI."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from res2net.data.order import TrainOrder

ROUND_TO = 32
"""Growing sizes are multiples of it, as the network halves them five times."""


@dataclass(frozen=True)
class Augmentation:
    """The meanings are those of `config.schema.AugmentConfig`."""

    crop: str = "random_resized"
    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    pad: int = 4
    flip: float = 0.5
    policy: str = "none"
    policy_ops: int = 2
    policy_magnitude: int = 9
    color_jitter: float = 0.0
    hue_jitter: float = 0.0
    erase: float = 0.0
    start_size: int = 0
    grow_from: float = 0.0
    grow_until: float = 0.0

    def size(self, epoch: float, image_size: int) -> int:
        """Pixels of the training images: `start_size` up to the epoch `grow_from`, from
        `grow_until` on `image_size`.

        In between it grows linearly. `epoch` counts from 0.
        """
        if not self.start_size or epoch >= self.grow_until:
            return image_size
        share = max(0.0, epoch - self.grow_from) / (self.grow_until - self.grow_from)
        grown = self.start_size + (image_size - self.start_size) * share
        return min(image_size, max(self.start_size, round(grown / ROUND_TO) * ROUND_TO))


def uniform(order: TrainOrder, position: int, *, stream: int, numbers: int) -> np.ndarray:
    """Random numbers for each sample of a batch: float64 (batch_size, numbers) in [0, 1).

    They hang on the seed, the optimizer step and the sample's place in it, so that they are the
    same after a resume, on any number of ranks. Each `stream` is independent of the others.
    """
    step, accumulated = divmod(position, order.accumulate)
    start = (accumulated * order.world_size + order.rank) * order.batch_size
    bits = np.random.PCG64(np.random.SeedSequence([order.seed, step, stream, 1]))
    bits.advance(start * numbers)
    words = bits.random_raw(order.batch_size * numbers)
    return (words >> np.uint64(11)).reshape(-1, numbers) * 2.0**-53
