"""Pickles, and the files that hold them, with what no saver would write."""

from __future__ import annotations

import io
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import torch


class Call:
    """Pickled as a call of `name` with `args`, whatever it is, and then of its `__setstate__`."""

    def __init__(self, name: str, *args: Any, state: Any = None) -> None:
        self.name, self.args, self.state = name, args, state


class Constant:
    """Pickled as a name that is not called."""

    def __init__(self, name: str) -> None:
        self.name = name


class Reference:
    """Pickled as a reference out of the pickle, such as a tensor's storage."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts


def spell(value: Any) -> bytes:
    """Protocol 2 for these and for plain values, without its end."""
    if isinstance(value, Call):
        module, _, name = value.name.rpartition(".")
        made = b"c" + module.encode() + b"\n" + name.encode() + b"\n" + spell(value.args) + b"R"
        return made if value.state is None else made + spell(value.state) + b"b"
    if isinstance(value, Reference):
        return spell(value.parts) + b"Q"
    if isinstance(value, Constant):
        module, _, name = value.name.rpartition(".")
        return b"c" + module.encode() + b"\n" + name.encode() + b"\n"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(spell, value)) + b"t"
    if isinstance(value, dict):
        return b"}(" + b"".join(spell(key) + spell(item) for key, item in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(spell, value)) + b"e"
    return pickle.dumps(value, 3)[2:-1]


def forged(value: Any) -> bytes:
    """A whole pickle of it."""
    return b"\x80\x02" + spell(value) + b"."


def torch_zip(pickle: bytes, storages: Mapping[str, bytes], *, compressed: bool = False) -> bytes:
    """An archive as `torch.save` writes it, all sums right."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if compressed else 0) as archive:
        archive.writestr("archive/data.pkl", pickle)
        archive.writestr("archive/byteorder", "little")
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key}", content)
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


def torch_legacy(pickle_: bytes, storages: Mapping[str, bytes], *, item: int = 4) -> bytes:
    """The same as before PyTorch 1.6."""
    magic = torch.serialization.MAGIC_NUMBER
    facts = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    head = b"".join(pickle.dumps(value, 2) for value in (magic, 1001, facts))
    numbers = (
        (len(content) // item).to_bytes(8, "little") + content for content in storages.values()
    )
    return head + pickle_ + pickle.dumps(list(storages), 2) + b"".join(numbers)


def summed(archive: bytes) -> bytes:
    """With this project's own sum of the whole file, which a stranger can reckon too."""
    body = archive[:-2] + (len(b"res2net crc32 ") + 8).to_bytes(2, "little")
    return body + b"res2net crc32 " + f"{zlib.crc32(body):08x}".encode()
