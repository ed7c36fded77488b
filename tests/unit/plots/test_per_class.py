"""A bar a class: its length, its place, and which classes are left out."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from res2net.plots import per_class
from res2net.plots.per_class import draw_per_class

BLUE, VERMILLION = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)


def bars(path: Path, color: tuple[int, int, int]) -> list[int]:
    """Widths in pixels of the bars of a colour, from above."""
    pixels = (np.asarray(Image.open(path).convert("RGB")) == color).all(axis=2)
    widths, previous = [], 0
    for width in pixels.sum(axis=1).tolist():
        if width > 5 and previous <= 5:
            widths.append(width)
        previous = width
    return widths


def test_the_worst_comes_first_and_lengths_are_shares(tmp_path: Path) -> None:
    right, images = np.array([30, 100, 0, 10]), np.array([40, 400, 0, 20])
    names = ["three quarters", "a quarter $", "no images", "half " * 30]
    draw_per_class(right, images, names, tmp_path / "classes.png", "run")
    widths = bars(tmp_path / "classes.png", BLUE)
    assert len(widths) == 3
    assert np.allclose(np.array(widths) / widths[0], [1, 2, 3], atol=0.05)


def test_of_many_classes_both_ends_are_shown(tmp_path: Path) -> None:
    images = np.full(100, 2000)
    right = np.random.default_rng(0).permutation(np.arange(1010, 2010, 10))
    draw_per_class(right, images, [str(n) for n in range(100)], tmp_path / "classes.png", "run")
    worst, best = bars(tmp_path / "classes.png", VERMILLION), bars(tmp_path / "classes.png", BLUE)
    assert len(worst) == len(best) == 20
    assert worst == sorted(worst) and best == sorted(best, reverse=True)
    assert np.isclose(worst[-1] / best[0], 1200 / 2000, atol=0.02)


def test_the_line_of_the_mean_does_not_pass_through_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Figure] = []

    def save(figure: Figure, path: Path) -> None:
        figure.savefig(path)
        kept.append(figure)

    monkeypatch.setattr(per_class, "save", save)
    path = tmp_path / "classes.png"
    draw_per_class(np.array([80, 88]), np.array([100, 100]), ["a", "b"], path, "run")
    pixels = np.asarray(Image.open(path).convert("RGB"))
    (axes,) = kept[0].axes
    column = int(axes.transData.transform((84, 0))[0])
    faint = (pixels[:, column - 1 : column + 2] == 0x77).all(axis=2).any(axis=1)
    assert faint.sum() > 50  # the line is there
    box = axes.texts[0].get_window_extent()
    assert box.x0 < column < box.x1  # and goes where the number of the first bar stands
    top, bottom = round(len(pixels) - box.y1), round(len(pixels) - box.y0)
    assert not faint[top:bottom].any()
