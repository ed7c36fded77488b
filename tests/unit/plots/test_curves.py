"""The curves are drawn from whatever `metrics.csv` holds."""

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from metrics_rows import write_metrics
from res2net.callbacks.metrics_csv import HEADER
from res2net.plots import curves
from res2net.plots.curves import draw_curves

BLUE, VERMILLION, GREEN = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73)


def drawn(path: Path) -> np.ndarray:
    """Pixels of a PNG of the right size, (400, 1200, 3)."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape == (400, 1200, 3)
    return pixels


def columns_of(pixels: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """In which columns a colour stands, left panel only."""
    return np.flatnonzero((pixels[100:350, :360] == color).all(axis=2).any(axis=0))


@pytest.mark.parametrize("epochs", [1, 2, 100])
def test_few_and_many_epochs(tmp_path: Path, epochs: int) -> None:
    metrics = write_metrics(tmp_path / "metrics.csv", epochs=epochs)
    picture = tmp_path / "plots" / "curves.png"
    draw_curves(metrics, picture)
    pixels = drawn(picture)
    for color in (BLUE, VERMILLION):
        columns = columns_of(pixels, color)
        # from the first epoch's end to the last's: 42..346 are the pixels of the x axis
        width = 304 * (epochs - 1) / epochs
        assert columns.max() == pytest.approx(346, abs=5)
        assert columns.max() - columns.min() == pytest.approx(width, abs=9)
    assert [path.name for path in picture.parent.iterdir()] == ["curves.png"]


@pytest.mark.parametrize("epochs", [0, 0.5])
def test_before_the_first_epoch_ends(tmp_path: Path, epochs: float) -> None:
    metrics = write_metrics(tmp_path / "metrics.csv", epochs=epochs)
    draw_curves(metrics, tmp_path / "curves.png")
    assert len(columns_of(drawn(tmp_path / "curves.png"), VERMILLION)) == 0


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.csv"
    metrics.write_text(HEADER + f"10,0,train,loss,{math.nan}\n20,0,train,loss,{math.inf}\n")
    draw_curves(metrics, tmp_path / "curves.png")
    drawn(tmp_path / "curves.png")


def test_the_average_has_a_curve_where_it_was_validated(tmp_path: Path) -> None:
    found = []
    for ema in (False, True):
        metrics = write_metrics(tmp_path / "metrics.csv", epochs=4, ema=ema)
        draw_curves(metrics, tmp_path / "curves.png")
        found.append((drawn(tmp_path / "curves.png") == GREEN).all(axis=2).sum())
    assert found[0] == 0
    assert found[1] > 300


@pytest.mark.parametrize(
    ("steps", "heading", "values"),
    [
        (9, "Learning rate (no value logged)", []),
        (19, "Learning rate (one value logged)", ["0.0474"]),
        (30, "Learning rate (three values logged)", ["0.0667", "0.0333", "0"]),
        (40, "Learning rate", []),
    ],
)
def test_few_learning_rates_are_written_out(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
    heading: str,
    values: list[str],
) -> None:
    kept: list[Figure] = []
    monkeypatch.setattr(curves, "save", lambda figure, path: kept.append(figure))
    draw_curves(write_metrics(tmp_path / "metrics.csv", epochs=1, steps=steps), Path("never.png"))
    rate = kept[0].axes[2]
    assert rate.get_title(loc="left") == heading
    assert [text.get_text() for text in rate.texts] == values
    for line in rate.lines:
        assert line.get_marker() == "o"
        # on an axis from 0, below its top: there is room for the value
        assert rate.get_ylim()[1] > 1.1 * max(np.asarray(line.get_ydata()))
    assert rate.get_ylim()[0] == 0
