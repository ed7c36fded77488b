"""One shard: a tar file, and beside it its part of the index. The same bytes each time."""

from __future__ import annotations

import hashlib
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from res2net.data.sharding.images import Images
from res2net.data.sharding.keys import extension_of, key_of
from res2net.data.sharding.pixels import QUALITY, Corrupt, shrink
from res2net.data.sources.shards import RECORD, UNFINISHED, shard_name
from res2net.errors import WorkError
from res2net.files.atomic import atomic_write

_BLOCK = tarfile.BLOCKSIZE
_LARGEST = 1 << 32  # RECORD gives an image's length in 32 bits


class Stopped(Exception):
    """Another worker met an error, or the user an end: this shard is given up."""


@dataclass(frozen=True)
class Recipe:
    """What is done to an image."""

    resize: int | None = None
    """Pixels of the short side, at most. None: images are copied byte for byte."""
    quality: int = QUALITY
    skip_corrupt: bool = False
    """Leave out images that cannot be decoded, instead of raising CorruptImage."""


@dataclass(frozen=True)
class Part:
    """What is known of a finished shard."""

    records: np.ndarray
    """data.sources.shards.RECORD (images,)."""
    bytes: int
    sha256: str
    left_out: list[tuple[str, str]]
    """Names of images and why each was left out."""


class CorruptImage(WorkError):
    """An image that cannot be decoded, with its name."""


def prepared(content: bytes, recipe: Recipe) -> bytes:
    """An image file as it is stored. Raises Corrupt."""
    if not content:
        raise Corrupt("is empty")
    if len(content) >= _LARGEST:
        raise Corrupt("has 4 GiB or more")
    if recipe.resize is None:
        return content
    return shrink(content, recipe.resize, recipe.quality) or content


def member_size(length: int) -> int:
    """Bytes that an image of so many takes in a shard: headers, padding and label with it."""
    return _BLOCK + _padded(length) + 2 * _BLOCK


def write_shard(
    directory: Path,
    split: str,
    number: int,
    indices: range,
    images: Images,
    keys: Mapping[int, str],
    recipe: Recipe,
    on_image: Callable[[], None],
) -> None:
    """Write a tar file and its part of the index, each under its name only when it is whole.

    Args:
        keys: of images whose path does not give the key.
        on_image: called after each image; may raise to end the work, which leaves nothing.

    Raises CorruptImage, and OSError where the disk is full or an image cannot be read.
    """
    records = np.zeros(len(indices), dtype=RECORD)
    written, left_out = 0, []
    with atomic_write(directory / shard_name(split, number)) as stream:
        tar = _Tar(stream)
        for index in indices:
            path = images.path(index)
            try:
                original = _read(images, index)
                content = prepared(original, recipe)
            except Corrupt as error:
                if not recipe.skip_corrupt:
                    raise CorruptImage(f"{images.name(index)} {error}") from error
                left_out.append((images.name(index), str(error)))
            else:
                extension = "jpg" if content is not original else extension_of(path, content)
                key = keys.get(index) or key_of(path)
                label = int(images.labels[index])
                before = tar.position
                offset = tar.add(f"{key}.{extension}", content)
                tar.add(f"{key}.cls", str(label).encode("ascii"))
                records[written] = (offset, label, len(content), number, offset - before)
                written += 1
            on_image()
        tar.end()
    store_part(
        directory,
        split,
        number,
        Part(records[:written], tar.position, tar.hash.hexdigest(), left_out),
    )


def store_part(directory: Path, split: str, number: int, part: Part) -> None:
    """After the tar file: a shard whose part is there is finished."""
    told = {"bytes": part.bytes, "sha256": part.sha256, "left_out": part.left_out}
    with atomic_write(_part_path(directory, split, number)) as stream:
        np.savez(
            stream,
            records=part.records,
            told=np.frombuffer(json.dumps(told).encode("ascii"), dtype=np.uint8),
        )


def read_part(directory: Path, split: str, number: int) -> Part | None:
    """None: the shard is not finished."""
    try:
        with np.load(_part_path(directory, split, number)) as stored:
            told = json.loads(stored["told"].tobytes())
            part = Part(
                records=stored["records"],
                bytes=told["bytes"],
                sha256=told["sha256"],
                left_out=[(name, reason) for name, reason in told["left_out"]],
            )
        size = (directory / shard_name(split, number)).stat().st_size
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None
    return part if size == part.bytes else None


def _read(images: Images, index: int) -> bytes:
    try:
        return images.read(index)
    except OSError as error:  # of a disk or a network: not the image's fault, and never skipped
        raise WorkError(f"{images.name(index)}: cannot be read ({error})") from error


def _part_path(directory: Path, split: str, number: int) -> Path:
    return directory / UNFINISHED / f"{split}-{number:06}.npz"


@dataclass
class _Tar:
    """A tar file without a trace of when, where and by whom it was written."""

    stream: BinaryIO
    position: int = 0
    hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    def add(self, name: str, content: bytes) -> int:
        """Returns the offset of the first byte of `content`."""
        self._write(_header(name, len(content)))
        offset = self.position
        self._write(content)
        self._write(bytes(_padded(len(content)) - len(content)))
        return offset

    def end(self) -> None:
        """Two empty blocks, and more to fill a record as other programs do."""
        end = self.position + 2 * _BLOCK
        self._write(bytes(end - self.position + -end % tarfile.RECORDSIZE))

    def _write(self, content: bytes) -> None:
        self.stream.write(content)
        self.hash.update(content)
        self.position += len(content)


def _header(name: str, size: int) -> bytes:
    """One block; three or more where the name is longer than ustar can have it (PAX)."""
    member = tarfile.TarInfo(name)  # mtime 0, owner 0, no names of users, mode 0644
    member.size = size
    try:
        return member.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
    except ValueError:
        return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def _padded(length: int) -> int:
    return length + -length % _BLOCK
