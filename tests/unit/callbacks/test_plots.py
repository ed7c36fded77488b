"""When the curves are drawn; and a failure to draw never ends a run."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from disks import SmallDisk
from metrics_rows import write_metrics
from res2net.callbacks import plots
from res2net.callbacks.plots import Curves, Drawing
from res2net.errors import WorkError


def trainer(**changes: Any) -> Any:
    state = SimpleNamespace(fn="fit")
    return SimpleNamespace(**{"is_global_zero": True, "state": state, **changes})


def test_when_it_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = tmp_path / "curves.png"
    curves = Curves(write_metrics(tmp_path / "metrics.csv", epochs=1), picture, Drawing())
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
    Curves(tmp_path / "nothing.csv", picture, Drawing()).on_fit_end(trainer(), None)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{picture} was not drawn: ")
    assert "nothing.csv" in line
    assert not picture.exists()


def test_a_full_disk_keeps_the_old_picture(
    small_disk: Callable[[float], SmallDisk],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    disk = small_disk(1)
    picture = disk.path / "plots" / "curves.png"
    table = write_metrics(tmp_path / "metrics.csv", epochs=1)
    drawing = Drawing()
    Curves(table, picture, drawing).on_fit_end(trainer(), None)
    drawn = picture.read_bytes()
    disk.fill()
    Curves(write_metrics(table, epochs=2), picture, drawing).on_fit_end(trainer(), None)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{picture} was not drawn: ")
    assert "No space left on device" in line
    assert picture.read_bytes() == drawn
    assert [path.name for path in picture.parent.iterdir()] == ["curves.png"]
    with pytest.raises(WorkError, match=r"cannot write .*curves\.png: No space left on device; "):
        drawing.complete()
    disk.free()
    Curves(table, picture, drawing).on_fit_end(trainer(), None)
    drawing.complete()


def test_what_cannot_be_drawn_at_all_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("broken font")

    monkeypatch.setattr(plots, "draw_curves", fail)
    drawing = Drawing()
    Curves(tmp_path / "metrics.csv", tmp_path / "curves.png", drawing).on_fit_end(trainer(), None)
    assert capsys.readouterr().err == f"{tmp_path / 'curves.png'} was not drawn: broken font\n"
    drawing.complete()
