"""What a row of losses shows: a jump, or that it no longer falls. Plain numbers, no Lightning."""

from __future__ import annotations

import statistics
from collections import deque
from typing import Any

WINDOW = 20
"""Rows that a new one is compared with."""
ENOUGH = 10
"""Rows there must be to compare with."""
PAUSE = 10
"""Rows of which at most one is warned of."""
FACTOR, DEVIATIONS = 1.5, 6.0
"""A spike is above the median times the one, and above it by so many median deviations."""

FALL = 0.01
"""Share by which a loss must fall to be said to fall."""
PATIENCE = 10
"""Epochs without a fall that make a plateau."""


class Spikes:
    """A loss far above the recent ones.

    Compared by median and median absolute deviation (MAD), which one spike does not move; noisy
    rows have a large MAD, smooth ones are held to the factor.
    """

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._quiet = PAUSE

    def add(self, loss: float) -> float | None:
        """Take the next row's loss; gives the median of those before it if this is to be warned
        of, else None."""
        before = list(self._losses)
        self._losses.append(loss)
        self._quiet += 1
        if len(before) < ENOUGH or self._quiet < PAUSE:
            return None
        median = statistics.median(before)
        deviation = statistics.median(abs(value - median) for value in before)
        if loss <= FACTOR * median or loss <= median + DEVIATIONS * deviation:
            return None
        self._quiet = 0
        return median

    def state_dict(self) -> dict[str, Any]:
        return {"losses": list(self._losses), "quiet": self._quiet}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._losses = deque(state["losses"], maxlen=WINDOW)
        self._quiet = state["quiet"]


class Plateau:
    """A loss that has not fallen for a while."""

    def __init__(self) -> None:
        self._lowest: float | None = None
        self._epochs = 0

    def add(self, loss: float) -> float | None:
        """Take the next epoch's loss; once per plateau gives the loss that none has fallen below
        by `FALL` for `PATIENCE` epochs, else None."""
        if self._lowest is None or loss < (1 - FALL) * self._lowest:
            self._lowest, self._epochs = loss, 0
            return None
        self._epochs += 1
        return self._lowest if self._epochs == PATIENCE else None

    def state_dict(self) -> dict[str, Any]:
        return {"lowest": self._lowest, "epochs": self._epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._lowest, self._epochs = state["lowest"], state["epochs"]
