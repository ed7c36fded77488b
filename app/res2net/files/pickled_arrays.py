"""NumPy's arrays and numbers in pickles, made of their bytes by this code and not by NumPy's.

NumPy's own builders of arrays take what they are given: an array of *objects* made of a file's
bytes is an array of addresses, and a `dtype` can be told that it is another one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from res2net.files.inert import Inert, Maker

_KIND = re.compile(r"b1|[iu][1248]|f[248]|c8|c16")
_DIMENSIONS = 32


class PickledType(Inert):
    """A `numpy.dtype` of numbers by its code, such as `f4`. Raises ValueError for any other."""

    def __init__(self, code: Any, *_: Any) -> None:
        super().__init__("numpy.dtype")
        self._code = code
        self._order = "|"

    def build(self, state: Any) -> None:
        """Take the order of bytes, which is all that a state adds to a plain kind."""
        self._order = state[1]

    def make(self) -> np.dtype[Any]:
        """The plain kind of number. Raises ValueError if it is none."""
        code, order = self._code, self._order
        if not isinstance(code, str) or not _KIND.fullmatch(code) or order not in ("<", ">", "|"):
            raise ValueError("no numbers")
        return np.dtype(code) if order == "|" else np.dtype(order + code)


class PickledArray(Inert):
    """A `numpy.ndarray` that is made when it is asked for."""

    def __init__(self, *_: Any) -> None:
        super().__init__("numpy.ndarray")

    def make(self) -> np.ndarray:
        """The array, whose memory is that of the pickle: it cannot be written to.

        Raises:
            ValueError: It is none of numbers, or its bytes are not as many as its shape says.
        """
        try:
            _, shape, kind, in_columns, content = self.state
            if isinstance(content, str):  # bytes of Python 2
                content = content.encode("latin1")
            dtype = kind.make()
            _check_shape(shape, dtype.itemsize, content)
        except (AttributeError, TypeError) as error:
            raise ValueError("a damaged array") from error
        return np.frombuffer(content, dtype).reshape(shape, order="F" if in_columns else "C")


def _check_shape(shape: Any, item: int, content: Any) -> None:
    """Raises ValueError unless `shape` counts what `content` holds."""
    if not isinstance(shape, tuple) or not isinstance(content, bytes | bytearray):
        raise ValueError("a damaged array")
    if len(shape) > _DIMENSIONS:
        raise ValueError("an array of too many dimensions")
    size = item
    for length in shape:
        if not isinstance(length, int) or isinstance(length, bool) or not 0 <= length < 1 << 62:
            raise ValueError("a damaged array")
        size *= length
    if size != len(content):
        raise ValueError("an array of another size than its bytes")


def _array_of_buffer(content: Any, kind: Any, shape: Any, order: Any) -> PickledArray:
    """What protocol 5 has for an array."""
    array = PickledArray()
    array.build((1, shape, kind, order == "F", content))
    return array


def _number(kind: Any, content: Any) -> int | float | complex | bool | Inert:
    if not isinstance(kind, PickledType):
        raise TypeError
    try:
        dtype = kind.make()
    except ValueError:  # text, a date: it lies beside weights and is not needed
        return Inert("numpy.generic")
    _check_shape((), dtype.itemsize, content)
    number: int | float | complex | bool = np.frombuffer(content, dtype)[0].item()
    return number


# Before NumPy 2 the modules were `numpy.core`.
_BUILDERS = {
    "multiarray._reconstruct": Maker(PickledArray),
    "multiarray.scalar": Maker(_number),
    "numeric._frombuffer": Maker(_array_of_buffer),
}
NUMPY: Mapping[str, Any] = {
    f"{home}.{name}": maker
    for home in ("numpy._core", "numpy.core")
    for name, maker in _BUILDERS.items()
} | {"numpy.dtype": Maker(PickledType), "numpy.ndarray": "numpy.ndarray"}
"""The names by which NumPy's arrays, kinds and numbers stand in pickles: `read_pickle(known=...)`.

`numpy.ndarray` is what `_reconstruct` is given; it cannot be called."""
