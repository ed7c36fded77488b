"""The pictures at the end of a run, and that none of them can end it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metrics_rows import write_metrics
from res2net.callbacks import pictures
from res2net.callbacks.mistake import Mistake
from res2net.callbacks.pictures import Pictures
from res2net.callbacks.plots import Drawing
from res2net.callbacks.predictions import NONE
from res2net.callbacks.wandb import Wandb
from res2net.files.runs import RunDirectory
from res2net.plots.tiles import SIDE

NAMES = ("cat", "dog", "n02119789")
LABELS = np.array([0, 1, 2, 0, 1, 2])
SAID = np.array([0, 2, 0, 1, NONE, 2])
LOSSES = np.array([0.1, 1.0, 9.0, np.nan, 99.0, 0.2], dtype=np.float32)
ALL = {"confusion.png", "per_class.png", "throughput.png", "worst.png"}


class Board(Wandb):
    """Stands for W&B."""

    def __init__(self) -> None:
        self.heard: list[tuple[Path, list[Mistake], int]] = []

    def log_end(self, plots: Path, mistakes: Any, *, step: int) -> None:
        self.heard.append((plots, mistakes, step))


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    write_metrics(tmp_path / "metrics.csv", epochs=2)
    return RunDirectory(tmp_path)


def predictions(said: np.ndarray = SAID) -> Any:
    classes = np.stack([said, (said + 1) % 3], axis=1)
    return SimpleNamespace(
        classes=classes, losses=LOSSES, probabilities=np.linspace(0.5, 1, 6, dtype=np.float32)
    )


def trainer(*loggers: object, **changes: Any) -> Any:
    values = {"is_global_zero": True, "global_step": 44, "loggers": list(loggers)}
    return SimpleNamespace(**{**values, **changes})


def drawn(run: RunDirectory) -> set[str]:
    return {path.name for path in run.plots.iterdir()} if run.plots.is_dir() else set()


def tile(index: int) -> Image.Image:
    return Image.new("RGB", (SIDE, SIDE), (index, 100, 200))


def test_the_worst_come_first_and_what_was_not_seen_is_left_out(run: RunDirectory) -> None:
    board = Board()
    callback = Pictures(run, predictions(), Drawing(), labels=LABELS, names=NAMES, tile=tile)
    callback.on_fit_end(trainer(object(), board), Any)
    assert drawn(run) == ALL
    ((plots, mistakes, step),) = board.heard
    assert (plots, step) == (run.plots, 44)
    # the third image of a class that diverged to NaN counts as the worst
    assert [found.index for found in mistakes] == [3, 2, 1]
    assert (mistakes[1].true, mistakes[1].predicted) == ("kit fox", "cat")
    assert mistakes[1].probability == pytest.approx(0.7)
    assert mistakes[1].loss == 9.0
    picture = np.asarray(Image.open(run.plots / "worst.png").convert("RGB"))
    lefts = [np.argwhere((picture == (i, 100, 200)).all(axis=2)).min(axis=0)[1] for i in (3, 2, 1)]
    assert lefts == sorted(lefts)


def test_the_matrix_and_the_classes_are_of_the_images_that_were_seen(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: dict[str, Any] = {}
    monkeypatch.setattr(pictures, "draw_confusion", lambda m, *_: heard.update(matrix=m))
    monkeypatch.setattr(pictures, "draw_per_class", lambda r, n, *_: heard.update(r=r, n=n))
    callback = Pictures(run, predictions(), Drawing(), labels=LABELS, names=NAMES, tile=tile)
    callback.on_fit_end(trainer(), Any)
    assert heard["matrix"].tolist() == [[1, 1, 0], [0, 0, 1], [1, 0, 1]]
    assert (heard["r"].tolist(), heard["n"].tolist()) == ([1, 0, 1], [2, 1, 2])


def test_all_right_is_a_picture_without_images(run: RunDirectory) -> None:
    callback = Pictures(run, predictions(LABELS), Drawing(), labels=LABELS, names=NAMES, tile=tile)
    callback.on_fit_end(trainer(), Any)
    assert drawn(run) == ALL


def test_without_a_validation_there_is_only_the_speed(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    empty: Any = SimpleNamespace(classes=np.empty((0, 5), dtype=np.int64))
    board = Board()
    callback = Pictures(run, empty, Drawing(), labels=LABELS, names=NAMES, tile=tile)
    callback.on_fit_end(trainer(board), Any)
    assert "no pictures of the last validation" in capsys.readouterr().err
    assert drawn(run) == {"throughput.png"}
    assert [mistakes for _, mistakes, _ in board.heard] == [[]]


def test_other_ranks_draw_nothing(run: RunDirectory) -> None:
    callback = Pictures(run, predictions(), Drawing(), labels=LABELS, names=NAMES, tile=tile)
    callback.on_fit_end(trainer(is_global_zero=False), Any)
    assert drawn(run) == set()


def test_more_classes_than_pixels_have_no_matrix(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "MATRIX", 2)
    callback = Pictures(run, predictions(), Drawing(), labels=LABELS, names=NAMES, tile=tile)
    callback.on_fit_end(trainer(), Any)
    assert drawn(run) == ALL - {"confusion.png"}


def test_failures_are_one_line_each(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk\nfull")

    for name in ("draw_throughput", "draw_confusion", "draw_per_class"):
        monkeypatch.setattr(pictures, name, fail)
    drawing = Drawing()
    callback = Pictures(run, predictions(), drawing, labels=LABELS, names=NAMES, tile=fail)  # type: ignore
    callback.on_fit_end(trainer(), Any)
    lines = capsys.readouterr().err.splitlines()
    assert {Path(line.split(" was not drawn: ")[0]).name for line in lines} == ALL
    assert all(line.endswith("disk full") for line in lines)
    # but the run is not complete without those that the disk did not take
    assert {path.name for path in drawing._lacking} == ALL - {"worst.png"}
