"""Images with their labels, side by side, as one picture: drawn by Pillow, without Matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from res2net.files.atomic import atomic_write
from res2net.files.names import shown
from res2net.files.place import make_folder_of

COLUMNS, ROWS = 8, 6
SIDE = 160
"""Pixels of an image in the picture."""

_GAP, _MARGIN, _LINE, _TITLE = 10, 20, 17, 44
_INKS = ("#222222", "#B34700", "#777777")
"""Of the lines of a label, in turn."""
_FAINT, _PAPER = "#777777", "white"


def draw_tiles(
    tiles: Sequence[tuple[Image.Image, str | Sequence[str]]],
    file: Path,
    *,
    title: str,
    note: str,
    columns: int = COLUMNS,
) -> None:
    """Write a PNG of images of `SIDE` pixels with a label below each, `columns` in a row.

    A label is one line, or several. `title` stands above on the left, `note` on the right. The
    picture's folder is made if need be. Raises OSError.
    """
    from matplotlib import get_data_path  # its font has more letters than Pillow's own

    path = Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    small, large = (ImageFont.truetype(str(path), size) for size in (12, 16))
    rows = max(1, -(-len(tiles) // columns))
    labels = [[label] if isinstance(label, str) else label for _, label in tiles]
    lines = max(map(len, labels), default=1)
    width = 2 * _MARGIN + columns * (SIDE + _GAP) - _GAP
    pitch = SIDE + 7 + _LINE * lines + _GAP
    height = _MARGIN + _TITLE + rows * pitch
    picture = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((width - _MARGIN, _MARGIN), note, font=small, fill=_FAINT, anchor="ra")
    room = width - 3 * _MARGIN - draw.textlength(note, font=small)
    draw.text((_MARGIN, _MARGIN - 4), _fit(draw, title, large, room), font=large, fill=_INKS[0])
    for place, (image, _) in enumerate(tiles):
        row, column = divmod(place, columns)
        x = _MARGIN + column * (SIDE + _GAP)
        y = _MARGIN + _TITLE + row * pitch
        picture.paste(image, (x, y))
        for number, text in enumerate(labels[place]):
            below = (x, y + SIDE + 5 + number * _LINE)
            ink = _INKS[min(number, len(_INKS) - 1)]
            draw.text(below, _fit(draw, text, small, SIDE), font=small, fill=ink)
    make_folder_of(file)
    with atomic_write(file) as stream:
        picture.save(stream, "PNG")


def _fit(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """The text, its end cut off where it is too wide."""
    text = shown(text, longest=300)
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(f"{text}…", font=font) > width:
        text = text[:-1]
    return f"{text.rstrip()}…"
