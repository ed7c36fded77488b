"""Files that somebody else may have written, read within bounds: plain bytes, text and JSON.

Whatever such a file is or says, reading it ends in plain values or in one line of InputError that
names it, and takes no more than ten times its bytes, and 64 MB, of memory: its size is looked at
before it is read, its parts are counted before or while they are made, and nothing calls itself
once for each level. A pipe or a device is refused and never waited for.

All functions that take a path raise OSError as the disk gives it.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from res2net.errors import InputError

MOST_BYTES = 4 * 2**20
"""Of a file, where nothing else is said: of a run's summary a thousand times as much as it has."""
MOST_VALUES = 600_000
"""In a file of JSON: the shards of the largest data set that there may be are half as many."""
DEEPEST = 32
"""Lists and tables within each other."""
_LONGEST_NUMBER = 400
"""Digits. Python reads 4,300, whose square takes a while."""
_LARGEST = 2**63

# What UTF-8 has not, beside the bytes of file names that `os.fsdecode` spells so
_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")


# --- Bytes and text ------------------------------------------------------------------------------


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a plain file for reading. Raises InputError if it is anything else."""
    # a pipe would be waited for
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            what = "a directory" if stat.S_ISDIR(mode) else "a pipe or a device"
            raise InputError(f"{os.fspath(path)}: is {what}, not a plain file")
    except BaseException:
        os.close(descriptor)
        raise
    with open(descriptor, "rb") as file:
        yield file


def read_bytes(path: str | os.PathLike[str], *, most: int = MOST_BYTES) -> bytes:
    """The content of a plain file, even of one that grows. Raises InputError: see the module."""
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        # None: of what only looks like a plain file and has nothing yet, as in /proc
        content = (file.read(most + 1) or b"") if size <= most else b""
    if max(size, len(content)) > most:
        raise InputError(
            f"{os.fspath(path)}: has {max(size, len(content)):,} bytes, and its kind at most "
            f"{most:,}"
        )
    return content


def read_text(
    path: str | os.PathLike[str], *, most: int = MOST_BYTES, errors: str = "strict"
) -> str:
    """The text of a plain file in UTF-8, a mark of byte order left out. Raises InputError."""
    return _decoded(read_bytes(path, most=most), os.fspath(path), errors)


def last_lines(path: str | os.PathLike[str], *, most: int = MOST_BYTES) -> list[str]:
    """The whole lines at the end of a plain file that fit into so many bytes.

    What comes after the last end of a line is none yet. Bytes that are not UTF-8 are as
    `os.fsdecode` has them. Raises InputError if it is no plain file.
    """
    with opened(path) as file:
        start = max(os.fstat(file.fileno()).st_size - most, 0)
        file.seek(start)
        text = (file.read(most) or b"").decode("utf-8", "surrogateescape")
    lines = text.split("\n")[:-1]
    return lines[1:] if start else lines


def count_lines(path: str | os.PathLike[str], *, most: int = 16 * MOST_BYTES) -> int:
    """Lines in the first so many bytes of a plain file. Raises InputError if it is none."""
    count, last = 0, b"\n"
    with opened(path) as file:
        while most > 0 and (piece := file.read(min(most, 2**20))):
            count, most, last = count + piece.count(b"\n"), most - len(piece), piece[-1:]
    return count + (last != b"\n")


def _decoded(content: bytes, name: str, errors: str = "strict") -> str:
    try:
        return content.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: is no text in UTF-8 (byte {error.start:,})") from error


# --- JSON ----------------------------------------------------------------------------------------


def read_json(path: str | os.PathLike[str], *, most: int = MOST_BYTES) -> Any:
    """The value that a file of JSON holds. Raises InputError: see `parse_json`."""
    return parse_json(read_bytes(path, most=most), os.fspath(path))


def parse_json(content: bytes | str, name: str) -> Any:
    """The value of a text in JSON (RFC 8259): numbers are finite, integers have 64 bits.

    Args:
        name: what messages call it.

    Raises:
        InputError: it is no JSON, or has too many values, too deep within each other, or texts
            that are no Unicode.
    """
    text = _decoded(content, name) if isinstance(content, bytes) else content
    if sum(map(text.count, "[{,")) > MOST_VALUES:
        raise InputError(f"{name}: holds more than {MOST_VALUES:,} values")
    try:
        value = json.loads(text, parse_int=integer, parse_float=finite, parse_constant=_no_number)
    except RecursionError as error:
        raise InputError(too_deep(name)) from error
    except ValueError as error:
        raise InputError(f"{name}: damaged, not JSON ({error})") from error
    check(value, name)
    return value


def integer(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER or not -_LARGEST <= (value := int(digits)) < _LARGEST:
        raise ValueError(f"an integer of {len(digits)} digits")
    return value


def finite(digits: str) -> float:
    if len(digits) > _LONGEST_NUMBER or not math.isfinite(value := float(digits)):
        raise ValueError(f"{digits[:20]} is beyond all numbers")
    return value


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def check(value: Any, name: str) -> None:
    """Raises InputError for what is too deep, and for texts that nothing can write again."""
    # one iterator a level, and no call
    levels = [iter([value])]
    while levels:
        for inner in levels[-1]:
            if isinstance(inner, str):
                if not inner.isascii() and _SURROGATE.search(inner):
                    raise InputError(f"{name}: holds a text that is no Unicode")
            elif isinstance(inner, (dict, list)):
                if len(levels) > DEEPEST:
                    raise InputError(too_deep(name))
                # a table's keys are texts, too
                levels.append(_both(inner) if isinstance(inner, dict) else iter(inner))
                break
        else:
            levels.pop()


def _both(table: dict[str, Any]) -> Iterator[Any]:
    for key, value in table.items():
        yield key
        yield value


def too_deep(name: str) -> str:
    return f"{name}: holds lists or tables more than {DEEPEST} deep within each other"
