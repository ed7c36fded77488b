"""Which sample comes when: pure functions of seed, epoch, ranks and position.

Nothing here remembers anything, so resuming is a number, and any number of ranks sees the same
epoch: optimizer step t of an epoch takes the samples t*G .. (t+1)*G-1 of that epoch's permutation
(G the global batch), however they are cut into devices and accumulated batches.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

PADDING = -1
"""Stands in an evaluation batch where the data have ended; masked, never counted."""


@lru_cache(maxsize=2)
def permutation(count: int, *, seed: int, epoch: int) -> np.ndarray:
    """The order of one epoch: int64 (count,), each of 0..count-1 once, read-only.

    Sorting raw PCG64 words, because NumPy keeps its bit generators' output the same for ever but
    may change `Generator.permutation`, and a run of weeks must survive an upgrade.
    """
    words = np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(count)
    order = np.argsort(words, kind="stable")
    order.flags.writeable = False
    return order


@dataclass(frozen=True)
class TrainOrder:
    """An endless row of training batches for one rank; the tail of each epoch is dropped.

    A position counts this rank's batches since the start of the run (`accumulate` of them make
    one optimizer step).
    """

    count: int
    seed: int
    batch_size: int
    world_size: int = 1
    rank: int = 0
    accumulate: int = 1

    @property
    def global_batch_size(self) -> int:
        return self.batch_size * self.world_size * self.accumulate

    @property
    def batches(self) -> int:
        """Batches of one rank in an epoch."""
        return self.count // self.global_batch_size * self.accumulate

    def batch(self, position: int) -> np.ndarray:
        """Indices of the samples at this position: int64 (batch_size,)."""
        epoch, batch = divmod(position, self.batches)
        start = (batch * self.world_size + self.rank) * self.batch_size
        order = permutation(self.count, seed=self.seed, epoch=epoch)
        return order[start : start + self.batch_size]


@dataclass(frozen=True)
class EvalOrder:
    """Each sample once, in the order of the source; every rank gets equally many full batches."""

    count: int
    batch_size: int
    world_size: int = 1
    rank: int = 0

    @property
    def batches(self) -> int:
        """Batches of one rank in a pass."""
        return -(-self.count // (self.batch_size * self.world_size))

    def batch(self, position: int) -> np.ndarray:
        """Indices of the samples, PADDING where the data have ended: int64 (batch_size,)."""
        start = (position % self.batches * self.world_size + self.rank) * self.batch_size
        indices = np.arange(start, start + self.batch_size)
        return np.where(indices < self.count, indices, PADDING)

    def in_order(self, gathered: np.ndarray) -> np.ndarray:
        """What all ranks hold for their batches, put into the order of the source.

        (world_size, batches * batch_size, ...) -> (count, ...), padding left out.
        """
        rest = gathered.shape[2:]
        batches = gathered.reshape(self.world_size, self.batches, self.batch_size, *rest)
        return batches.swapaxes(0, 1).reshape(-1, *rest)[: self.count]
