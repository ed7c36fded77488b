"""Train, resume, fine-tune, evaluate and predict, as a user does it, on real images."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from res2net.cli.main import main
from runs import Run
from schemas import fits

pytestmark = pytest.mark.usefixtures("undrawn")  # what the command draws is looked at


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Runs a command in this process and returns its JSON."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str):
        assert main([*arguments, "--json"]) == 0
        return fits(arguments[0], capsys.readouterr().out)

    return run


def digit(index: int) -> Image.Image:
    grey = np.rint(load_digits().images[index] * (255 / 16)).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def test_four_uses(
    tmp_path: Path, command: Run, answer, capsys: pytest.CaptureFixture[str]
) -> None:
    # 1 train, as the command
    short = ("quickstart", "trainer.max_epochs=4", "data.global_batch_size=32")
    done = command("train", *short, "logging.wandb=offline")
    run = tmp_path / "checkpoints/quickstart"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["samples_seen"] == 4 * 44 * 32
    assert summary["val/top1"] > 0.9  # it learns: chance is 0.1
    assert f"top-1 {summary['val/top1']:.2%}" in done.stdout
    assert {path.name for path in run.iterdir()} == {
        "config.yaml", "last.ckpt", "previous.ckpt", "best.ckpt", "metrics.csv", "summary.json",
        "heartbeat", "plots", "wandb", "wandb-run-id",
    }  # fmt: skip
    with (run / "metrics.csv").open() as file:
        last = [row for row in csv.DictReader(file) if row["key"] == "top1"][-1]
    assert (last["split"], float(last["value"])) == ("val", summary["val/top1"])
    assert Image.open(run / "plots/curves.png").width >= 1000

    # 4 evaluate: the file repeats the figure exactly
    result = answer("test", "checkpoints/quickstart")
    assert (result["top1"], result["images"]) == (summary["val/top1"], 360)
    best = answer("test", "checkpoints/quickstart", "--checkpoint=best")
    assert best["top1"] == summary["best"]["val/top1"]

    # predict
    digit(0).save(tmp_path / "zero.png")
    predicted = answer("predict", "checkpoints/quickstart", "zero.png")
    assert predicted[0]["label"] == "0"

    # 3 resume with more epochs
    longer = ("train", short[0], "trainer.max_epochs=5", short[2], "logging.wandb=disabled")
    more = answer(*longer, "run.resume=auto")
    assert more["steps"] == 5 * 44
    assert more["restarts"] == 1

    # 2 fine-tune on a folder with other classes: even and odd digits
    labels = load_digits().target
    for index in range(120):
        split = "val" if index % 4 == 0 else "train"
        folder = tmp_path / "parity" / split / ("odd" if labels[index] % 2 else "even")
        folder.mkdir(parents=True, exist_ok=True)
        digit(index).save(folder / f"{index}.png")
    tuned = main([
        "train", "quickstart", "run.name=tuned", "data.source=folder", "data.root=parity",
        "model.weights=checkpoints/quickstart", "data.global_batch_size=30", "optim.lr=0.02",
        "trainer.max_epochs=4", "logging.wandb=disabled",
    ])  # fmt: skip
    assert tuned == 0
    assert "10 classes, the network has 2: the head starts fresh" in capsys.readouterr().err
    result = answer("test", "checkpoints/tuned")
    assert (result["images"], result["top5"]) == (30, None)
    assert result["top1"] > 0.8
    assert answer("predict", "checkpoints/tuned", "zero.png")[0]["label"] == "even"
    # any folder with these classes can be evaluated
    assert answer("test", "checkpoints/tuned", "--data", "parity/train")["images"] == 90
