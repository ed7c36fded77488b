"""The two ways in which a command ends badly without being a bug.

Both carry one line for people; `cli.main` turns them into exit codes 2 and 1.
"""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class InputError(ValueError):
    """What the user gave cannot be used. The message names the value, the rule and the choices."""


class WorkError(RuntimeError):
    """Work failed on the way. The message says what happened, what was kept and what to do next."""


class Problems:
    """Gathers bad input, so that all of it is told at once."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def attempt(self, work: Callable[[], T]) -> T | None:
        """What `work` returns, or None where it raises InputError."""
        try:
            return work()
        except InputError as error:
            if str(error) not in self._lines:
                self._lines.append(str(error))
            return None

    def tell(self) -> None:
        """Raises InputError, in one line, if there were any."""
        if self._lines:
            raise InputError("; ".join(self._lines))
