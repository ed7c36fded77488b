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
        # from the first epoch's end to the last's: 48..352 are the pixels of the x axis
        width = 304 * (epochs - 1) / epochs
        assert columns.max() == pytest.approx(352, abs=5)
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


def test_a_long_learning_rate_at_the_end_is_not_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Figure] = []
    monkeypatch.setattr(curves, "save", lambda figure, path: kept.append(figure))
    metrics = tmp_path / "metrics.csv"
    metrics.write_text(HEADER + "10,0,train,lr,0.00403\n20,0,train,lr,0.00469\n")
    draw_curves(metrics, Path("never.png"))
    kept[0].canvas.draw()
    assert [text.get_text() for text in kept[0].axes[2].texts] == ["0.00403", "0.00469"]
    assert all(text.get_window_extent().x1 < 1200 for text in kept[0].axes[2].texts)


@pytest.mark.parametrize(
    ("train", "val", "logarithmic"),
    [
        ([2.5, 1.6, 0.8, 0.6, 0.6], [39.5, 4.4, 0.3, 0.14, 0.12], True),  # the quickstart's
        ([1.1, 2.5, 1.1, 0.8, 0.6], [1.0, 1226.0, 22.0, 1.6, 1.4], True),  # a spike
        ([2.5, 1.6, 1.0, 0.8, 3e18], [2.5, 1.6, 1.0, 0.8, math.nan], True),  # explodes at the end
        ([6.9, 4.0, 3.0, 2.5, 2.2], [5.5, 3.5, 2.7, 2.1, 1.9], False),  # ImageNet's
    ],
)
def test_no_loss_is_flattened_by_a_greater_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    train: list[float],
    val: list[float],
    logarithmic: bool,
) -> None:
    kept: list[Figure] = []
    monkeypatch.setattr(curves, "save", lambda figure, path: kept.append(figure))
    metrics = tmp_path / "metrics.csv"
    rows = [
        f"{10 * epoch + 10},{epoch},{split},{key},{values[epoch]}\n"
        for epoch in range(5)
        for split, key, values in (("train", "epoch_loss", train), ("val", "loss", val))
    ]
    metrics.write_text(HEADER + "".join(rows))
    draw_curves(metrics, Path("never.png"))
    loss = kept[0].axes[0]
    assert loss.get_title(loc="left") == ("Loss, log scale" if logarithmic else "Loss")
    assert loss.get_yscale() == ("log" if logarithmic else "linear")
    low, high = loss.get_ylim()
    finite = [value for value in (*train, *val) if math.isfinite(value)]
    assert low < min(finite) < max(finite) < high  # nothing leaves the picture
    kept[0].canvas.draw()
    ticks = zip(loss.get_yticks(), loss.get_yticklabels(), strict=True)
    labels = [label for tick, label in ticks if low < tick < high]
    assert len(labels) >= 3
    assert all(label.get_window_extent().x0 >= 0 for label in labels)  # none is cut


def test_a_loss_of_next_to_nothing_does_not_stretch_the_axis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Figure] = []
    monkeypatch.setattr(curves, "save", lambda figure, path: kept.append(figure))
    metrics = tmp_path / "metrics.csv"
    losses = [2.0, 0.05, 0.05, 0.05, 1e-9, 0.0]
    rows = [f"{10 * n + 10},0,train,loss,{loss}\n" for n, loss in enumerate(losses)]
    metrics.write_text(HEADER + "".join(rows))
    draw_curves(metrics, Path("never.png"))
    low, high = kept[0].axes[0].get_ylim()
    assert low == pytest.approx(5e-5)
    assert high > 2
