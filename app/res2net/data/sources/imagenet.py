"""ImageNet-ReaL: every class that is right for an image of ImageNet's validation set.

Beyer et al., Are we done with ImageNet?, 2020 (https://arxiv.org/abs/2006.07159). Their file
real.json lists, image by image, classes numbered from 0 in the order of their wnids.
"""

from __future__ import annotations

from typing import Any

from res2net import imagenet
from res2net.data.sources.labels import VALIDATION_IMAGES, validation_number
from res2net.data.sources.scan import first_few
from res2net.data.sources.source import Source
from res2net.errors import InputError
from res2net.files.foreign import read_json


def read_real_labels(path: str, source: Source) -> list[tuple[int, ...]]:
    """For each image of `source` the classes that are right, as `source` numbers them.

    An empty tuple: the image is not counted, as ReaL gives it no class or none that `source` knows.
    Images are known by the number in their names (ILSVRC2012_val_00000001.JPEG).

    Args:
        path: real.json, 50,000 lists of classes, or a JSON object of file name -> list.

    Raises:
        InputError: not such a file, not such images, or classes that have no wnids.
    """
    wnids = tuple(imagenet.class_names())
    ours = {name: number for number, name in enumerate(source.class_names)}
    if not ours.keys() & set(wnids):
        raise InputError(
            f"{path}: labels of ImageNet, but its ids (as n01440764) name none of the classes "
            f"{first_few(source.class_names)}"
        )
    real = _read(path)
    numbers = [validation_number(source.name(index)) for index in range(len(source))]
    nameless = [source.name(index) for index, number in enumerate(numbers) if number is None]
    if nameless:
        raise InputError(
            f"{path}: labels by the number of the image, as in ILSVRC2012_val_00000001.JPEG, but "
            f"no such name is {first_few(nameless)}"
        )
    missing = [source.name(index) for index, number in enumerate(numbers) if number not in real]
    if missing:
        raise InputError(f"{path}: no labels for {first_few(missing)}")
    ours_of = {theirs: ours[wnid] for theirs, wnid in enumerate(wnids) if wnid in ours}
    return [
        tuple(ours_of[label] for label in real[number] if label in ours_of)
        for number in numbers
        if number is not None
    ]


def _read(path: str) -> dict[int, list[int]]:
    """Number of the image -> its labels."""
    try:
        content = read_json(path)
    except OSError as error:
        raise InputError(f"{path}: no such file of ReaL labels ({error.strerror})") from error
    except InputError as error:
        raise InputError(f"{error}; expected ImageNet-ReaL's real.json") from error
    real: dict[int | None, Any] = {}
    if isinstance(content, dict):
        real = {validation_number(name): labels for name, labels in content.items()}
    elif isinstance(content, list) and len(content) == VALIDATION_IMAGES:
        real = dict(enumerate(content, start=1))
    is_real = all(
        number is not None
        and isinstance(labels, list)
        and all(type(label) is int and 0 <= label < imagenet.NUM_CLASSES for label in labels)
        for number, labels in real.items()
    )
    if not real or not is_real:
        raise InputError(
            f"{path}: expected ImageNet-ReaL's labels: {VALIDATION_IMAGES:,} lists of numbers from "
            f"0 to {imagenet.NUM_CLASSES - 1}, or such lists by name of the image"
        )
    return {number: labels for number, labels in real.items() if number is not None}
