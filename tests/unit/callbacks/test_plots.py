"""The curves are drawn from whatever `metrics.csv` holds, and never end a run."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from res2net.callbacks import plots
from res2net.callbacks.metrics_csv import HEADER
from res2net.callbacks.plots import Curves, draw_curves

BLUE, VERMILLION = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)


def write_metrics(path: Path, *, epochs: float, steps: int = 22, top5: bool = True) -> Path:
    """What a run of so many epochs writes, a row every ten steps."""
    rows = []
    for step in range(1, round(epochs * steps) + 1):
        epoch, done = (step - 1) // steps, step / (epochs * steps)
        if step % 10 == 0:
            values = {"loss": 7 - 5 * done, "top1": done, "lr": 0.1 * (1 - done)}
            values["images_per_second"] = 5000.0
            rows += [f"{step},{epoch},train,{key},{value!r}" for key, value in values.items()]
        if step % steps == 0:
            values = {"top1": 0.75 * done, "loss": 6.5 - 5 * done}
            values |= {"top5": 0.95 * done} if top5 else {}
            rows += [f"{step},{epoch},val,{key},{value!r}" for key, value in values.items()]
            values = {"epoch_loss": 7 - 5 * done, "epoch_top1": 0.7 * done}
            rows += [f"{step},{epoch},train,{key},{value!r}" for key, value in values.items()]
    path.write_text(HEADER + "".join(row + "\n" for row in rows))
    return path


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


def test_steps_become_epochs(tmp_path: Path) -> None:
    curves, unit = plots._read(write_metrics(tmp_path / "metrics.csv", epochs=2.5, top5=False))
    assert unit == "epoch"
    assert [x for x, _ in curves["val", "top1"]] == [1, 2]
    assert curves["train", "lr"][-1][0] == pytest.approx(50 / 22)
    assert not curves["val", "top5"]


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.csv"
    metrics.write_text(HEADER + f"10,0,train,loss,{math.nan}\n20,0,train,loss,{math.inf}\n")
    draw_curves(metrics, tmp_path / "curves.png")
    drawn(tmp_path / "curves.png")


def trainer(**changes: Any) -> Any:
    state = SimpleNamespace(fn="fit")
    return SimpleNamespace(**{"is_global_zero": True, "state": state, **changes})


def test_when_it_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = tmp_path / "curves.png"
    curves = Curves(write_metrics(tmp_path / "metrics.csv", epochs=1), picture)
    now = [plots.time.monotonic()]
    monkeypatch.setattr(plots.time, "monotonic", lambda: now[0])

    def drawn_by(hook: str, after: float, **changes: Any) -> bool:
        picture.unlink(missing_ok=True)
        now[0] += after
        getattr(curves, hook)(trainer(**changes), None)
        return picture.exists()

    assert not drawn_by("on_validation_end", after=20)
    assert drawn_by("on_validation_end", after=20)
    assert not drawn_by("on_validation_end", after=20)
    assert drawn_by("on_fit_end", after=0)
    assert not drawn_by("on_validation_end", after=40, state=SimpleNamespace(fn="validate"))
    assert not drawn_by("on_fit_end", after=40, is_global_zero=False)


def test_a_failure_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "curves.png"
    Curves(tmp_path / "nothing.csv", picture).on_fit_end(trainer(), None)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{picture} was not drawn: ")
    assert "nothing.csv" in line
    assert not picture.exists()
