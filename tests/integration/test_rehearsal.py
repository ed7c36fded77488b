"""`res2net train --plot-schedule` and `--find-lr`: an answer, a picture, and nothing else."""

import tempfile
from pathlib import Path

import pytest
from PIL import Image

from ranks import train
from res2net.cli.main import main
from schemas import fits


def test_the_schedule_is_drawn_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "quickstart", "--plot-schedule", "lr.png"]) == 0
    ends, written = capsys.readouterr().out.splitlines()
    assert ends.startswith("lr 0.001 at the first step, 0.1 at its peak (step 22, epoch 1)")
    assert written == "written: lr.png"
    assert Image.open("lr.png").size == (1000, 450)
    assert main(["train", "quickstart", "--json", "--plot-schedule", "again.png"]) == 0
    told = fits("train_plot_schedule", capsys.readouterr().out)
    assert told["peak"] == pytest.approx(0.1) and told["steps"] == 440
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.png", "lr.png"]


def test_a_rate_is_found_on_the_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    overrides = ["optim.name=adamw", "optim.lr_batch=16", "data.global_batch_size=32"]
    overrides.append("trainer.accumulate=2")
    assert main(["train", "quickstart", *overrides, "--find-lr", "found.png", "--json"]) == 0
    out, err = capfd.readouterr()
    told = fits("train_find_lr", out)
    assert "trying learning rates from 1e-06 to 10" in err
    assert "Finding best initial lr" not in err  # Lightning's bar, in what is no terminal
    # far from the noise of the first steps, and from where AdamW diverges
    assert 3e-3 < told["suggestion"] < 0.1
    assert told["optim.lr"] == pytest.approx(told["suggestion"] / 2)
    assert told["losses"][0] == pytest.approx(2.4, abs=0.2)  # ln 10 and a bit: not halved
    assert Image.open(tmp_path / "found.png").size == (1000, 450)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.png", "temporary"]
    assert not list(temporary.glob("**/*.ckpt"))
    assert not [path for path in temporary.iterdir() if path.is_dir()]


def test_two_processes_find_a_rate_of_the_same_fall(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """It was 6.6e-05: a dip of the noise, that one process escaped by luck."""
    train(tmp_path, environment, "quickstart", "--find-lr", "--json")
    said = (tmp_path / "log-0").read_text()
    told = fits("train_find_lr", said[said.index("\n{") :])
    assert 3e-3 < told["suggestion"] < 0.07  # lowest at 0.04, and at 0.09 it diverges


def test_where_nothing_can_be_learnt_no_rate_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("train/cat", "train/dog", "val/cat", "val/dog"):
        (tmp_path / "images" / folder).mkdir(parents=True)
        for name in range(40):
            Image.new("RGB", (16, 16), "gray").save(tmp_path / f"images/{folder}/{name}.png")
    data = ["data.source=folder", "data.root=images", "data.global_batch_size=16"]
    assert main(["train", "quickstart", *data, "--find-lr", "found.png"]) == 1
    out, err = capfd.readouterr()
    assert not out
    last = err.splitlines()[-1]
    assert "no learning rate from 1e-06 to 10 made the loss fall beyond its noise" in last
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("quickstart", "--find-lr", "optim.lr=1"), "takes a PNG or nothing"),
        (("quickstart", "--find-lr", "--plot-schedule", "a.png"), "give one"),
        (("quickstart", "--plot-schedule", "a.pdf"), "choices: .png"),
        (
            ("quickstart", "trainer.num_nodes=2", "--find-lr"),
            "nothing started the command",
        ),
        (("quickstart", "schedule.warmup_epochs=21", "--find-lr"), "schedule.warmup_epochs=21"),
    ],
)
def test_refusals(
    arguments: tuple[str, ...],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 2
    assert line in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
