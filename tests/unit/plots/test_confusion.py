"""The picture of what is taken for what."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from res2net.plots.confusion import count_confusions, draw_confusion


def test_every_image_is_counted_once() -> None:
    generator = np.random.default_rng(0)
    labels, said = generator.integers(0, 7, (2, 500))
    matrix = count_confusions(labels, said, 9)
    expected = np.zeros((9, 9), dtype=int)
    for true, taken in zip(labels, said, strict=True):
        expected[true, taken] += 1
    assert np.array_equal(matrix, expected)


@pytest.mark.parametrize("classes", [6, 100])
def test_the_picture_is_darkest_where_most_images_are(tmp_path: Path, classes: int) -> None:
    labels = np.arange(classes)
    names = tuple(f"class $ {number}" for number in labels)  # no formula
    draw_confusion(count_confusions(labels, labels, classes), names, tmp_path / "right.png", "")
    said = np.zeros(classes, dtype=np.int64)
    draw_confusion(count_confusions(labels, said, classes), names, tmp_path / "one.png", "one")
    columns = []
    for name in ("right.png", "one.png"):
        picture = np.asarray(Image.open(tmp_path / name).convert("RGB"), dtype=int)
        assert min(picture.shape[:2]) >= 500
        darkest = np.abs(picture - (8, 48, 107)).max(axis=2) < 3  # of the colour map
        columns.append(np.flatnonzero(darkest.sum(axis=0) > 2))
    # the colour bar has a few such columns at its end as well
    assert len(columns[0]) > 2 * len(columns[1]) > 0
