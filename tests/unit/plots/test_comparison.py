"""Several runs on common axes."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from metrics_rows import write_metrics
from res2net.files.metrics import Metrics, read_metrics
from res2net.plots import comparison
from res2net.plots.comparison import draw_comparison

BLUE, VERMILLION = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)


def run(folder: Path, epochs: float, *, ema: bool = False) -> Metrics:
    return read_metrics(write_metrics(folder / f"{epochs}.csv", epochs=epochs, steps=200, ema=ema))


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Those that are drawn, instead of their files."""
    kept: list[Figure] = []
    monkeypatch.setattr(comparison, "save", lambda figure, path: kept.append(figure))
    return kept


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


@pytest.mark.parametrize(
    ("keys", "split", "key", "title"),
    [
        ([], "train", "epoch_loss", "Training loss"),
        (["loss.name", "augment.mixup"], "val", "loss", "Validation loss (cross-entropy)"),
    ],
)
def test_training_losses_of_different_kinds_are_not_drawn(
    tmp_path: Path, figures: list[Figure], keys: list[str], split: str, key: str, title: str
) -> None:
    runs = {"a": run(tmp_path, 4), "b": run(tmp_path, 3)}
    draw_comparison(runs, Path("never.png"), losses_differ_by=keys)
    loss, _ = figures[0].axes
    assert loss.get_title(loc="left") == title
    drawn = [list(zip(*drawn.get_data(), strict=True)) for drawn in loss.lines]
    assert drawn == [one.curves[split, key] for one in runs.values()]
    why = "the training losses differ in kind: loss.name, augment.mixup"
    assert [text.get_text() for text in loss.texts] == ([why] if keys else [])


def test_averages_are_dashed_in_the_colour_of_their_run(
    tmp_path: Path, figures: list[Figure]
) -> None:
    draw_comparison({"a": run(tmp_path, 4), "b": run(tmp_path, 3, ema=True)}, Path("never.png"))
    draw_comparison({"a": run(tmp_path, 4), "b": run(tmp_path, 3)}, Path("never.png"))
    found = []
    for figure in figures:
        (legend,) = figure.legends
        lines = [line for line in figure.axes[1].lines if line.get_gid() != "key"]
        labels = [text.get_text() for text in legend.get_texts()]
        dashed = [line for line in lines if line.get_linestyle() == "--"]
        found.append((labels, [line.get_color() for line in dashed], dashed))
    with_average, without = found
    assert without == (["a", "b"], [], [])
    labels, colors, (dashed,) = with_average
    assert labels == ["a", "b", "averaged weights"]
    assert colors == ["#D55E00"]
    assert list(np.asarray(dashed.get_ydata())) == pytest.approx([80 / 3, 160 / 3, 80])


def of_accuracies(*right: float) -> Metrics:
    losses = [(n + 1.0, 1 - share) for n, share in enumerate(right)]
    shares = [(n + 1.0, share) for n, share in enumerate(right)]
    return Metrics({("train", "epoch_loss"): losses, ("val", "top1"): shares}, "epoch")


@pytest.mark.parametrize("epochs", [1, 5, 20])
def test_equal_runs_are_all_seen(figures: list[Figure], epochs: int) -> None:
    rising = [0.5 + n / 50 for n in range(epochs)]
    same, other = of_accuracies(*rising), of_accuracies(*(0.8 * share for share in rising))
    cut = of_accuracies(*rising[: -(-epochs // 2)])
    draw_comparison(
        {"a": same, "other": other, "again": same, "cut": cut, "third": same}, Path("never.png")
    )
    for axes in figures[0].axes:
        lines = [line for line in axes.lines if line.get_gid() != "key"]
        for size in ("linewidth", "markersize"):
            a, lone, again, half, third = (getattr(line, f"get_{size}")() for line in lines)
            # the half lies on `a` and `again` and below `third`; these lie on each other
            assert a > again + 2
            assert again > third + 2
            assert half > third + 2
            assert lone == third


def test_many_equal_runs_do_not_fill_the_picture(figures: list[Figure]) -> None:
    same = of_accuracies(*(0.5 + n / 50 for n in range(20)))
    draw_comparison({str(n): same for n in range(12)}, Path("never.png"))
    widths = [line.get_linewidth() for line in figures[0].axes[0].lines]
    assert widths == sorted(widths, reverse=True)
    assert len(set(widths)) == 12
    assert max(widths) < 14


def test_all_lines_have_markers_or_none(figures: list[Figure]) -> None:
    short, long = of_accuracies(*([0.5] * 12)), of_accuracies(*([0.6] * 20))
    draw_comparison({"short": short, "long": long}, Path("never.png"))
    draw_comparison({"short": short, "one": of_accuracies(0.7)}, Path("never.png"))
    draw_comparison({"one": of_accuracies(0.7), "long": long}, Path("never.png"))
    found = [[line.get_marker() for line in figure.axes[0].lines] for figure in figures]
    assert found == [["", ""], ["o", "o"], ["o", ""]]  # without a marker one point is nothing


def test_a_run_that_diverges_leaves_the_others_readable(figures: list[Figure]) -> None:
    good, bad = of_accuracies(0.5, 0.7, 0.8), of_accuracies(0.5, 0.3, -4999.0)
    draw_comparison({"good": good, "bad": bad}, Path("never.png"))
    loss, _ = figures[0].axes
    assert loss.get_title(loc="left") == "Training loss, log scale"
    low, high = loss.get_ylim()
    assert low < 0.2
    assert high > 5000
