"""The files of `torch.save`: zip archives, and what PyTorch wrote before version 1.6.

Both are a pickle of what was saved, and the bytes of its tensors. The pickle is read as data
(`files.pickles`); the tensors are made here, of dense kinds only and no larger than their bytes.
"""

from __future__ import annotations

import mmap
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from res2net.errors import DamagedFileError, InputError
from res2net.files.inert import Inert, Maker
from res2net.files.pickled_arrays import NUMPY
from res2net.files.pickles import PLAIN, budget_of, read_pickle
from res2net.files.runs import is_sound

_ZIP = b"PK\x03\x04"
_LOCAL_HEADER = 30
"""Bytes of a zip member's own header before its name, whose length stands in the last four."""
_MAGIC = torch.serialization.MAGIC_NUMBER
# What files of before PyTorch 1.6 begin with: that number, as a pickle.
_LEGACY = pickle.dumps(_MAGIC, protocol=2)
# What a table of contents that was made to do harm does to `zipfile` and to the reader below.
_DAMAGES = (
    DamagedFileError, zipfile.BadZipFile, struct.error, ArithmeticError, LookupError, MemoryError,
    NotImplementedError, TypeError, ValueError,
)  # fmt: skip
_DIMENSIONS = 64
"""More than PyTorch's tensors have."""
_ALIGNMENT = 16
"""Bytes. `torch.save` aligns to 64; what is off is copied to where it may be read at once."""

_DTYPES = {
    str(dtype): dtype
    for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
        torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.complex32,
        torch.complex64, torch.complex128, torch.int64, torch.int32, torch.int16, torch.int8,
        torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool,
    )
}  # fmt: skip
_STORAGES = {
    f"torch.{name}Storage": dtype
    for name, dtype in (
        ("Double", torch.float64), ("Float", torch.float32), ("Half", torch.float16),
        ("BFloat16", torch.bfloat16), ("Long", torch.int64), ("Int", torch.int32),
        ("Short", torch.int16), ("Char", torch.int8), ("Byte", torch.uint8), ("Bool", torch.bool),
        ("QInt8", torch.int8), ("QUInt8", torch.uint8), ("QInt32", torch.int32),
        ("ComplexFloat", torch.complex64), ("ComplexDouble", torch.complex128),
    )
} | {"torch.storage.UntypedStorage": torch.uint8}  # fmt: skip

# What may lie beside the weights and is not made: arguments of timm's training script, and kinds
# of tensors that no weights here are of.
_INERT = frozenset(
    {
        "argparse.Namespace",
        "builtins.complex",
        "__builtin__.complex",
        "torch.device",
        "torch.serialization._get_layout",
        *(
            f"torch._utils._rebuild_{kind}"
            for kind in (
                "sparse_tensor", "meta_tensor_no_storage", "qtensor", "nested_tensor",
                "device_tensor_from_numpy", "device_tensor_from_cpu_tensor", "sparse_csr_tensor",
                "wrapper_subclass",
            )
        ),
        *(f"torch.{kind}" for kind in ("per_tensor_affine", "per_channel_affine")),
        "torch.Tensor",
        "torch.nn.parameter.Buffer",
        "torch.nn.parameter.Parameter",
    }
)  # fmt: skip


def is_torch(first: bytes) -> bool:
    """Whether a file with these first bytes, 32 of them, is one of `torch.save`, or a zip."""
    return first.startswith((_ZIP, _LEGACY))


def read_torch(file: Path, *, mapped: bool = True) -> Any:
    """What `torch.save` wrote: tensors on the CPU, plain values, `Inert` for what is known beside.

    Args:
        file: A zip archive, or a file of before PyTorch 1.6.
        mapped: Tensors of a zip archive may share the memory of the file, which has to stay as it
            is while they are used. Without it each has memory of its own.

    Raises:
        InputError: The file is empty or damaged, cannot be read, declares more than it holds, or
            names other Python objects than tensors, numbers, strings and tables need.
    """
    try:
        with file.open("rb") as stream:
            magic = stream.read(4)
            if not magic:
                raise InputError("the file is empty")
            # PyTorch checks no sums: a flipped bit would become a quietly different network.
            if magic == _ZIP and not is_sound(file):
                raise InputError("the file is damaged or cut short")
            content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        return _read_zip(file, content, mapped) if magic == _ZIP else _read_legacy(content)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})") from error
    except _DAMAGES as error:
        if isinstance(error, InputError) and not isinstance(error, DamagedFileError):
            raise
        raise DamagedFileError("is damaged, cut short or no PyTorch file of weights") from error


