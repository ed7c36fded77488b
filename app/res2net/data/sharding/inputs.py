"""What a path to a data set means: folders, ImageNet's archives or parquet files."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from res2net.data.sharding.archives import IMAGES, TRAIN_ARCHIVE, VAL_ARCHIVE, open_train, open_val
from res2net.data.sharding.images import FolderImages, Images
from res2net.data.sharding.parquet import open_parquet
from res2net.data.sources.folder import FolderSource, open_folder, open_split_folder
from res2net.data.sources.scan import counted, first_few, folder_problem
from res2net.errors import InputError

_VAL_NAMES = ("validation", "valid", "val")
_SPLIT_OF_NAME = re.compile(r"(train|validation|valid|val|test)(?:[^a-z].*)?")

_PART = re.compile(r"(.*-)(\d+)(-of-)(\d{1,6})(\.parquet)")


def open_inputs(
    source: str, *, labels: str | None = None, expect: Sequence[int] | None = None
) -> dict[str, Images]:
    """The splits of a data set: `train`, and `val` where it has one.

    Args:
        source: a folder as data.source=folder takes it; ImageNet's own archives, or a folder of
            them; a folder of parquet files, named or in folders named train and validation.
        labels: a file of labels for validation images that lie in no class folders.
        expect: how many images of each split there have to be. None: as many as ImageNet has, of
            its archives; of others any number, but no part of parquet files may be missing.
            Empty: any number.

    Raises InputError where there is none of these, or images are missing.
    """
    if labels is not None and not os.path.isfile(labels):
        raise InputError(f"{labels}: no such file of labels")
    # beside the images or not: a path as the user means it, from the working directory
    labels = os.path.abspath(labels) if labels is not None else None
    if not source:  # else what lies in the working directory would be taken
        raise InputError(folder_problem(source))
    archives = _archives(source)
    tables = {} if archives else _parquet_files(source)
    if archives:
        splits, known = _open_archives(archives, labels)
    elif tables:
        if labels is not None:
            raise InputError(f"{labels}: the labels of parquet files stand in them")
        if expect is None:
            _check_parts(tables)
        splits, known = _open_tables(tables), {}
    elif os.path.isdir(source):
        splits, known = _open_folders(source, labels), {}
    elif os.path.exists(source):
        raise InputError(
            f"{source}: expected a folder, {TRAIN_ARCHIVE} or {VAL_ARCHIVE}; of other archives "
            "unpack the images first"
        )
    else:
        raise InputError(f"{source}: no such file or folder")
    if expect is not None:
        known = dict(zip(("train", "val"), expect, strict=False))
    _check_counts(source, splits, known)
    return splits


def _check_counts(source: str, splits: dict[str, Images], expected: dict[str, int]) -> None:
    problems = [
        f"{split} has {counted(len(splits[split]) if split in splits else 0, 'image')}, not "
        f"{count:,}"
        for split, count in expected.items()
        if split not in splits or len(splits[split]) != count
    ]
    if problems:
        raise InputError(
            f"{source}: {', '.join(problems)}; --expect any takes what is there, --expect N,M "
            "wants N training and M validation images"
        )


def _archives(source: str) -> dict[str, str]:
    """Split -> archive, of a folder or of one archive alone."""
    known = {"train": TRAIN_ARCHIVE, "val": VAL_ARCHIVE}
    if os.path.isfile(source):
        return {split: source for split, name in known.items() if os.path.basename(source) == name}
    paths = {split: os.path.join(source, name) for split, name in known.items()}
    return {split: path for split, path in paths.items() if os.path.isfile(path)}


def _open_archives(
    archives: dict[str, str], labels: str | None
) -> tuple[dict[str, Images], dict[str, int]]:
    """Images, and how many there should be."""
    if labels is not None and "val" not in archives:
        raise InputError(f"{labels}: {archives['train']} needs no file of labels")
    splits: dict[str, Images] = {}
    if "train" in archives:
        splits["train"] = open_train(archives["train"])
    if "val" in archives:
        names = splits["train"].class_names if "train" in splits else None
        splits["val"] = open_val(archives["val"], labels=labels, class_names=names)
    return splits, {split: IMAGES[os.path.basename(path)] for split, path in archives.items()}


def _parquet_files(source: str) -> dict[str, list[str]]:
    """Split -> files, sorted. A file belongs to the split that it, or its folder, is named by."""
    folders = ["", "data", "train", *_VAL_NAMES, "test"]
    try:
        places = [Path(source, folder) for folder in folders]
        found = sorted(path for place in places for path in place.glob("*.parquet"))
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error
    files: dict[str, list[str]] = {}
    for path in found:
        match = _SPLIT_OF_NAME.fullmatch(path.name) or _SPLIT_OF_NAME.fullmatch(path.parent.name)
        if match is None:
            raise InputError(
                f"{path}: expected a name that begins with train or validation, as in "
                "train-00000-of-00294.parquet"
            )
        files.setdefault("val" if match[1] in _VAL_NAMES else match[1], []).append(str(path))
    files.pop("test", None)  # its labels are hidden
    if found and "train" not in files:
        raise InputError(f"{source}: no parquet files of training images (train-*.parquet)")
    return files


def _check_parts(files: dict[str, list[str]]) -> None:
    """train-00000-of-00002.parquet tells that there is train-00001-of-00002.parquet."""
    paths = {path for several in files.values() for path in several}
    wanted = set()
    for path in paths:
        if match := _PART.fullmatch(path):
            start, number, of, count, suffix = match.groups()
            width = len(number)
            wanted |= {f"{start}{n:0{width}}{of}{count}{suffix}" for n in range(int(count))}
    if missing := sorted(wanted - paths):
        raise InputError(
            f"{first_few(missing)}: no such file, but other parts of it are there; fetch what is "
            "missing, or take what is there with --expect any"
        )


def _open_tables(files: dict[str, list[str]]) -> dict[str, Images]:
    train = open_parquet(files["train"])
    splits: dict[str, Images] = {"train": train}
    if "val" in files:
        splits["val"] = open_parquet(files["val"], train.class_names)
    return splits


def _open_folders(source: str, labels: str | None) -> dict[str, Images]:
    train, val = open_split_folder(
        source, "", "", 0.1, 0, class_names=None, val_labels=labels or ""
    )
    if train.root != val.root:
        return {"train": FolderImages(train), "val": FolderImages(val)}
    # No validation folder: a share is put aside when the shards are opened, not when written.
    whole: FolderSource = open_folder(train.root)
    return {"train": FolderImages(whole)}
