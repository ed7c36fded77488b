"""The picture of what is taken for what."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from res2net.plots import confusion
from res2net.plots.confusion import PAIRS, count_confusions, draw_confusion


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


def test_of_many_classes_the_most_confused_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Figure] = []
    monkeypatch.setattr(confusion, "save", lambda figure, path: kept.append(figure))
    names = [f"class $ {number}" for number in range(101)]
    matrix = 9 * np.eye(101, dtype=np.int64)
    matrix[50] = 0  # without images: not in the picture, and the numbers go on
    draw_confusion(matrix.copy(), names, tmp_path / "right.png", "")
    matrix[:40, 0] += 1
    matrix[60, 61] = 1_500
    matrix[61, 60] = 3
    matrix[:, 50] = 0
    draw_confusion(matrix, names, tmp_path / "wrong.png", "")
    right, wrong = (figure.axes[1] for figure in kept)
    assert (right.get_title(loc="left"), list(right.texts)) == ("No mistakes", [])
    assert wrong.get_title(loc="left").startswith("Most often confused")
    texts = [text.get_text() for text in wrong.texts]
    assert len(texts) == 2 * PAIRS
    assert texts[:6] == [
        *("1,500 of 1,509", "class $ 60 (60) \N{RIGHTWARDS ARROW} class $ 61 (61)"),
        *("3 of 12", "class $ 61 (61) \N{RIGHTWARDS ARROW} class $ 60 (60)"),
        *("1 of 10", "class $ 1 (1) \N{RIGHTWARDS ARROW} class $ 0 (0)"),
    ]
    kept[1].canvas.draw()
    assert not any(text.get_parse_math() for text in wrong.texts[1::2])


def test_letters_that_the_font_lacks_are_no_warnings(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    draw_confusion(
        np.eye(2, dtype=np.int64), ("\N{CJK UNIFIED IDEOGRAPH-72D7}", "dog"), tmp_path / "c.png", ""
    )
    assert [str(warning.message) for warning in recwarn] == []
