"""The `.pdparams` files of PaddlePaddle: a pickle of a table of NumPy arrays."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from res2net.errors import DamagedFileError, InputError
from res2net.files.inert import RefusedNameError
from res2net.files.pickled_arrays import NUMPY, PickledArray
from res2net.files.pickles import PLAIN, budget_of, read_pickle

_OTHER_NAMES = "StructuredToParameterName@@"


def read_paddle(file: Path) -> dict[str, torch.Tensor]:
    """The arrays of a `.pdparams` file as tensors on the CPU; nothing of it is run.

    Raises:
        InputError: The file is empty, damaged or cannot be read, or it holds something else than
            arrays of numbers.
    """
    try:
        with file.open("rb") as stream:
            if not stream.read(1):
                raise InputError("the file is empty")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                budget = budget_of(len(mapped))
                stored = read_pickle(mapped, known={**PLAIN, **NUMPY}, budget=budget)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})") from error
    except RefusedNameError:
        raise
    except DamagedFileError as error:
        raise DamagedFileError("is damaged, cut short or no file of PaddlePaddle") from error
    if not isinstance(stored, Mapping):
        raise InputError(f"holds a {type(stored).__name__}, not a table of weights")
    tensors: dict[str, torch.Tensor] = {}
    left = 2 * file.stat().st_size
    for key, value in stored.items():
        if key == _OTHER_NAMES:
            continue
        tensors[key] = _tensor(key, value)
        left -= tensors[key].nbytes
        if left < 0:  # many arrays of the same bytes
            raise InputError("its arrays are more than twice the file")
    return tensors


def _tensor(key: object, value: object) -> torch.Tensor:
    if not isinstance(value, PickledArray):
        raise InputError(f"entry {key!r} is a {type(value).__name__}, not an array of numbers")
    try:
        array = value.make()
        # in this machine's order of bytes, and a copy, which may be written to
        return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
    except (TypeError, ValueError) as error:
        raise InputError(f"entry {key!r} is a ndarray, not an array of numbers") from error
