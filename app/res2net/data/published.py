"""Small published data sets, brought to a folder that `data.root` can name.

Imagenette is ten classes of ImageNet by fast.ai (https://github.com/fastai/imagenette); addresses
and MD5s are those that torchvision's `Imagenette` states. CIFAR is left in its archive, from which
it is read.
"""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import NamedTuple

from res2net.data.sources import cifar
from res2net.errors import InputError, WorkError
from res2net.files.atomic import link_or_copy, new_folder, sync_directory
from res2net.files.download import download, file_hash

_SITE = "https://s3.amazonaws.com/fast-ai-imageclas/"

# Archive and MD5; the number is the pixels of the short side, without one as in ImageNet.
_IMAGENETTE = {
    "imagenette": ("imagenette2.tgz", "fe2fc210e6bb7c5664d602c3cd71e612"),
    "imagenette-320": ("imagenette2-320.tgz", "3df6f0d01a2c9592104656642f5e78a3"),
    "imagenette-160": ("imagenette2-160.tgz", "e793b78cc4c9e9a4ccc0c1155377a412"),
}

NAMES = ("cifar10", "cifar100", *_IMAGENETTE)


class Fetched(NamedTuple):
    """A data set on this machine."""

    root: Path
    was_there: bool
    """Nothing had to be done."""


def fetch(name: str, root: Path, *, archive: Path | None = None, progress: bool = True) -> Fetched:
    """Bring one of `NAMES` to `root`, unless it is there; at any moment it is whole or not there.

    Args:
        name: The data set.
        root: Its folder: of Imagenette train/ and val/ come to lie in it, of CIFAR the archive.
        archive: The published archive, fetched by other means; None: it is downloaded.
        progress: With bars on stderr where that is a terminal.

    Raises:
        InputError: `root` holds something else, or `archive` is not the published one.
        WorkError: The download fails, or the disk does.
    """
    if archive is not None and not archive.is_file():
        raise InputError(f"{archive}: no such file (--archive)")
    if root.exists() and not root.is_dir():
        raise InputError(f"{root}: a file stands there; choose another folder with --root")
    fetch_one = _fetch_imagenette if name in _IMAGENETTE else _fetch_cifar
    try:
        with new_folder(root if fetch_one is _fetch_cifar else root.parent):
            return fetch_one(name, root, archive, progress)
    except WorkError as error:
        raise WorkError(
            f"{error}; without network, fetch the file elsewhere and give it with --archive FILE"
        ) from error
    except OSError as error:
        raise WorkError(
            f"{root}: {error.strerror or error}; what was there is unchanged"
        ) from error


def _fetch_cifar(name: str, root: Path, archive: Path | None, progress: bool) -> Fetched:
    before = _entries(root)
    if archive is not None:
        forms = cifar._FORMS[name]
        md5 = file_hash(archive, "md5")
        form = next((form for form in forms if form.md5 == md5), None)
        if form is None:
            expected = " or ".join(f"{form.archive} ({form.md5})" for form in forms)
            raise InputError(f"{archive}: its md5 is {md5}, expected that of {expected}")
        if not any({form.folder, form.archive} & before for form in forms):
            root.mkdir(parents=True, exist_ok=True)
            link_or_copy(archive, root / form.archive)
    cifar.load_cifar(name, root)  # downloads, and reads what came to its end
    return Fetched(root, was_there=_entries(root) == before)


def _fetch_imagenette(name: str, root: Path, archive: Path | None, progress: bool) -> Fetched:
    file, md5 = _IMAGENETTE[name]
    if _is_complete(root):
        return Fetched(root, was_there=True)
    if _entries(root):
        raise InputError(
            f"{root}: neither empty nor Imagenette, which has train/ and val/; choose another "
            "folder with --root"
        )
    if archive is not None:
        if (found := file_hash(archive, "md5")) != md5:
            raise InputError(f"{archive}: its md5 is {found}, expected {md5} as of {file}")
        _unpack(archive, root, progress)
        return Fetched(root, was_there=False)
    try:
        fetched = download(
            _SITE + file, root.parent / file, digest=md5, algorithm="md5", progress=progress
        )
        _unpack(fetched, root, progress)
        fetched.unlink()
    except FileNotFoundError:  # another process was first, and has removed the archive
        if not _is_complete(root):
            raise
    return Fetched(root, was_there=False)


def _unpack(archive: Path, root: Path, progress: bool) -> None:
    """The one folder of the archive becomes `root`, when all of it is on the disk."""
    from rich.console import Console
    from rich.progress import wrap_file

    temporary = Path(
        tempfile.mkdtemp(prefix=f".{root.name}.", suffix=".tmp", dir=root.absolute().parent)
    )
    try:
        with (
            archive.open("rb") as compressed,
            wrap_file(
                compressed,
                archive.stat().st_size,
                description=f"unpacking {archive.name}",
                console=Console(stderr=True),
                disable=not (progress and sys.stderr.isatty()),
            ) as stream,
            tarfile.open(fileobj=stream, mode="r|*") as members,
        ):
            # "data": no member lands outside, none is a device or a link that leads outside.
            members.extractall(temporary, filter="data")
        inside = [path for path in temporary.iterdir() if _is_complete(path)]
        if len(inside) != 1:
            raise InputError(f"{archive}: no folder with train/ and val/ in it; nothing was kept")
        if hasattr(os, "sync"):  # else a power cut could leave the folder with empty files
            os.sync()
        try:
            inside[0].replace(root)
        except OSError:
            if not _is_complete(root):  # else another process was first
                raise
        sync_directory(root.absolute().parent)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise InputError(f"{archive}: cannot be unpacked ({error}); nothing was kept") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_complete(root: Path) -> bool:
    return (root / "train").is_dir() and (root / "val").is_dir()


def _entries(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()} if root.is_dir() else set()
