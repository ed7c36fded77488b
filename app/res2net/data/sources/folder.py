"""Folders of images: one sub-folder a class, or flat with a file of labels beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np

from res2net import imagenet
from res2net.data.sources.labels import KAGGLE_LAYOUT, label_images
from res2net.data.sources.scan import EXTENSIONS, Found, first_few, folder_problem, scan
from res2net.data.sources.split import stratified_split
from res2net.errors import InputError

__all__ = ["EXTENSIONS", "FolderSource", "open_folder", "open_split_folder"]

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
    holds: ClassVar[Literal["paths"]] = "paths"

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

    def read(self, indices: np.ndarray) -> list[np.ndarray]:
        """Indices (n,) -> the paths as uint8 (bytes,)."""
        paths = (os.fsencode(self.path(int(index))) for index in indices)
        return [np.frombuffer(path, dtype=np.uint8) for path in paths]

    def places(self, indices: np.ndarray) -> bytes:
        """Paths below the root."""
        starts, ends = self._starts[indices].tolist(), self._ends[indices].tolist()
        return b"\0".join(self._paths[start:end] for start, end in zip(starts, ends, strict=True))

    def states(self, indices: np.ndarray) -> np.ndarray:
        """One `stat` an image."""
        found = np.empty((len(indices), 2), dtype=np.int64)
        root = os.fsencode(self.root)
        for row, path in enumerate(self.places(indices).split(b"\0")):
            status = os.stat(os.path.join(root, path))
            found[row] = status.st_size, status.st_ctime_ns
        return found

    def subset(self, indices: np.ndarray) -> FolderSource:
        """The images of `indices` (count,), in that order."""
        return replace(
            self,
            labels=self.labels[indices],
            _starts=self._starts[indices],
            _ends=self._ends[indices],
        )


def open_folder(
    directory: str, *, class_names: Sequence[str] | None = None, labels: str | None = None
) -> FolderSource:
    """Open a folder of class folders, or a flat one of images, for evaluation.

    With `class_names` a class is found by its folder's name and may have no images here. The
    classes of a flat folder's images stand in the file `labels`; None: one found by its name
    (`labels.FILES`). A download from Kaggle (ILSVRC/Data/CLS-LOC/ below it) is its val/.

    Raises InputError where there is no image, or a class that `class_names` lacks.
    """
    if problem := folder_problem(directory):
        raise InputError(f"{problem}; expected one folder of images per class")
    if (inner := _inside(directory)) != directory:
        directory = os.path.join(inner, "val")
    found = scan(directory)
    if found.is_flat:
        return _open_flat(directory, found, class_names, labels)
    problems = _problems(
        directory, found.classes, class_names, may_lack_images=class_names is not None
    )
    if labels is not None and not problems:
        problems.append(f"{labels}: {directory} has class folders, and takes no file of labels")
    inside = [name for name in VALIDATION_FOLDERS if name in found.classes]
    if problems and inside:
        problems.append(f"did you mean {os.path.join(directory, inside[0])}?")
    if problems:
        raise InputError("; ".join(problems))
    return FolderSource.of_files(directory, class_names or tuple(found.classes), found.classes)


def open_split_folder(
    root: str,
    train_dir: str,
    val_dir: str,
    val_fraction: float,
    split_seed: int,
    *,
    class_names: Sequence[str] | None,
    val_labels: str = "",
) -> tuple[FolderSource, FolderSource]:
    """`sources.open_sources` for data.source=folder."""
    if problem := folder_problem(root):
        raise InputError(f"{problem} (data.root); expected a folder of class folders")
    inner = _inside(root)
    train = os.path.normpath(
        os.path.join(root, train_dir) if train_dir else os.path.join(inner, "train")
    )
    if not train_dir and not os.path.isdir(train):
        train = inner
    candidates = [os.path.join(inner, name) for name in VALIDATION_FOLDERS]
    if val_dir:
        val = os.path.join(root, val_dir)
    else:
        val = next((folder for folder in candidates if os.path.isdir(folder)), "")
    problems = [
        f"{problem} ({key})"
        for folder, key in ((train, "data.train_dir"), (val, "data.val_dir"))
        if folder and (problem := folder_problem(folder))
    ]
    if not val and not 0 < val_fraction < 1:
        problems.append(f"data.val_fraction={val_fraction}: expected more than 0 and less than 1")
    if not problems and val and os.path.samefile(train, val):
        problems.append(f"{val}: training and validation need different folders (data.val_dir)")
    labels = os.path.join(root, val_labels) if val_labels else None
    if labels and not os.path.isfile(labels):
        problems.append(f"{labels}: no such file (data.val_labels)")
    if problems:
        raise InputError("; ".join(problems))

    train_files = scan(train, without=[*candidates, val]).classes
    val_found = scan(val) if val else Found({}, [])
    names = tuple(class_names or train_files)
    problems = _problems(train, train_files, class_names)
    if not any(train_files.values()) and train != inner and not train_dir:
        problems.append("data.train_dir=. takes data.root itself")
    elif not problems and len(train_files) < 2:
        problems.append(
            f"{train}: one class ({names[0]}), but training needs two or more: a folder for each"
        )
    single = [name for name, paths in train_files.items() if len(paths) == 1]
    if labels and not val_found.is_flat:
        problems.append(
            f"data.val_labels={val_labels}: "
            + (f"{val} has class folders" if val else f"no validation folder in {inner}")
        )
    elif val and not val_found.is_flat:
        problems += _problems(val, val_found.classes, names or None, may_lack_images=True)
    elif not val and single:
        problems.append(
            f"{train}: only one image in {first_few(single)}, but one is put aside for validation "
            "(data.val_dir names a folder instead)"
        )
    if problems:
        raise InputError("; ".join(problems))

    training = FolderSource.of_files(train, names, train_files)
    if val_found.is_flat:
        return training, _open_flat(val, val_found, names, labels)
    if val:
        return training, FolderSource.of_files(val, names, val_found.classes)
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
        problems.append(
            f"{directory}: no images in {first_few(empty)}: put some there, or remove it"
        )
    if known is not None:
        lacking = files.keys() - set(known) - set(empty)
        if lacking:
            problems.append(
                f"{directory}: unknown class {first_few(sorted(lacking))} "
                f"(known: {first_few(known)}): rename or remove its folder"
                + ("; ImageNet's folders are named by WordNet ids" if _are_wnids(known) else "")
            )
    return problems


def _are_wnids(names: Sequence[str]) -> bool:
    """Whether these are classes of ImageNet, all or some."""
    return bool(names) and imagenet.class_names().keys() >= set(names)


def _open_flat(
    directory: str, found: Found, class_names: Sequence[str] | None, labels: str | None
) -> FolderSource:
    names, files = label_images(directory, found.loose, labels=labels, class_names=class_names)
    return FolderSource.of_files(directory, names, files)


def _inside(root: str) -> str:
    """Where train/ and val/ lie: deeper in a download from Kaggle, elsewhere `root` itself."""
    deeper = os.path.join(root, KAGGLE_LAYOUT)
    is_kaggle = os.path.isdir(deeper) and not os.path.isdir(os.path.join(root, "train"))
    return deeper if is_kaggle else root
