"""Which sample comes when: pure functions of seed, epoch, ranks and position.

Nothing here depends on what came before, so resuming is a number, and any number of ranks sees the
same epoch: optimizer step t of an epoch takes the samples t*G .. (t+1)*G-1 of that epoch's order
(G the global batch), however they are cut into devices and accumulated batches.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np

PADDING = -1
"""Stands in an evaluation batch where the data have ended; masked, never counted."""
EXCLUDED = -2
"""Label in an evaluation batch of an image that cannot be decoded; masked, counted apart."""


class Order(Protocol):
    """Which samples a batch holds."""

    training: ClassVar[bool]

    @property
    def batch_size(self) -> int: ...

    @property
    def batches(self) -> int: ...

    def batch(self, position: int) -> np.ndarray: ...


def permutation(count: int, *, seed: int, epoch: int, stream: int = 0) -> np.ndarray:
    """The order of one epoch: int64 (count,), each of 0..count-1 once, read-only.

    Streams are independent of each other.

    Sorting raw PCG64 words, because NumPy keeps its bit generators' output the same for ever but
    may change `Generator.permutation`, and a run of weeks must survive an upgrade.
    """
    words = np.random.PCG64(np.random.SeedSequence([seed, epoch, stream])).random_raw(count)
    order = np.argsort(words, kind="stable")
    order.flags.writeable = False
    return order


@dataclass(frozen=True, kw_only=True)
class TrainOrder:
    """An endless row of training batches for one rank.

    A position counts this rank's batches since the start of the run (`accumulate` of them make
    one optimizer step).
    """

    count: int
    """Samples that there are, and that an epoch draws."""
    seed: int
    batch_size: int
    """Of one rank."""
    world_size: int = 1
    rank: int = 0
    accumulate: int = 1
    wrap: bool = False
    """An epoch's last step is filled up with samples of its beginning instead of dropped."""
    repeats: int = 1
    """Each sample so many times in one step, on different ranks where there are as many; an epoch
    takes another share of the samples then (arXiv 1901.09335, section 3)."""
    labels: np.ndarray | None = field(default=None, repr=False)
    """int64 (count,): all classes equally often, whatever their numbers of samples."""
    training: ClassVar[bool] = True
    _last: dict[int, np.ndarray] = field(default_factory=dict, init=False, repr=False)

    @property
    def global_batch_size(self) -> int:
        return self.batch_size * self.world_size * self.accumulate

    @property
    def steps(self) -> int:
        """Optimizer steps in an epoch."""
        return (self.count + self.wrap * (self.global_batch_size - 1)) // self.global_batch_size

    @property
    def batches(self) -> int:
        """Batches of one rank in an epoch."""
        return self.steps * self.accumulate

    def batch(self, position: int) -> np.ndarray:
        """Indices of the samples at this position: int64 (batch_size,)."""
        epoch, batch = divmod(position, self.batches)
        start = (batch * self.world_size + self.rank) * self.batch_size
        return self.epoch(epoch)[start : start + self.batch_size]

    def epoch(self, epoch: int) -> np.ndarray:
        """Indices in the order in which all ranks together take them: int64 (steps * G,)."""
        if epoch not in self._last:
            if len(self._last) > 1:  # prefetching may stand in the next epoch already
                del self._last[min(self._last)]
            self._last[epoch] = self._draw(epoch)
        return self._last[epoch]

    def _draw(self, epoch: int) -> np.ndarray:
        order = permutation(self.count, seed=self.seed, epoch=epoch)
        if self.labels is not None:
            order = _balanced(self.labels, seed=self.seed, epoch=epoch)[order]
        if self.repeats > 1:
            order = np.repeat(order[: -(-self.count // self.repeats)], self.repeats)[: self.count]
        size = self.steps * self.global_batch_size
        order = order[:size] if size <= len(order) else np.resize(order, size)
        steps = order.reshape(self.steps, self.global_batch_size)
        if self.repeats > 1:
            # first copies of a step first: ranks are cut from consecutive samples
            copy = np.arange(steps.size).reshape(steps.shape) % self.repeats
            steps = np.take_along_axis(steps, np.argsort(copy, axis=1, kind="stable"), axis=1)
        steps.flags.writeable = False
        return steps.reshape(-1)


def _balanced(labels: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """As many samples as there are labels, of each class equally many, class by class.

    A class with fewer samples than its share gives all of them before any comes again; classes
    differ by one where the number cannot be cut evenly, other classes in other epochs.
    """
    mixed = permutation(len(labels), seed=seed, epoch=epoch, stream=1)
    by_class = mixed[np.argsort(labels[mixed], kind="stable")]
    present, starts, sizes = np.unique(labels[by_class], return_index=True, return_counts=True)
    share, rest = divmod(len(labels), len(present))
    shares = np.full(len(present), share)
    shares[np.roll(np.arange(len(present)), -epoch * rest)[:rest]] += 1
    return np.concatenate(
        [
            np.resize(by_class[start : start + size], wanted)
            for start, size, wanted in zip(starts, sizes, shares, strict=True)
        ]
    )


@dataclass(frozen=True)
class EvalOrder:
    """Each sample once, in the order of the source; every rank gets equally many full batches."""

    count: int
    batch_size: int
    world_size: int = 1
    rank: int = 0
    training: ClassVar[bool] = False

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