def _read_zip(file: Path, content: mmap.mmap, mapped: bool) -> Any:
    with zipfile.ZipFile(file) as archive:
        members = {entry.filename: entry for entry in archive.infolist()}
    folder = next((name[: -len("data.pkl")] for name in members if _is_pickle(name)), None)
    if folder is None:
        raise DamagedFileError("an archive without tensors")
    if f"{folder}constants.pkl" in members:
        raise InputError("holds a TorchScript program; give the weights that it was made from")
    storages: dict[str, torch.UntypedStorage] = {}

    def place_of(name: str) -> tuple[int, int]:
        """Where the content of a member begins and ends."""
        entry = members[folder + name]
        header = content[entry.header_offset : entry.header_offset + _LOCAL_HEADER]
        begin = entry.header_offset + _LOCAL_HEADER + sum(struct.unpack("<HH", header[26:]))
        if entry.compress_type != zipfile.ZIP_STORED or begin + entry.file_size > len(content):
            raise ValueError("not as PyTorch writes it")
        return begin, begin + entry.file_size

    def storage(key: str, size: int) -> torch.UntypedStorage:
        begin, end = place_of(f"data/{key}")
        if size > end - begin:
            raise ValueError("more declared than there is")
        if key not in storages:
            found = _storage_at(content, begin, end - begin)
            storages[key] = found if mapped and begin % _ALIGNMENT == 0 else found.clone()
        return storages[key]

    if f"{folder}byteorder" in members:
        begin, end = place_of("byteorder")
        _check_order(content[begin:end].decode("ascii", "replace"))
    content.seek(place_of("data.pkl")[0])
    return _read_pickle(content, storage, budget_of(len(content)))


def _is_pickle(name: str) -> bool:
    folder, _, leaf = name.rpartition("/")
    return leaf == "data.pkl" and bool(folder) and "/" not in folder


def _read_legacy(content: mmap.mmap) -> Any:
    """What is in a file of before 1.6: five pickles, then the numbers of each storage.

    The pickles are a magic number, a version, facts of the machine, what was saved, and the names
    of the storages; each of these is the count of its elements in eight bytes, then they.
    """
    budget = budget_of(len(content))
    magic, _, machine = (read_pickle(content, known=PLAIN, budget=budget) for _ in range(3))
    if magic != _MAGIC or not isinstance(machine, dict):
        raise DamagedFileError("no file of PyTorch")
    _check_order("little" if machine.get("little_endian", True) else "big")
    storages: dict[str, torch.UntypedStorage] = {}
    left = len(content)

    def storage(key: str, size: int) -> torch.UntypedStorage:
        nonlocal left
        if key not in storages:
            left -= size
            if left < 0:
                raise ValueError("more declared than there is")
            storages[key] = torch.UntypedStorage(size)
        if size != storages[key].nbytes():
            raise ValueError("two sizes of one storage")
        return storages[key]

    stored = _read_pickle(content, storage, budget)
    keys = read_pickle(content, known=PLAIN, budget=budget)
    if not isinstance(keys, list) or sorted(keys) != sorted(storages):
        raise DamagedFileError("another list of storages")
    for key in keys:
        target = storages[key]
        count = int.from_bytes(content.read(8), "little")
        begin, size = content.tell(), target.nbytes()
        if begin + size > len(content) or not count <= size <= 16 * count:
            raise DamagedFileError("cut short")
        if size:
            target.copy_(_storage_at(content, begin, size))
        content.seek(begin + size)
    return stored


