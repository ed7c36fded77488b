"""Folders of images, one sub-folder a class: finding, numbering and checking them."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from res2net.data.split import stratified_split
from res2net.errors import InputError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pnm", ".tif", ".tiff", ".webp", ".jp2")
VALIDATION_FOLDERS = ("val", "valid", "test")


@dataclass(frozen=True, eq=False)
class FolderSource:
    """Image files below `root`, sorted by class and path; labels int64 (count,).

    The paths lie in one block of bytes: 1.3 million of them take some 80 MB, a list of str twice
    that, and a block costs a forked process nothing.
    """

    root: str
    class_names: tuple[str, ...]
    labels: np.ndarray
    _paths: bytes = field(repr=False)
    _starts: np.ndarray = field(repr=False)
    _ends: np.ndarray = field(repr=False)

    @classmethod
    def of_files(
        cls, root: str, class_names: Sequence[str], files: Mapping[str, Sequence[str]]
    ) -> FolderSource:
        """`files` gives each class's paths below `root`; classes may be missing."""
        files = {name: paths for name, paths in files.items() if paths}
        numbers = {name: number for number, name in enumerate(class_names)}
        blocks, lengths = [], []
        for paths in files.values():  # class by class: all of them at once would take 100 MB more
            encoded = [os.fsencode(path) for path in paths]
            blocks.append(b"".join(encoded))
            lengths += [len(path) for path in encoded]
        ends = np.cumsum(lengths, dtype=np.int64)
        return cls(
            root=root,
            class_names=tuple(class_names),
            labels=np.repeat(
                np.array([numbers[name] for name in files], dtype=np.int64),
                [len(paths) for paths in files.values()],
            ),
            _paths=b"".join(blocks),
            _starts=ends - lengths,
            _ends=ends,
        )

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> str:
        """The file of an image."""
        return os.path.join(
            self.root, os.fsdecode(self._paths[self._starts[index] : self._ends[index]])
        )

    def name(self, index: int) -> str:
        """What messages call an image: its path."""
        return self.path(index)

    def subset(self, indices: np.ndarray) -> FolderSource:
        """The images of `indices` (count,), in that order."""
        return replace(
            self,
            labels=self.labels[indices],
            _starts=self._starts[indices],
            _ends=self._ends[indices],
        )


def open_folder(directory: str, *, class_names: Sequence[str] | None = None) -> FolderSource:
    """Open any folder of class folders for evaluation.

    With `class_names` a class is found by its folder's name and may have no images here. Raises
    InputError where there is no image, or a class that `class_names` lacks.
    """
    if not os.path.isdir(directory):
        raise InputError(f"{directory}: no such folder; expected one folder of images per class")
    files = _scan(directory)
    problems = _problems(directory, files, class_names, may_lack_images=class_names is not None)
    if problems:
        raise InputError("; ".join(problems))
    return FolderSource.of_files(directory, class_names or tuple(files), files)


def open_split_folder(
    root: str,
    train_dir: str,
    val_dir: str,
    val_fraction: float,
    split_seed: int,
    *,
    class_names: Sequence[str] | None,
) -> tuple[FolderSource, FolderSource]:
    """`sources.open_sources` for data.source=folder."""
    if not os.path.isdir(root):
        raise InputError(f"{root}: no such folder (data.root); expected a folder of class folders")
    train = os.path.normpath(os.path.join(root, train_dir or "train"))
    if not train_dir and not os.path.isdir(train):
        train = root
    candidates = [os.path.join(root, name) for name in VALIDATION_FOLDERS]
    if val_dir:
        val = os.path.join(root, val_dir)
    else:
        val = next((folder for folder in candidates if os.path.isdir(folder)), "")
    problems = [
        f"{folder}: no such folder ({key})"
        for folder, key in ((train, "data.train_dir"), (val, "data.val_dir"))
        if folder and not os.path.isdir(folder)
    ]
    if not val and not 0 < val_fraction < 1:
        problems.append(f"data.val_fraction={val_fraction}: expected more than 0 and less than 1")
    if not problems and val and os.path.samefile(train, val):
        problems.append(f"{val}: training and validation need different folders (data.val_dir)")
    if problems:
        raise InputError("; ".join(problems))

    train_files = _scan(train, without=[*candidates, val])
    val_files = _scan(val) if val else {}
    names = tuple(class_names or train_files)
    problems = _problems(train, train_files, class_names)
    if not any(train_files.values()) and train != root and not train_dir:
        problems.append("data.train_dir=. takes data.root itself")
    elif not problems and len(train_files) < 2:
        problems.append(f"{train}: one class ({names[0]}), but training needs two or more")
    single = [name for name, paths in train_files.items() if len(paths) == 1]
    if val:
        problems += _problems(val, val_files, names or None, may_lack_images=True)
    elif single:
        problems.append(
            f"{train}: only one image in {first_few(single)}, but one is put aside for validation "
            "(data.val_dir names a folder instead)"
        )
    if problems:
        raise InputError("; ".join(problems))

    training = FolderSource.of_files(train, names, train_files)
    if val:
        return training, FolderSource.of_files(val, names, val_files)
    # By folder, not by label: how a model numbers the classes does not move the split.
    groups = np.repeat(np.arange(len(train_files)), [len(paths) for paths in train_files.values()])
    stay, aside = stratified_split(groups, val_fraction, split_seed)
    return training.subset(stay), training.subset(aside)


def _problems(
    directory: str,
    files: Mapping[str, Sequence[str]],
    known: Sequence[str] | None,
    *,
    may_lack_images: bool = False,
) -> list[str]:
    """What keeps a scanned folder from being used, one phrase each."""
    if not any(files.values()):
        return [f"no class folders with images below {directory}"]
    problems = []
    empty = [name for name, paths in files.items() if not paths]
    if empty and not may_lack_images:
        problems.append(f"{directory}: no images in {first_few(empty)}")
    if known is not None:
        lacking = files.keys() - set(known) - set(empty)
        if lacking:
            problems.append(
                f"{directory}: unknown class {first_few(sorted(lacking))} "
                f"(known: {first_few(known)})"
            )
    return problems


def first_few(names: Sequence[str]) -> str:
    """The first three, and how many more there are."""
    rest = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest


def _scan(directory: str, without: Collection[str] = ()) -> dict[str, list[str]]:
    """Class folders of `directory` by name -> the images in each, paths below `directory`, sorted.

    `without`: folders that are not classes. Hidden files and folders are left out.
    """
    left_out = {os.path.normpath(folder) for folder in without if folder}
    files: dict[str, list[str]] = {}
    try:
        for entry in sorted(_visible(directory), key=lambda entry: entry.name):
            if entry.is_dir() and os.path.normpath(entry.path) not in left_out:
                seen = {_identity(directory)}
                files[entry.name] = sorted(_images_below(entry.path, entry.name, seen))
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error
    return files


def _images_below(directory: str, prefix: str, seen: set[tuple[int, int]]) -> list[str]:
    identity = _identity(directory)
    if identity in seen:  # symbolic links are followed, but not in circles
        return []
    seen.add(identity)
    images = []
    for entry in sorted(_visible(directory), key=lambda entry: entry.name):
        if entry.name.lower().endswith(EXTENSIONS) and entry.is_file():
            images.append(f"{prefix}/{entry.name}")
        elif entry.is_dir():
            images += _images_below(entry.path, f"{prefix}/{entry.name}", seen)
    return images


def _visible(directory: str) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def _identity(directory: str) -> tuple[int, int]:
    status = os.stat(directory)
    return status.st_dev, status.st_ino
