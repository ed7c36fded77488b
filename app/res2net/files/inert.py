"""What a pickle that is read as data has in place of what it would have made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from res2net.errors import InputError

_LARGEST_KEY = 1 << 60
"""Whole numbers up to here are their own hash: others can be made to collide by the million."""


class RefusedNameError(InputError):
    """The pickle names a Python object that is neither known nor inert."""


class Maker:
    """A function of the reader that stands for a name and is called with plain, foreign values.

    It must hold against any arguments. Errors of type TypeError and ValueError mean: damaged.
    """

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make


class Inert:
    """An object of a pickle that was not made: what would have been called, and with what."""

    def __init__(self, name: str, args: tuple[Any, ...] = ()) -> None:
        self.name = name
        self.args = args
        self.state: Any = None
        """What `__setstate__` or `__dict__` would have been given."""
        self.items: list[Any] = []
        """What would have been appended, if it were a list or a set."""
        self.pairs: list[tuple[Any, Any]] = []
        """What would have been set, if it were a table."""

    def __repr__(self) -> str:
        return f"<{self.name}, not made>"

    def build(self, state: Any) -> None:
        """Take the state that comes with the object."""
        self.state = state


def key_of(key: Any) -> Any:
    """A key that costs nothing to compare, or TypeError.

    Tuples of tuples of themselves take for ever to hash: a flat one may be a key, no deeper one.
    """
    if isinstance(key, int) and abs(key) >= _LARGEST_KEY:
        raise TypeError
    if isinstance(key, tuple):
        if len(key) > 8 or not all(isinstance(part, str | bytes | int | None) for part in key):
            raise TypeError
        for part in key:
            key_of(part)
    elif not isinstance(key, str | bytes | int | float | Inert | None):
        raise TypeError
    return key
