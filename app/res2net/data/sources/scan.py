"""Walking folders of images."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import NamedTuple

from res2net.errors import InputError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pnm", ".tif", ".tiff", ".webp", ".jp2")


class Found(NamedTuple):
    """What a folder holds; paths below it, sorted. Hidden files and folders are left out."""

    classes: dict[str, list[str]]
    """Class folders by name -> the images in each, at any depth."""
    loose: list[str]
    """Images that lie in the folder itself."""

    @property
    def is_flat(self) -> bool:
        """Images, but none in a class folder."""
        return bool(self.loose) and not any(self.classes.values())


def scan(directory: str, without: Collection[str] = ()) -> Found:
    """`without`: folders that are not classes."""
    left_out = {os.path.normpath(folder) for folder in without if folder}
    classes: dict[str, list[str]] = {}
    loose = []
    try:
        for entry in sorted(_visible(directory), key=lambda entry: entry.name):
            if _is_image(entry):
                loose.append(entry.name)
            elif entry.is_dir() and os.path.normpath(entry.path) not in left_out:
                seen = {_identity(directory)}
                classes[entry.name] = sorted(_images_below(entry.path, entry.name, seen))
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error
    return Found(classes, loose)


def folder_problem(path: str) -> str:
    """Why the path is no folder, with its name; empty: it is one."""
    if os.path.isdir(path):
        return ""
    if not path:
        return "'': the name of the folder is empty"
    return f"{path}: {'is a file, not a folder' if os.path.exists(path) else 'no such folder'}"


def first_few(names: Sequence[str]) -> str:
    """The first three, and how many more there are."""
    rest = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 image`, `2,000 images`; `plural` where it is not the noun with an s."""
    return f"1 {noun}" if number == 1 else f"{number:,} {plural or noun + 's'}"


def _images_below(directory: str, prefix: str, seen: set[tuple[int, int]]) -> list[str]:
    identity = _identity(directory)
    if identity in seen:  # symbolic links are followed, but not in circles
        return []
    seen.add(identity)
    images = []
    for entry in sorted(_visible(directory), key=lambda entry: entry.name):
        if _is_image(entry):
            images.append(f"{prefix}/{entry.name}")
        elif entry.is_dir():
            images += _images_below(entry.path, f"{prefix}/{entry.name}", seen)
    return images


def _is_image(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(EXTENSIONS) and entry.is_file()


def _visible(directory: str) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def _identity(directory: str) -> tuple[int, int]:
    status = os.stat(directory)
    return status.st_dev, status.st_ino
