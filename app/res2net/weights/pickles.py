"""Files that are pickles, read without running what they may carry.

A pickle names functions to call. Only those of the lists below are ever called, and they build
numbers, arrays and tables; a file that names anything else is refused with that name.
"""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray

from res2net.errors import InputError
from res2net.files.runs import is_sound


def _from_buffer(buffer: Any, dtype: np.dtype, shape: tuple[int, ...], order: Any) -> np.ndarray:
    """What protocol 5 of pickle calls for an array."""
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)


# NumPy's builders of arrays and scalars. Before NumPy 2 they lived in `numpy.core`.
_NUMPY: dict[str, Callable[..., Any]] = {
    f"{home}.{name}": builder
    for home in ("numpy._core", "numpy.core")
    for name, builder in (
        ("multiarray._reconstruct", multiarray._reconstruct),
        ("multiarray.scalar", multiarray.scalar),
        ("numeric._frombuffer", _from_buffer),
    )
} | {"numpy.ndarray": np.ndarray, "numpy.dtype": np.dtype}
# Beside the tensors, mm*'s `meta` has strings and numbers, some of them NumPy's (scores, times);
# timm's training script stores its arguments. A Namespace only holds what it is given.
_BESIDE_TENSORS: list[Any] = [
    *((builder, name) for name, builder in _NUMPY.items()),
    *{type(np.dtype(kind)) for kind in "?bhilqBHILQefd"},
    argparse.Namespace,
]
_NUMBERS = "biuf"  # kinds of dtype
_ZIP = b"PK\x03\x04"
# The number that files of before PyTorch 1.6 begin with, as a pickle.
_LEGACY = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)


class UnknownKindError(InputError):
    """The file is none that can be read here, or damaged: which of both cannot be told."""


def is_torch(first: bytes) -> bool:
    """Whether a file with these first bytes, 32 of them, is one of `torch.save`, or a zip."""
    return first.startswith((_ZIP, _LEGACY))


def read_torch(file: Path) -> Any:
    """What `torch.save` wrote, zip archive or older, tensors on the CPU.

    Raises:
        InputError: The file is empty or damaged, cannot be read, or carries other objects than
            tensors, numbers, strings and tables.
    """
    try:
        with file.open("rb") as stream:
            magic = stream.read(4)
        if not magic:
            raise InputError("the file is empty")
        is_zip = magic == _ZIP
        # torch.load checks no sums: a flipped bit would become a quietly different network.
        if is_zip and not is_sound(file):
            raise InputError("the file is damaged or cut short")
        with warnings.catch_warnings(), torch.serialization.safe_globals(_BESIDE_TENSORS):
            # About pickle protocols: what comes of it is said in the error's one line.
            warnings.simplefilter("ignore", UserWarning)
            if file.suffix == ".safetensors":  # a name that torch.load believes
                with file.open("rb") as stream:
                    return torch.load(stream, map_location="cpu", weights_only=True)
            # Files of before PyTorch 1.6 are no zip archives and cannot be mapped.
            return torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})") from error
    # Foreign bytes make the reader fail in any way it can: struct, index, key, memory errors.
    except Exception as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and named is not None:
            raise InputError(_refusal(named.group(1))) from error
        raise UnknownKindError("is damaged, cut short or no PyTorch file of weights") from error


def read_paddle(file: Path) -> dict[str, torch.Tensor]:
    """The arrays of a `.pdparams` file, which is a pickle of a table of NumPy arrays.

    Raises:
        InputError: As `read_torch`; or the file holds something else than arrays of numbers.
    """
    try:
        with file.open("rb") as stream:
            if not stream.read(1):
                raise InputError("the file is empty")
            stream.seek(0)
            stored = _NumpyUnpickler(stream, encoding="latin1").load()
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})") from error
    except Exception as error:
        raise UnknownKindError("is damaged, cut short or no file of PaddlePaddle") from error
    if not isinstance(stored, Mapping):
        raise InputError(f"holds a {type(stored).__name__}, not a table of weights")
    tensors: dict[str, torch.Tensor] = {}
    for key, value in stored.items():
        if key == "StructuredToParameterName@@":  # other names of the same arrays
            continue
        if not isinstance(value, np.ndarray) or value.dtype.kind not in _NUMBERS:
            raise InputError(f"entry {key!r} is a {type(value).__name__}, not an array of numbers")
        tensors[key] = torch.from_numpy(np.array(value))  # a copy, which may be written to
    return tensors


class _NumpyUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        wanted = f"{module}.{name}"
        if wanted in _NUMPY:
            return _NUMPY[wanted]
        if wanted in ("collections.OrderedDict", "_codecs.encode"):
            return OrderedDict if name == "OrderedDict" else _latin1
        raise InputError(_refusal(wanted))


def _latin1(text: str, encoding: str) -> bytes:
    """How protocol 2 spells bytes; `_codecs.encode` itself would take any codec."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes spelt in {encoding!r}")
    return text.encode("latin1")


def _refusal(name: str) -> str:
    return f"carries the Python object {name}, which could run code: refused"
