"""Images in their places, with labels of one or several lines below."""

from pathlib import Path

import numpy as np
from PIL import Image

from res2net.plots.tiles import COLUMNS, SIDE, draw_tiles


def test_images_stand_in_rows_whatever_their_labels(tmp_path: Path) -> None:
    colors = [(10 * n, 255 - 10 * n, 77) for n in range(COLUMNS + 1)]
    heights = []
    for lines in (1, 2):
        label = ["a label that is far too long for its place"] * lines
        tiles = [(Image.new("RGB", (SIDE, SIDE), color), label) for color in colors]
        file = tmp_path / "plots" / f"{lines}.png"
        draw_tiles(tiles, file, title="title " * 50, note="note")
        picture = np.asarray(Image.open(file))
        heights.append(len(picture))
        places = [np.argwhere((picture == color).all(axis=2)) for color in colors]
        assert [len(place) for place in places] == [SIDE * SIDE] * len(colors)
        corners = [tuple(place.min(axis=0)) for place in places]
        assert len({y for y, _ in corners[:COLUMNS]}) == 1
        assert corners[COLUMNS][1] == corners[0][1]
        # what is written below an image stays below it, and above the next
        ink = (picture[corners[0][0] + SIDE : corners[COLUMNS][0], 20 : 20 + SIDE] < 200).any()
        assert ink
        assert (picture[corners[COLUMNS][0] - 8 : corners[COLUMNS][0]] == 255).all()
    assert heights[1] - heights[0] == 2 * 17


def test_no_images_at_all(tmp_path: Path) -> None:
    draw_tiles([], tmp_path / "none.png", title="title", note="note")
    assert Image.open(tmp_path / "none.png").width > SIDE
