"""Which data set `data.source` names. A new kind is one class of the form `Source`, opened here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from res2net.data.sources.cifar import load_cifar
from res2net.data.sources.folder import open_folder, open_split_folder
from res2net.data.sources.in_memory import array_source, open_digits
from res2net.data.sources.shards import are_shards, open_shard_split, open_shards
from res2net.data.sources.source import Source
from res2net.errors import InputError

SOURCES = ("folder", "shards", "cifar10", "cifar100", "digits")


def open_sources(
    source: str,
    root: str,
    *,
    train_dir: str = "",
    val_dir: str = "",
    val_labels: str = "",
    val_fraction: float = 0.1,
    split_seed: int = 0,
    class_names: Sequence[str] | None = None,
    fetch: bool = True,
) -> tuple[Source, Source]:
    """Open a data set for training and validation; the arguments are the keys of group `data`.

    An empty `root` is data/<source>. With `class_names` these number the classes, as a trained
    model has them; else the data's own do, folders sorted by name. The labels of a
    validation folder without class folders are in `val_labels`, or found by their file's name.

    CIFAR is downloaded into `root` if it is not there and `fetch` says so; its validation images
    are the published test batch. Of the digits a fifth is put aside (1,437 and 360 images).

    Raises InputError for what the data or the keys lack, WorkError when a download fails.
    """
    root = root or os.path.join("data", source)
    if split_seed < 0:
        raise InputError(f"data.split_seed={split_seed}: expected 0 or more")
    if source == "folder":
        return open_split_folder(
            root,
            train_dir,
            val_dir,
            val_fraction,
            split_seed,
            class_names=class_names,
            val_labels=val_labels,
        )
    if train_dir or val_dir or val_labels:
        raise InputError(
            f"data.train_dir={train_dir!r}, data.val_dir={val_dir!r}, data.val_labels="
            f"{val_labels!r}: only data.source=folder has such folders, not {source}"
        )
    if source == "shards":
        return open_shards(
            root, val_fraction=val_fraction, split_seed=split_seed, class_names=class_names
        )
    if source == "digits":
        return open_digits(split_seed, class_names)
    if source in ("cifar10", "cifar100"):
        names, *splits = load_cifar(source, Path(root), fetch=fetch)
        train, val = (
            array_source(f"{source}/{split}", names, images, labels, class_names)
            for split, (images, labels) in zip(("train", "test"), splits, strict=True)
        )
        return train, val
    raise InputError(f"data.source={source}: expected one of {', '.join(SOURCES)}")


def open_evaluation(
    directory: str, *, class_names: Sequence[str] | None, labels: str | None
) -> Source:
    """The images to evaluate on: a folder as `open_folder` takes it, or the val split of shards.

    Raises InputError.
    """
    if not are_shards(directory):
        return open_folder(directory, class_names=class_names, labels=labels)
    if labels is not None:
        raise InputError(f"{labels}: shards have their labels, and take no file of them")
    return open_shard_split(directory, "val", class_names=class_names)
