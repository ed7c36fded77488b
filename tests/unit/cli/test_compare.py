"""`res2net compare`: what it prints of runs in any state, and what it refuses."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from metrics_rows import write_metrics
from res2net.cli.main import main
from schemas import fits

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a run directory: settings, epochs done, and whether it has a summary."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *, epochs: float = 3, lr: float = 0.1, ema: bool = False) -> Path:
        path = Path(name)
        path.mkdir(parents=True)
        config: dict[str, Any] = {
            "run": {"name": path.name, "dir": str(path.parent), "seed": 0},
            "model": {"name": "res2net20_cifar"},
            "optim": {"lr": lr, "clip_norm": 0.0},
            "trainer": {"max_epochs": 3},
        }
        if ema:
            config["optim"]["ema"] = "0.99"
        (path / "config.yaml").write_text(yaml.safe_dump(config))
        write_metrics(path / "metrics.csv", epochs=epochs, ema=ema)
        if epochs >= 1:
            summary = {
                "status": "completed" if epochs >= 3 else "interrupted",
                "val/top1": 0.75,
                "val/top5": 0.95,
                "val/loss": 1.5,
                "best": {"epoch": 1, "val/top1": 0.8125},
                "wall_seconds": 3723.4,
                "parameters": 92_000,
            }
            (path / "summary.json").write_text(json.dumps(summary))
        return path

    return run


def cells(text: str, name: str) -> list[str]:
    """The line of a table that begins with a name."""
    (line,) = [line for line in text.splitlines() if line.split()[:1] == [name]]
    return line.split()


def test_figures_and_settings_that_differ(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    make("runs/one")
    make("runs/two", epochs=2, lr=0.05, ema=True)
    assert main(["compare", "runs/one", "runs/two"]) == 0
    out = capsys.readouterr().out
    assert "EMA top-1" in out
    figures = "one res2net20_cifar 0.09M 3/3 75.00% 95.00% - 81.25% (2) 1.5000 5,000 1:02:03"
    assert cells(out, "one") == [*figures.split(), "completed"]
    assert cells(out, "two")[3:7] == ["2/3", "75.00%", "95.00%", "80.00%"]
    assert cells(out, "optim.lr") == ["optim.lr", "0.1", "0.05"]
    assert cells(out, "optim.ema") == ["optim.ema", "-", "0.99"]
    for same in ("run.name", "run.dir", "optim.clip_norm", "model.name"):
        assert same not in out


def test_json_has_fractions_and_the_same_settings(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make("a")
    make("b", lr=0.2)
    assert main(["compare", "a", "b", "--json", "--out", "both.png"]) == 0
    found = fits("compare", capsys.readouterr().out)
    assert found["runs"][0] == {
        "run": "a",
        "status": "completed",
        "model": "res2net20_cifar",
        "parameters": 92_000,
        "epochs": 3,
        "max_epochs": 3,
        "top1": 0.75,
        "top5": 0.95,
        "ema_top1": None,
        "loss": 1.5,
        "best_top1": 0.8125,
        "best_epoch": 2,
        "images_per_second": 5000.0,
        "wall_seconds": 3723.4,
    }
    assert found["differences"] == {"optim.lr": [0.1, 0.2]}
    assert found["picture"] == "both.png"
    assert Image.open("both.png").format == "PNG"


@pytest.mark.parametrize(
    ("key", "differs"),
    [
        ("loss.name", True),
        ("loss.label_smoothing", True),
        ("loss.teacher", True),
        ("augment.mixup", True),
        ("augment.cutmix_share", True),
        ("augment.mix_probability", True),
        ("augment.erase", False),
        ("optim.lr", False),
    ],
)
def test_what_makes_training_losses_differ_in_kind(
    make: Make, monkeypatch: pytest.MonkeyPatch, key: str, differs: bool
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(
        "res2net.plots.comparison.draw_comparison", lambda runs, path, **more: asked.update(more)
    )
    group, leaf = key.split(".")
    for name, value in (("a", 1), ("b", 2)):
        path = make(name) / "config.yaml"
        config = yaml.safe_load(path.read_text())
        config.setdefault(group, {})[leaf] = value
        path.write_text(yaml.safe_dump(config))
    assert main(["compare", "a", "b", "--out", "both.png"]) == 0
    assert asked == {"losses_differ_by": [key] if differs else []}


def test_a_run_that_has_hardly_begun(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    make("new", epochs=0)
    make("elsewhere/new", epochs=0)
    assert main(["compare", "new", "elsewhere/new", "--out", "p.png"]) == 0
    out = capsys.readouterr().out
    assert cells(out, "elsewhere/new")[1:5] == ["res2net20_cifar", "-", "0/3", "-"]
    assert "All settings are the same." in out
    assert Path("p.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["good"], "good: only one run; compare takes two or more"),
        (["good", "nowhere"], "nowhere: not a run: is no directory"),
        (["good", "empty"], "empty: not a run: holds no config.yaml"),
        (["good", "damaged"], "damaged: a file of this run cannot be read"),
        (["good", "without"], "without: a file of this run cannot be read"),
        (["good", "good"], "good: named twice"),
        (["good", "other", "--out", "p.pdf"], "p.pdf: the suffix says the form"),
        (["good", "other", "--out", "there.png"], "never overwritten"),
    ],
)
def test_what_is_refused(
    make: Make, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make("good")
    make("other")
    Path("empty").mkdir()
    (make("damaged") / "config.yaml").write_text("- [")
    (make("without") / "metrics.csv").unlink()
    Path("there.png").write_bytes(b"mine")
    assert main(["compare", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert words in err
    assert not Path("p.pdf").exists()


def test_it_starts_without_pytorch(make: Make) -> None:
    make("a")
    make("b")
    code = (
        "import sys; from res2net.cli.main import main; assert main(['compare', 'a', 'b']) == 0; "
        "assert not {'torch', 'lightning', 'matplotlib', 'omegaconf'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
