"""Which class each image of a flat folder has: files of labels, as ImageNet's users have them.

Told apart by what is in them:

| one of its lines | known as |
| --- | --- |
| `490` | the devkit's ILSVRC2012_validation_ground_truth.txt: ILSVRC2012_IDs, by image number |
| `n01751748` | TensorFlow's imagenet_2012_validation_synset_labels.txt, by image number |
| `ILSVRC2012_val_00000001.JPEG 65` | Caffe's val.txt: from 0 in the order of the wnids, or a wnid |
| `ILSVRC2012_val_00000001,n01751748 1 2 3 4` | Kaggle's LOC_val_solution.csv, with its header |
| `1.jpg,cat` or `1.jpg cat` | a list of your own, separated by tab, comma, semicolon or space |

A wnid is a WordNet id, ImageNet's name of a class. ILSVRC2012_IDs number them in another order.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from res2net import imagenet
from res2net.data.sources.scan import EXTENSIONS, counted, first_few
from res2net.errors import InputError
from res2net.files.foreign import read_text

VALIDATION_IMAGES = 50_000

KAGGLE_LAYOUT = os.path.join("ILSVRC", "Data", "CLS-LOC")

FILES = (
    "ILSVRC2012_validation_ground_truth.txt",
    "imagenet_2012_validation_synset_labels.txt",
    "LOC_val_solution.csv",
    "val.txt",
    "val.csv",
    "labels.csv",
)
_MOST_BYTES, _MOST_LINES = 2**26, 1_000_000
"""ImageNet's 50,000 take two megabytes."""
_DEVKITS = ("ILSVRC2012_devkit_t12/data", "devkit/data", "devkit", "meta")

_NUMBER = re.compile(r"_val_(\d{8})(?![0-9])", re.IGNORECASE)
_WNID_AT_END = re.compile(r"_(n\d{8})\.[^.]+$")
_KAGGLE_HEADER = ["ImageId", "PredictionString"]
_HEADERS = frozenset(
    ("file", "filename", "file_name", "path", "image", "image_id", "imageid", "img", "id", "name")
)


@dataclass(frozen=True)
class Labels:
    """A file of labels: a class for each line, as it is written there."""

    path: str
    classes: list[str]
    images: list[str] | None
    """The image that each line names. None: the n-th line is the n-th image's."""


def label_images(
    directory: str,
    images: Sequence[str],
    *,
    labels: str | None,
    class_names: Sequence[str] | None,
) -> tuple[tuple[str, ...], dict[str, list[str]]]:
    """The names of the classes, and class -> its images, both sorted, of a flat folder.

    Args:
        images: names of files in `directory`, sorted.
        labels: a file of labels. None: the names of the images where all end in a wnid, as in
            `ILSVRC2012_val_00000001_n01751748.JPEG`, else the first of `FILES` that is found.
        class_names: those of a model. None: ImageNet's for ImageNet's validation images, else
            those that the labels name, sorted.

    Raises:
        InputError: labels and images, or labels and classes, do not fit together.
    """
    in_names = [match[1] for name in images if (match := _WNID_AT_END.search(name))]
    if labels is None and len(in_names) == len(images):
        origin, classes = directory, dict(zip(images, in_names, strict=True))
        listed = set(in_names)
    else:
        origin = labels or find_labels(directory)
        parsed = parse_labels(origin)
        classes, listed = _classes_of(parsed, directory, images), set(parsed.classes)
    is_imagenet = all(validation_number(name) is not None for name in images)
    if class_names is None and is_imagenet:
        class_names = tuple(imagenet.class_names())
    words = set(classes.values())
    known, meant = _meaning(origin, words, listed, class_names, is_imagenet=is_imagenet)
    files: dict[str, list[str]] = {name: [] for name in sorted(set(meant.values()))}
    for name in images:
        files[meant[classes[name]]].append(name)
    return known, files


