"""Read a pickle as data: plain values, and inert stand-ins for everything else it names.

A pickle is a program for a small machine that may name any function of Python and call it. This is
that machine without the calls: names that a format needs are given meanings by the reader of that
format (`known`), a few more may stand in the file as inert objects (`inert`), and a file that has
any other name is refused. Nothing is imported, and no type of a library is ever handed out: a list
of permitted *names* is no list of permitted *behaviours* (`numpy.ndarray(shape, "O", bytes)` takes
eight bytes of a file for the address of an object).

What a file declares is bounded by what it holds: objects are counted as they are made, keys of
tables are such as cost nothing to compare.
"""

from __future__ import annotations

import mmap
import pickletools
from collections.abc import Callable, Collection, Mapping
from io import BytesIO
from typing import Any, cast

from res2net.errors import DamagedFileError, InputError
from res2net.files.inert import Maker, key_of
from res2net.files.pickle_machine import Machine

_LEAST_BUDGET = 24 << 20
_BUDGET_PER_BYTE = 5


def budget_of(size: int) -> int:
    """Bytes of memory that the pickles of a file of `size` bytes may take."""
    return max(_LEAST_BUDGET, _BUDGET_PER_BYTE * size)


def read_pickle(
    stream: BytesIO | mmap.mmap,
    *,
    known: Mapping[str, Any],
    inert: Collection[str] = (),
    persistent: Callable[[Any], Any] | None = None,
    budget: int,
) -> Any:
    """The value of the next pickle of `stream`, which stands behind it afterwards.

    Args:
        stream: Not a file itself, whose `read` reserves as much memory as a length declares.
        known: Full name -> a constant, or a `Maker`.
        inert: Names that may be called, which gives an `Inert`.
        persistent: The value of a reference out of the pickle. None: there may be none.
        budget: Bytes of memory, see `budget_of`.

    Raises:
        RefusedNameError: The pickle has another name.
        DamagedFileError: It is none, damaged, or wants more than `budget`.
    """
    machine = Machine(known, inert, persistent, budget)
    try:
        for opcode, argument, _ in pickletools.genops(cast(BytesIO, stream)):
            machine.step(opcode.name, argument)
    except InputError:
        raise
    # What foreign bytes do to a reader, and to the makers that it was given.
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        MemoryError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise DamagedFileError(f"a damaged pickle ({type(error).__name__})") from error
    return machine.result


# What stands for the plain types of Python that pickles call by name.


def _bytes_of_text(text: Any, encoding: Any) -> bytes:
    """How protocol 2 spells bytes; Python's own `_codecs.encode` would take any codec."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError
    return text.encode("latin1")


def _table_of(*pairs: Any) -> dict[Any, Any]:
    """`OrderedDict()`, or `OrderedDict([[key, value], ...])` as Python 2 has it."""
    if not pairs:
        return {}
    (given,) = pairs
    if not isinstance(given, list | tuple):
        raise TypeError
    return {key_of(key): value for key, value in given}


def _count_of(*given: Any) -> dict[Any, Any]:
    """`Counter({key: count})`, as schedules with milestones have it."""
    return dict(_only(given, dict)) if given else {}


def _set_of(*values: Any) -> set[Any]:
    if not values:
        return set()
    (given,) = values
    if not isinstance(given, list | tuple):
        raise TypeError
    return set(map(key_of, given))


def _frozen_set_of(*values: Any) -> frozenset[Any]:
    return frozenset(_set_of(*values))


def _byte_array(*given: Any) -> bytes:
    """Of bytes alone: `bytearray(n)` is `n` of them."""
    if not given:
        return b""
    return _bytes_of_text(*given) if len(given) == 2 else bytes(_only(given, bytes | bytearray))


def _only(given: tuple[Any, ...], kind: Any) -> Any:
    (value,) = given
    if not isinstance(value, kind):
        raise TypeError
    return value


PLAIN: Mapping[str, Any] = {
    "collections.OrderedDict": Maker(_table_of),
    "collections.Counter": Maker(_count_of),
    "_codecs.encode": Maker(_bytes_of_text),
    **{
        f"{home}.{name}": Maker(make)
        for home in ("builtins", "__builtin__")
        for name, make in (
            ("set", _set_of),
            ("frozenset", _frozen_set_of),
            ("bytearray", _byte_array),
            ("bytes", _byte_array),
        )
    },
}
"""The names by which pickles of any format spell plain values."""
