"""A folder opened for a check: what training would refuse is described, not refused."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from res2net.data.checking.run import Split
from res2net.data.sources.folder import VALIDATION_FOLDERS, FolderSource, open_split_folder
from res2net.data.sources.labels import KAGGLE_LAYOUT, find_labels, label_images
from res2net.data.sources.scan import EXTENSIONS, Found, counted, first_few, folder_problem, scan
from res2net.data.sources.shards import are_shards, open_shard_split, read_description
from res2net.errors import InputError

_PACKED = (".parquet", ".tar")

WHOLE = "all"
"""The name of the only split of a folder without train/ and val/."""


@dataclass
class Folder:
    """The splits of a data set, with the same classes in all, and what is wrong beside images."""

    splits: list[Split]
    problems: list[str] = field(default_factory=list)
    """What training would refuse or leave out, one sentence each."""
    empty_classes: dict[str, list[str]] = field(default_factory=dict)
    """Split -> class folders without images."""
    unlabelled: list[str] = field(default_factory=list)
    """Splits whose images have no known class."""
    labels: set[str] = field(default_factory=set)
    """Files of labels, whether they can be used or not; real paths."""
    refused: bool = False
    """Training refuses the folder as it lies; the first problem says why."""

    def counts(self, split: Split) -> np.ndarray:
        """Images of each class, int64 (classes,)."""
        return np.bincount(split.source.labels, minlength=len(split.source.class_names))


@dataclass
class Strays:
    """What lies in a folder and is not read; paths below it, sorted."""

    not_images: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    """Hidden files and folders."""
    broken_links: list[str] = field(default_factory=list)
    odd_folders: list[str] = field(default_factory=list)
    """Folders with the name of an image; what is in them is read."""


def open_for_check(directory: str, *, labels: str | None = None) -> Folder:
    """Find train/ and val/ (valid/, test/), or class folders, a flat folder of images, or shards.

    Finds what `folder.open_split_folder` and `folder.open_folder` would. `labels` is the file with
    the classes of a flat folder's images; None: one found by its name.

    Raises InputError where there is no folder or no image at all, for named labels of no use and
    for shards that are unfinished or damaged.
    """
    if problem := folder_problem(directory):
        raise InputError(f"{problem}; expected a folder of images")
    if labels is not None and not os.path.isfile(labels):
        raise InputError(f"{labels}: no such file of labels")
    if are_shards(directory):
        names = read_description(directory)["splits"]
        return Folder([Split(name, open_shard_split(directory, name)) for name in names])
    deeper = os.path.join(directory, KAGGLE_LAYOUT)
    is_kaggle = os.path.isdir(deeper) and not os.path.isdir(os.path.join(directory, "train"))
    inner = deeper if is_kaggle else directory
    apart = {name: os.path.join(inner, name) for name in VALIDATION_FOLDERS}
    apart = {name: folder for name, folder in apart.items() if os.path.isdir(folder)}
    train = os.path.join(inner, "train")
    if os.path.isdir(train):
        places = {"train": train, **apart}
    else:
        places = {"train" if apart else WHOLE: inner, **apart}
    found = {name: scan(place, without=list(apart.values())) for name, place in places.items()}
    if not any(one.loose or any(one.classes.values()) for one in found.values()):
        packed = [path for path in find_strays(directory).not_images if path.endswith(_PACKED)]
        if packed:
            raise InputError(
                f"{directory}: no images in this folder but {first_few(packed)}: make shards of it "
                f"first with `res2net data shard {directory} DST`, then check DST"
            )
        known = ", ".join(EXTENSIONS)
        raise InputError(f"{directory}: no images in this folder (known: {known})")
    if labels is not None and not any(one.is_flat for one in found.values()):
        raise InputError(f"{labels}: {directory} has class folders, and takes no file of labels")
    folder = _label(places, found, labels)
    if not (found.keys() == {WHOLE} and found[WHOLE].is_flat):  # which is not meant for training
        _ask_training(folder, directory, labels)
    return folder


def find_strays(directory: str, labels: Collection[str] = ()) -> Strays:
    """What in the folder, at any depth, is no visible image file; of shards nothing.

    `labels`: real paths of files that were read as such.
    """
    strays = Strays()
    if are_shards(directory):
        return strays
    for parent, folders, files in _walk(directory):
        for name in folders:
            path = os.path.join(parent, name)
            if name.startswith("."):
                strays.hidden.append(path)
            elif name.lower().endswith(EXTENSIONS):
                strays.odd_folders.append(path)
        for name in files:
            path = os.path.join(parent, name)
            if name.startswith("."):
                strays.hidden.append(path)
            elif not os.path.exists(path):
                strays.broken_links.append(path)
            elif not (name.lower().endswith(EXTENSIONS) or os.path.realpath(path) in labels):
                strays.not_images.append(path)
    for paths in vars(strays).values():
        paths.sort()
    return strays


def _label(places: dict[str, str], found: dict[str, Found], labels: str | None) -> Folder:
    folder = Folder([])
    files: dict[str, dict[str, list[str]]] = {}
    for name, one in found.items():
        place = places[name]
        if not one.is_flat:
            files[name] = one.classes
            folder.empty_classes[name] = [key for key, paths in one.classes.items() if not paths]
            if one.loose:
                verb = "is" if len(one.loose) == 1 else "are"
                folder.problems.append(
                    f"{place}: {counted(len(one.loose), 'image')} beside the class folders {verb} "
                    f"not read ({first_few(one.loose)})"
                )
            continue
        with suppress(InputError):
            folder.labels.add(os.path.realpath(labels or find_labels(place)))
        known = [key for other in found.values() for key, paths in other.classes.items() if paths]
        try:
            _, files[name] = label_images(
                place, one.loose, labels=labels, class_names=sorted(set(known)) or None
            )
        except InputError as error:
            if labels is not None:
                raise
            folder.problems.append(str(error))
            folder.unlabelled.append(name)
            files[name] = {"": one.loose}
    names = sorted({key for classes in files.values() for key in classes})
    folder.splits = [
        Split(name, FolderSource.of_files(places[name], names, classes))
        for name, classes in files.items()
    ]
    return folder


def _ask_training(folder: Folder, directory: str, labels: str | None) -> None:
    """Put what training says, if it refuses the folder, before all other problems."""
    try:
        open_split_folder(
            directory,
            "",
            "",
            0.1,
            0,
            class_names=None,
            val_labels=os.path.abspath(labels) if labels is not None else "",
        )
    except InputError as error:
        others = [problem for problem in folder.problems if problem != str(error)]
        folder.problems = [f"training refuses this folder: {error}", *others]
        folder.refused = True


def _walk(directory: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """As os.walk through visible folders, links followed but not in circles."""
    seen = set()
    for parent, folders, files in os.walk(directory, followlinks=True):
        status = os.stat(parent)
        identity = status.st_dev, status.st_ino
        if identity in seen:
            folders.clear()
            continue
        seen.add(identity)
        yield parent, folders, files
        folders[:] = [name for name in folders if not name.startswith(".")]
