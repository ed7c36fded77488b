"""Several runs on common axes."""

from pathlib import Path

import numpy as np
from PIL import Image

from metrics_rows import write_metrics
from res2net.files.metrics import Metrics, read_metrics
from res2net.plots.comparison import draw_comparison

BLUE, VERMILLION = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)


def run(folder: Path, epochs: float) -> Metrics:
    return read_metrics(write_metrics(folder / f"{epochs}.csv", epochs=epochs, steps=200))


def columns(path: Path, color: tuple[int, int, int]) -> np.ndarray:
    """Columns of the left chart in which a colour stands; the legend is above."""
    picture = np.asarray(Image.open(path).convert("RGB"))
    return np.flatnonzero((picture[60:, :600] == color).all(axis=2).any(axis=0))


def test_a_run_of_half_the_epochs_ends_in_the_middle(tmp_path: Path) -> None:
    draw_comparison({"a": run(tmp_path, 40), "b": run(tmp_path, 20)}, tmp_path / "both.png")
    long, short = columns(tmp_path / "both.png", BLUE), columns(tmp_path / "both.png", VERMILLION)
    assert abs(np.ptp(short) / np.ptp(long) - 19 / 39) < 0.02
    assert np.ptp(long) > 450  # the longest takes the whole width
    # the lines cross nowhere: the right chart has both colours, too
    picture = np.asarray(Image.open(tmp_path / "both.png").convert("RGB"))
    for color in (BLUE, VERMILLION):
        assert (picture[60:, 600:] == color).all(axis=2).sum() > 100


def test_runs_before_their_first_epoch(tmp_path: Path) -> None:
    half = run(tmp_path, 0.5)
    draw_comparison({"a": half, "b": half}, tmp_path / "steps.png")
    assert len(columns(tmp_path / "steps.png", VERMILLION)) > 200
    draw_comparison({"a": half, "b": run(tmp_path, 3)}, tmp_path / "mixed.png")
    assert len(columns(tmp_path / "mixed.png", BLUE)) == 0
    assert len(columns(tmp_path / "mixed.png", VERMILLION)) > 100


def test_many_runs_with_long_names(tmp_path: Path) -> None:
    same = run(tmp_path, 2)
    draw_comparison({f"{n} {'long ' * 30}": same for n in range(12)}, tmp_path / "many.png")
    assert Image.open(tmp_path / "many.png").width == 1200
