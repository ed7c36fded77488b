"""Pictures of where networks look: one an image, and a sheet with captions."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from res2net.data.sources.scan import counted, first_few
from res2net.errors import InputError, WorkError
from res2net.files.atomic import try_folder
from res2net.files.names import printable, valid

if TYPE_CHECKING:
    from PIL import Image

    from res2net.inference.cam import Explainer, Explanation
    from res2net.inference.images import OnUnreadable

    Tile = tuple[Image.Image, str | Sequence[str]]

SHEET = "sheet.png"
ON_SHEET = 24
"""Images of the sheet: the first ones."""

_BATCH = 32
_LONGEST = 180  # bytes of a name: 255 are allowed, and a temporary name needs some of them
_FORBIDDEN = re.compile(r'[<>:"/\\|?*]')  # by Windows


def name_pictures(folder: Path, images: Iterable[str]) -> dict[str, Path]:
    """A new file in `folder` for each image, called as the image; a number tells namesakes apart.

    Raises InputError where one of these files, or the sheet, exists already; or `folder` is none,
    or cannot be written.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"{folder}: is no folder; choose another name for the pictures")
    taken = {SHEET}  # without regard to case, as some file systems have it
    files: dict[str, Path] = {}
    for image in images:
        if image in files:
            continue
        stem = _FORBIDDEN.sub("_", printable(valid(Path(image).stem))).replace("\\", "_")
        stem = stem.strip(". ").encode()[:_LONGEST].decode(errors="ignore") or "image"
        name, number = f"{stem}.png", 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}.png"
        taken.add(name.casefold())
        files[image] = folder / name
    for file in (*files.values(), folder / SHEET):
        if os.path.lexists(file):
            raise InputError(
                f"{file}: exists already and is never overwritten; choose another folder"
            )
    try_folder(folder)
    return files


def draw_explanations(
    explainers: Mapping[str, Explainer],
    files: Mapping[str, Path],
    *,
    images: Iterable[str],
    target: str | int | None,
    on_unreadable: OnUnreadable,
    heading: str,
) -> Iterator[tuple[Explanation, ...]]:
    """Write each image's picture and give what it shows; at the end write the sheet.

    Args:
        explainers: One, or several that are shown side by side, by the name of each. All explain
            the class of the first.
        files: Where the picture of each image goes, see `name_pictures`.
        images: Paths, keys of `files`; taken as they are needed.
        target: As in `Explainer.stream`.
        on_unreadable: See `Explainer.stream`.
        heading: Of the sheet.

    Raises:
        InputError: There is no such class, or not in all models.
        WorkError: A picture cannot be written, or as `Explainer.stream`.
    """
    first, *others = explainers.values()
    matches = [_match_classes(first, other, name, target) for name, other in _rest(explainers)]
    explained = first.stream(images, target, on_unreadable=on_unreadable)

    def draw() -> Iterator[tuple[Explanation, ...]]:
        tiles: list[Tile] = []
        count = 0
        while batch := list(islice(explained, _BATCH)):
            sources = [each.source for each in batch]
            beside = [
                other(sources, [match[each.index] for each in batch])
                for other, match in zip(others, matches, strict=True)
            ]
            for shown in zip(batch, *beside, strict=True):
                count += 1
                _write(shown, files[shown[0].source])
                if count <= ON_SHEET:
                    tiles += _tiles(shown, list(explainers))
                yield shown
        if count:
            folder = next(iter(files.values())).parent
            _write_sheet(tiles, folder / SHEET, count, heading, len(explainers))

    return draw()


def _rest(explainers: Mapping[str, Explainer]) -> list[tuple[str, Explainer]]:
    return list(explainers.items())[1:]


def _match_classes(
    first: Explainer, other: Explainer, name: str, target: str | int | None
) -> list[int]:
    """For each class of the first the other's: of the same name, or, where the models have as many
    classes but other names for all, of the same index. -1: none, but it is not asked for."""
    by_name = {label: index for index, label in enumerate(other.class_names)}
    matches = [by_name.get(label, -1) for label in first.class_names]
    if len(set(first.class_names)) < len(matches) or max(matches) < 0:
        same = len(first.class_names) == len(other.class_names)
        matches = list(range(len(matches))) if same else [-1] * len(matches)
    asked = range(len(matches)) if target is None else [first.find_class(target)]
    missing = [first.class_names[index] for index in asked if matches[index] < 0]
    if missing:
        count = counted(len(other.class_names), "class", "classes")
        raise InputError(
            f"{name}: has no class {missing[0]!r}, which the first explains; it has {count}: "
            f"{first_few(other.class_names)}; name one that both have (--target)"
        )
    return matches


def _write(shown: Sequence[Explanation], file: Path) -> None:
    from res2net.plots.heat import PICTURE_SIDE, overlay, save_side_by_side

    # As large for all: a multiple of the largest, so that the pixels of small ones stay even.
    largest = max(len(each.pixels) for each in shown)
    side = largest * max(1, -(-PICTURE_SIDE // largest))
    pictures = [overlay(each.pixels, each.heat, side) for each in shown]
    if os.path.lexists(file):  # an hour may have passed since the check
        raise WorkError(f"{file}: not written, something else made it meanwhile")
    try:
        save_side_by_side(pictures, file)
    except OSError as error:
        reason = error.strerror or error
        raise WorkError(f"{file}: cannot be written ({reason}); the others are kept") from error


def _tiles(shown: Sequence[Explanation], names: Sequence[str]) -> list[Tile]:
    from res2net.plots.heat import enlarged, overlay
    from res2net.plots.tiles import SIDE

    tiles: list[Tile] = [(enlarged(shown[0].pixels, SIDE), Path(shown[0].source).name)]
    for each, name in zip(shown, names, strict=True):
        lines = [name] if len(names) > 1 else []
        lines.append(f"{each.label}  {each.score:.1%}")
        if each.predicted != each.label:
            lines.append(f"predicts {each.predicted}")
        tiles.append((overlay(each.pixels, each.heat, SIDE), lines))
    return tiles


def _write_sheet(tiles: Sequence[Tile], file: Path, count: int, heading: str, models: int) -> None:
    from res2net.plots.tiles import draw_tiles

    note = f"the first {ON_SHEET} of {count:,} images" if count > ON_SHEET else ""
    columns = {1: 8, 2: 6}.get(models, models + 1)
    try:
        draw_tiles(tiles, file, title=heading, note=note, columns=columns)
    except OSError as error:
        reason = error.strerror or error
        raise WorkError(f"{file}: cannot be written ({reason}); the pictures are kept") from error