def find_labels(directory: str) -> str:
    """The first of `FILES` in the folder, beside it, or where devkits are unpacked beside it."""
    folder = Path(os.path.abspath(directory))
    parent = folder.parent
    places = [folder, parent, *(parent / devkit for devkit in _DEVKITS)]
    if parent.as_posix().endswith(Path(KAGGLE_LAYOUT).as_posix()):
        places.append(parent.parents[2])
    for place in places:
        for name in FILES:
            if (place / name).is_file():
                return str(place / name)
    raise InputError(
        f"no class folders with images below {directory}, and no file of labels for the images in "
        f"it: none of {', '.join(FILES)} lies there, in {parent} or in {', '.join(_DEVKITS)} below "
        "that; name one with data.val_labels=FILE, for `res2net test` with --labels FILE"
    )


def parse_labels(path: str) -> Labels:
    """Read a file of labels of any of the kinds above."""
    try:
        # names of files need not be UTF-8: they come out as os.fsdecode gives them
        text = read_text(path, most=_MOST_BYTES, errors="surrogateescape")
    except OSError as error:
        raise InputError(f"{path}: no such file of labels ({error.strerror})") from error
    if "\0" in text:
        raise InputError(f"{path}: not a text file; expected lines of an image and its class")
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) > _MOST_LINES:
        raise InputError(f"{path}: {len(lines):,} lines; at most {_MOST_LINES:,}")
    if not lines:
        raise InputError(f"{path}: empty; expected a class for each image")
    try:
        rows = _rows(lines)
    except csv.Error as error:
        raise InputError(f"{path}: not a table of images and classes ({error})") from error
    if len(rows[0]) == 1:
        return Labels(path, _by_number(path, lines), None)

    kaggle = rows[0][:2] == _KAGGLE_HEADER
    first = 1 if kaggle or rows[0][0].lower() in _HEADERS else 0
    if bad := [str(row) for row in rows if len(row) < 2 or not row[1]]:
        raise InputError(f"{path}: expected an image and its class on each line, not {bad[0]}")
    # Kaggle's second cell is a class and a box, again and again: of one class in an image
    classes = [row[1].split()[0] if kaggle else row[1] for row in rows[first:]]
    return Labels(path, classes, [row[0] for row in rows[first:]])


def validation_number(name: str) -> int | None:
    """1 to 50,000 for ILSVRC2012_val_00000001.JPEG and its like, None for others."""
    match = _NUMBER.search(os.path.basename(name))
    number = int(match[1]) if match else 0
    return number if 1 <= number <= VALIDATION_IMAGES else None


def _rows(lines: Sequence[str]) -> list[list[str]]:
    """Lines -> cells; the first line says what separates them."""
    word = lines[0].split(maxsplit=1)[0]
    separator = next((mark for mark in "\t,;" if mark in lines[0]), None)
    if separator == "\t" or (separator and not word.lower().endswith(EXTENSIONS)):
        return [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator)]
    return [line.strip().split(maxsplit=1) for line in lines]


def _by_number(path: str, lines: Sequence[str]) -> list[str]:
    """Lines of one word each -> wnids."""
    words = [line.strip() for line in lines]
    ids = imagenet.ilsvrc2012_ids()
    if all(_is_number(word) for word in words):
        if unknown := [word for word in words if int(word) not in ids]:
            raise InputError(
                f"{path}: {first_few(unknown)}: expected ILSVRC2012_IDs from 1 to {len(ids):,}; "
                "other numbers need the images' names before them"
            )
        return [ids[int(word)] for word in words]
    if unknown := [word for word in words if word not in imagenet.class_names()]:
        raise InputError(
            f"{path}: {first_few(unknown)}: expected on each line an image and its class, or "
            "ImageNet's ids alone (490 or n01751748)"
        )
    return words


