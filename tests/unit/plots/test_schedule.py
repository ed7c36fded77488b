"""Pictures of learning rates."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from res2net.plots.schedule import draw_lr_search, draw_schedule

BLUE, VERMILLION = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)


def drawn(path: Path) -> np.ndarray:
    """Pixels of a PNG of the right size, (450, 1000, 3)."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape == (450, 1000, 3)
    return pixels


def heights(pixels: np.ndarray, color: tuple[int, int, int]) -> dict[int, float]:
    """Column -> mean row of a colour's pixels below the legend."""
    rows, columns = np.nonzero((pixels[75:] == color).all(axis=2))
    return {column: rows[columns == column].mean() for column in np.unique(columns)}


@pytest.mark.parametrize("steps", [40, 100_000])
def test_two_scales(tmp_path: Path, steps: int) -> None:
    picture = tmp_path / "plot.png"
    rates = [1.0] * (steps // 2) + [0.5] * (steps // 2)
    draw_schedule(
        picture,
        title="run",
        rates=rates,
        steps_per_epoch=steps // 20,
        scales=[("layers × 0.5", 0.5), ("head × 1", 1.0)],
    )
    pixels = drawn(picture)
    low, high = heights(pixels, BLUE), heights(pixels, VERMILLION)
    first, last = min(high), max(high)
    early, late = first + (last - first) // 4, first + 3 * (last - first) // 4
    # zero is `base`: 1.0 and 0.5 of the head, 0.5 and 0.25 of the layers
    assert high[late] == pytest.approx(low[early], abs=1.5)
    base = 2 * high[late] - high[early]
    assert base - low[late] == pytest.approx((base - high[early]) / 4, abs=2)
    assert len(high) > 850


def test_one_scale_is_a_strong_line_without_a_legend(tmp_path: Path) -> None:
    draw_schedule(
        tmp_path / "plot.png",
        title="run",
        rates=[0.1, 0.2, 0.3],
        steps_per_epoch=3,
        scales=[("", 1.0)],
    )
    pixels = drawn(tmp_path / "plot.png")
    columns = np.flatnonzero((pixels[30:] == BLUE).all(axis=2).any(axis=0))
    assert columns.max() - columns.min() > 900
    assert not (pixels[:200, :300] == BLUE).all(axis=2).any()  # where a legend would be


def test_the_suggestion_is_marked_and_divergence_leaves_the_picture(tmp_path: Path) -> None:
    rates = [10.0**power for power in range(-6, 2)]
    losses = [2.0, 2.0, 1.9, 1.5, 1.4, 300.0, float("nan"), float("nan")]
    draw_lr_search(
        tmp_path / "plot.png", title="run", rates=rates, losses=losses, suggestion=rates[3]
    )
    pixels = drawn(tmp_path / "plot.png")
    marked = heights(pixels, VERMILLION)
    curve = heights(pixels, BLUE)
    middle = np.mean(list(marked))
    assert 6 <= max(marked) - min(marked) <= 12
    # halfway between the first loss and a little above the lowest
    assert curve[min(curve)] < np.mean(list(marked.values())) < max(curve.values())
    assert min(curve) < middle < max(curve)
    assert max(curve.values()) - curve[min(curve)] > 100  # the fall is seen