def _storage_at(content: mmap.mmap, begin: int, size: int) -> torch.UntypedStorage:
    """Memory of the map itself."""
    if not size:
        return torch.UntypedStorage(0)
    found = torch.frombuffer(content, dtype=torch.uint8, count=size, offset=begin)
    return found.untyped_storage()


def _check_order(order: str) -> None:
    if order != sys.byteorder:
        raise InputError(
            f"its numbers are {order}-endian, this machine's are {sys.byteorder}-endian"
        )


def _read_pickle(
    content: mmap.mmap, storage: Callable[[str, int], torch.UntypedStorage], budget: int
) -> Any:
    """What was saved, with its tensors. `storage`: by its key and at least this many bytes."""

    def refer(reference: Any) -> tuple[torch.UntypedStorage, torch.dtype] | Inert:
        what, dtype, key, _, count, *view = reference
        if what != "storage" or not isinstance(key, str) or not _is_count(count) or any(view):
            raise ValueError("an unknown reference")
        if not isinstance(dtype, torch.dtype):
            return Inert("torch.storage.UntypedStorage")
        return storage(key, count * dtype.itemsize), dtype

    return read_pickle(
        content,
        known={
            **PLAIN,
            **NUMPY,
            **_DTYPES,
            **_STORAGES,
            "torch.Size": Maker(_size),
            "torch._utils._rebuild_tensor": Maker(_tensor),
            "torch._utils._rebuild_tensor_v2": Maker(_tensor),
            "torch._utils._rebuild_tensor_v3": Maker(_tensor_of_kind),
            "torch._tensor._rebuild_from_type_v2": Maker(_tensor_of_type),
            "torch._utils._rebuild_parameter": Maker(_parameter),
            "torch._utils._rebuild_parameter_with_state": Maker(_parameter),
        },
        inert=_INERT,
        persistent=refer,
        budget=budget,
    )


def _tensor(
    reference: Any, offset: Any, size: Any, stride: Any, *more: Any
) -> torch.Tensor | Inert:
    """A dense tensor on the memory of a storage."""
    flags = more[2] if len(more) > 2 else None
    if isinstance(reference, Inert) or flags:  # read with another sign than it is stored with
        return Inert("torch.Tensor with flags")
    storage, dtype = reference
    return _on_storage(storage, dtype, offset, size, stride)


def _tensor_of_kind(
    reference: Any, offset: Any, size: Any, stride: Any, _: Any, __: Any, dtype: Any, *___: Any
) -> torch.Tensor:
    """The same where the storage does not say of which kind its numbers are."""
    storage, _ = reference
    if not isinstance(dtype, torch.dtype):
        raise TypeError
    return _on_storage(storage, dtype, offset, size, stride)


def _on_storage(
    storage: torch.UntypedStorage, dtype: torch.dtype, offset: Any, size: Any, stride: Any
) -> torch.Tensor:
    if not isinstance(size, tuple) or not isinstance(stride, tuple) or len(size) != len(stride):
        raise TypeError
    if not all(map(_is_count, (offset, *size, *stride))):
        raise TypeError
    if len(size) > _DIMENSIONS:
        raise ValueError("too many dimensions")
    count = 1
    for length in size:
        count *= length
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    held = storage.nbytes() // dtype.itemsize
    if count and last >= held:
        raise ValueError("more declared than there is")
    if count > held:  # a stride of 0 makes many of one, which grow to their full size as copies
        raise InputError(f"holds an expanded tensor, {count:,} numbers of {held:,}: save its clone")
    tensor = torch.empty(0, dtype=dtype)
    return tensor.set_(storage, offset if count else 0, size, stride)


def _tensor_of_type(make: Any, kind: Any, args: Any, *_: Any) -> Any:
    """A tensor of a type of its own, as a buffer is one: the plain tensor."""
    if not isinstance(make, Maker) or not isinstance(args, tuple):
        return Inert("torch.Tensor of another type")
    return make.make(*args)


def _parameter(tensor: Any, *_: Any) -> Any:
    """The tensor itself: whether it is trained is not a file's to say."""
    return tensor


def _size(lengths: Any) -> tuple[Any, ...]:
    if not isinstance(lengths, tuple | list):
        raise TypeError
    return tuple(lengths)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48
