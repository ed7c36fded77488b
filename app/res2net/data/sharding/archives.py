"""ImageNet's own archives, read where they lie: ILSVRC2012_img_train.tar and ..._img_val.tar.

The first is a tar of 1,000 tars, <wnid>.tar, each of that class's images; the second is flat, and
its labels stand in a file beside it (`data.labels`), or in the devkit's archive. Only the headers
are read to find the images; nothing is unpacked.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, ClassVar

import numpy as np

from res2net.data.sharding.images import below
from res2net.data.sources.folder import FolderSource
from res2net.data.sources.labels import FILES, find_labels, label_images
from res2net.data.sources.scan import EXTENSIONS
from res2net.errors import InputError

TRAIN_ARCHIVE = "ILSVRC2012_img_train.tar"
VAL_ARCHIVE = "ILSVRC2012_img_val.tar"
IMAGES = {TRAIN_ARCHIVE: 1_281_167, VAL_ARCHIVE: 50_000}
"""How many each of them has."""

_DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
_GROUND_TRUTH = f"ILSVRC2012_devkit_t12/data/{FILES[0]}"

Place = tuple[int, int]
"""Offset and length of an image in the archive, in bytes."""


@dataclass(frozen=True)
class ArchiveImages:
    """Images in a tar file, at offsets known before."""

    archive: str
    paths: FolderSource = field(repr=False)
    """Names, labels and order: as if the archive were unpacked to class folders."""
    offsets: np.ndarray = field(repr=False)
    lengths: np.ndarray = field(repr=False)
    kind: ClassVar[str] = "imagenet-tar"

    @classmethod
    def of_members(
        cls,
        archive: str,
        class_names: Sequence[str],
        files: dict[str, list[str]],
        places: Sequence[np.ndarray],
    ) -> ArchiveImages:
        """`files` gives each class's paths, sorted, `places` where they lie, int64 (count, 2)."""
        table = np.concatenate(places)
        return cls(
            archive=archive,
            paths=FolderSource.of_files(archive, class_names, files),
            offsets=table[:, 0],
            lengths=table[:, 1],
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.paths.class_names

    @property
    def labels(self) -> np.ndarray:
        """int64 (count,)."""
        return self.paths.labels

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, index: int) -> str:
        """As the archive is usually unpacked: `n01440764/n01440764_10026.JPEG`."""
        return below(self.paths.path(index), self.archive)

    def name(self, index: int) -> str:
        """The archive, and the image in it."""
        return self.paths.name(index)

    def read(self, index: int) -> bytes:
        """The image file."""
        length = int(self.lengths[index])
        file = _opened(self.archive, os.getpid())
        file.seek(int(self.offsets[index]))
        content = file.read(length)
        if len(content) < length:
            raise OSError(f"{self.archive} ends within {self.path(index)}")
        return content


@lru_cache(maxsize=4)
def _opened(archive: str, process: int) -> IO[bytes]:
    # By process: a forked one must not share the position in the file.
    return open(archive, "rb")


def open_train(archive: str) -> ArchiveImages:
    """The tar of tars. Raises InputError where it is none, damaged or not whole."""
    files: dict[str, list[str]] = {}
    places: dict[str, np.ndarray] = {}
    with _open(archive) as file, _reading(archive, file) as outer:
        for member in _members(archive, outer, file):
            if not member.name.endswith(".tar"):
                continue
            wnid = os.path.basename(member.name).removesuffix(".tar")
            inner_name = f"{archive}/{member.name}"
            window = outer.extractfile(member)
            assert window is not None  # it is a regular file
            with window, _reading(inner_name, window) as inner:
                found = {
                    f"{wnid}/{os.path.basename(image.name)}": (
                        member.offset_data + image.offset_data,
                        image.size,
                    )
                    for image in _members(inner_name, inner, window)
                    if _is_image(image.name)
                }
            files[wnid] = sorted(found)
            places[wnid] = _table(found, files[wnid])
    if not any(files.values()):
        raise InputError(f"{archive}: expected a tar of tars of images, one for each class")
    names = sorted(files)
    return ArchiveImages.of_members(
        archive, names, {name: files[name] for name in names}, [places[name] for name in names]
    )


def open_val(
    archive: str, *, labels: str | None, class_names: Sequence[str] | None
) -> ArchiveImages:
    """The flat tar, with labels from a file; None: found as for a flat folder, or in the devkit.

    Raises InputError where it is damaged, or images and labels do not fit together.
    """
    with _open(archive) as file, _reading(archive, file) as opened:
        places = {
            os.path.basename(image.name): (image.offset_data, image.size)
            for image in _members(archive, opened, file)
            if _is_image(image.name)
        }
    if not places:
        raise InputError(f"{archive}: no images in it (known: {', '.join(EXTENSIONS)})")
    with tempfile.TemporaryDirectory() as unpacked:
        if labels is None:
            labels = _labels_of_devkit(archive, unpacked)
        # the archive stands for the folder that it unpacks to: labels lie beside it
        names, files = label_images(archive, sorted(places), labels=labels, class_names=class_names)
    tables = [_table(places, paths) for paths in files.values()]
    return ArchiveImages.of_members(archive, names, files, tables)


def _table(places: Mapping[str, Place], paths: Sequence[str]) -> np.ndarray:
    """The places of `paths` in their order, int64 (count, 2)."""
    return np.array([places[path] for path in paths], dtype=np.int64).reshape(-1, 2)


def _labels_of_devkit(archive: str, unpacked: str) -> str | None:
    """The ground truth in the devkit's archive, where it lies here and no file of labels does."""
    devkit = os.path.join(os.path.dirname(archive), _DEVKIT)
    if not os.path.isfile(devkit):
        return None
    try:
        find_labels(archive)
    except InputError:
        try:
            with tarfile.open(devkit, "r:gz") as opened:
                truth = opened.extractfile(_GROUND_TRUTH)
                assert truth is not None
                content = truth.read()
        except (tarfile.TarError, OSError, EOFError, KeyError) as error:
            raise InputError(f"{devkit}: no {_GROUND_TRUTH} can be read ({error})") from error
        target = Path(unpacked, FILES[0])
        target.write_bytes(content)
        return str(target)
    return None


def _open(archive: str) -> IO[bytes]:
    try:
        return open(archive, "rb")
    except OSError as error:
        raise InputError(f"{archive}: cannot be read ({error.strerror})") from error


def _reading(name: str, file: IO[bytes]) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=file, mode="r:")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(f"{name}: not an uncompressed tar file ({error})") from error


def _members(name: str, opened: tarfile.TarFile, file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """Regular files. Raises InputError where the archive is damaged or cut off."""
    end = file.seek(0, os.SEEK_END)
    try:
        while (member := opened.next()) is not None:
            opened.members = []  # type: ignore[attr-defined]  # a million would take a gigabyte
            if member.isfile():
                if member.offset_data + member.size > end:
                    raise InputError(f"{name}: cut off within {member.name}; fetch it again")
                yield member
        file.seek(opened.offset)
        beyond = file.read(tarfile.BLOCKSIZE)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(f"{name}: damaged ({error}); fetch it again") from error
    if any(beyond):  # tarfile takes a damaged header for the end; the end are empty blocks
        raise InputError(f"{name}: damaged at byte {opened.offset:,}; fetch it again")


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS) and not os.path.basename(name).startswith(".")
