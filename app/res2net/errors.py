"""The ways in which a command ends before its work is done without being a bug.

All carry one line for people; `cli.main` turns them into exit codes.
"""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class InputError(ValueError):
    """What the user gave cannot be used. The message names the value, the rule and the choices."""


class DamagedFileError(InputError):
    """The bytes of a file are damaged, or of another format: which of both cannot be told."""


class WorkError(RuntimeError):
    """Work failed on the way. The message says what happened, what was kept and what to do next.

    Args:
        of_all_ranks: every rank raises this, so that one needs to tell.
    """

    def __init__(self, message: str = "", *, of_all_ranks: bool = False) -> None:
        super().__init__(message)
        self.of_all_ranks = of_all_ranks


class Stopped(Exception):
    """A signal asked for it, on all ranks at the same step, and the state is saved.

    Args:
        number: of the signal.
    """

    def __init__(self, message: str, *, number: int) -> None:
        super().__init__(message)
        self.number = number


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