def _classes_of(labels: Labels, directory: str, images: Sequence[str]) -> dict[str, str]:
    """Image -> its class as the file writes it."""
    if labels.images is None:
        return _by_position(labels, directory, images)
    stems = {_stem(name) for name in images}
    by_stem = len(stems) == len(images)  # else 1.jpg and 1.png are two images

    def key(name: str) -> int | str:
        name = os.path.basename(name)
        return validation_number(name) or (_stem(name) if by_stem else name)

    listed = dict(zip(map(key, labels.images), labels.classes, strict=True))
    there = {key(name) for name in images}
    problems = []
    if len(listed) < len(labels.images):
        lines = Counter(map(key, labels.images))
        twice = sorted({name for name in labels.images if lines[key(name)] > 1})
        problems.append(f"{labels.path}: more than one line for {first_few(twice)}")
    if missing := [name for name in images if key(name) not in listed]:
        problems.append(f"{labels.path}: no class for {first_few(missing)} of {directory}")
    # a part of ImageNet's validation images, which are known by their numbers, is good to test on
    strangers = [
        name for name in labels.images if key(name) not in there and validation_number(name) is None
    ]
    if strangers:
        problems.append(f"{labels.path}: {directory} has no {first_few(strangers)}")
    if problems:
        raise InputError("; ".join(problems))
    return {name: listed[key(name)] for name in images}


def _by_position(labels: Labels, directory: str, images: Sequence[str]) -> dict[str, str]:
    if len(labels.classes) == VALIDATION_IMAGES:
        numbers = [validation_number(name) for name in images]
        if all(numbers):
            return {
                name: labels.classes[number - 1]
                for name, number in zip(images, numbers, strict=True)
                if number
            }
    if len(labels.classes) != len(images):
        raise InputError(
            f"{labels.path}: {counted(len(labels.classes), 'line')} for the "
            f"{counted(len(images), 'image')} of {directory}: expected one each, or all "
            f"{VALIDATION_IMAGES:,} of ImageNet and images named by number as in "
            "ILSVRC2012_val_00000001.JPEG"
        )
    return dict(zip(images, labels.classes, strict=True))


def _meaning(
    path: str,
    words: set[str],
    listed: set[str],
    class_names: Sequence[str] | None,
    *,
    is_imagenet: bool,
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The names of the classes, and what each word says: a class's name, or its number from 0.

    Numbers of ImageNet's own images count all its wnids in their order, others `class_names`.
    `listed` are the words of the whole file, also of images that are not there: a list that counts
    from 1 shows in its last number.
    """
    known = tuple(class_names) if class_names is not None else ()
    unknown = sorted(words - set(known))
    # classes that are themselves called 0, 1, 2 leave no room for numbers
    if unknown and all(map(_is_number, words)) and not any(map(_is_number, known)):
        order = tuple(imagenet.class_names()) if is_imagenet else known
        if not order:
            raise InputError(
                f"{path}: numbers of classes ({first_few(unknown)}), but the weights name no "
                "classes to count; give their names"
            )
        numbers = {word for word in listed if _is_number(word)}
        if beyond := sorted((word for word in numbers if int(word) >= len(order)), key=int):
            from_one = beyond == [str(len(order))] and "0" not in numbers
            raise InputError(
                f"{path}: class {first_few(beyond)}: expected 0 to {len(order) - 1:,} or a name"
                + ("; its numbers seem to count from 1" if from_one else "")
            )
        meant = {word: order[int(word)] for word in words}
    else:
        meant = {word: word for word in words}
    if class_names is None:
        known = tuple(sorted(words))
    if unknown := sorted(set(meant.values()) - set(known)):
        numbered = is_imagenet and any(map(_is_number, words))
        advice = (
            "numbers of ILSVRC2012_val files are read as ImageNet's 1,000 classes; write WordNet "
            "ids instead"
            if numbered
            else "correct its lines, or remove its images"
        )
        raise InputError(
            f"{path}: unknown class {first_few(unknown)} (known: {first_few(known)}): {advice}"
        )
    return known, meant


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit()


def _stem(name: str) -> str:
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in EXTENSIONS else name
