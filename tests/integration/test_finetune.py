"""From a run to another one with other classes: what starts fresh, what stays to the bit."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from res2net.cli.main import main
from samples import photo
from sharding import make

pytestmark = pytest.mark.usefixtures("undrawn")

CLASSES = ["ant", "bee", "cat"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`source`, a short run on digits with averaged weights, and `folder` of other classes."""
    path = tmp_path_factory.mktemp("finetune")
    make(path / "folder", {f"train/{name}": 6 for name in CLASSES}, size=(48, 40))
    make(path / "folder", {f"val/{name}": 3 for name in CLASSES}, size=(48, 40))
    assert main([
        "train", "quickstart", "trainer.max_epochs=1", "optim.lr=0.02", "optim.ema_decay=0.9",
        "data.image_size=32", f"run.dir={path}", "run.name=source",
    ]) == 0  # fmt: skip
    return path


def state(run: Path) -> dict:
    return torch.load(run / "last.ckpt", weights_only=True)


def finetune(place: Path, name: str, weights: Path, *more: str) -> Path:
    """The README's line on a small variant, an epoch of two steps."""
    assert main([
        "train", "finetune", f"data.root={place / 'folder'}", "model.name=res2net20_cifar",
        f"model.weights={weights}", "data.image_size=32", "data.global_batch_size=8",
        "trainer.max_epochs=1", "logging.wandb=disabled", "schedule.warmup_start=1",
        f"run.dir={place}", f"run.name={name}", *more,
    ]) == 0  # fmt: skip
    return place / name


def changed(run: Path, before: dict[str, torch.Tensor]) -> set[str]:
    """The parts of the backbone with a tensor that is not what it was: `stem`, `stages.0`, ..."""
    after = state(run)["state_dict"]
    assert after.keys() == before.keys()
    keys = [key.removeprefix("model.backbone.") for key in after if ".head." not in key]
    return {
        ".".join(key.split(".")[: 2 if key.startswith("stages") else 1])
        for key in keys
        if not torch.equal(after[f"model.backbone.{key}"], before[f"model.backbone.{key}"])
    }


def logged(run: Path, split: str) -> dict[str, float]:
    with (run / "metrics.csv").open() as file:
        return {r["key"]: float(r["value"]) for r in csv.DictReader(file) if r["split"] == split}


EVERYTHING = {"stem", "stages.0", "stages.1", "stages.2"}


@pytest.mark.parametrize(
    ("freeze", "expected"),
    [("none", EVERYTHING), ("2", {"stages.2"}), ("backbone", set())],
    ids=["all", "two stages", "head"],
)
def test_other_classes(
    place: Path,
    freeze: str,
    expected: set[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = finetune(place, freeze, place / "source", f"optim.freeze={freeze}", "optim.ema_decay=0.5")
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if "the head starts fresh" in line]
    assert len(lines) == 1 and "10 classes, the network has 3" in lines[0]
    assert ("parameters learn" in said) == (freeze != "none")
    before, after = state(place / "source"), state(run)
    assert changed(run, before["state_dict"]) == expected
    frozen = {f"model.backbone.{part}." for part in EVERYTHING - expected}
    averaged = after["ema_state_dict"]
    for key in averaged:
        if key.startswith(tuple(frozen)):
            assert torch.equal(averaged[key], before["state_dict"][key])
    assert after["state_dict"]["model.head.fc.weight"].shape[0] == 3
    assert after["res2net"]["class_names"] == CLASSES

    photo().save(tmp_path / "image.png")
    assert main(["predict", str(run), str(tmp_path / "image.png"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["label"] in CLASSES
    # of another folder with one class alone, by its name
    only = place / "folder/val/cat"
    folder = tmp_path / "images" / "cat"
    folder.parent.mkdir()
    folder.symlink_to(only)
    assert main(["test", str(run), "--data", str(folder.parent), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 3


@pytest.mark.parametrize(
    ("target", "ema"),
    # timm's names and the authors' are the same for this variant
    [("timm", False), ("mmpretrain", False), ("timm", True), ("res2net", True)],
)
def test_from_converted_weights(
    place: Path, target: str, ema: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """The backbone that training starts from is the source's, whatever its file calls it."""
    name = f"{target}-{ema}"
    file = place / f"{name}.pth"
    options = ["--ema"] if ema else []
    assert main(["convert", str(place / "source"), str(file), "--to", target, *options]) == 0
    run = finetune(place, name, file, "optim.freeze=backbone")
    assert "10 classes, the network has 3: the head starts fresh" in capsys.readouterr().err
    before = state(place / "source")
    assert changed(run, before["ema_state_dict" if ema else "state_dict"]) == set()
    assert changed(run, before["state_dict" if ema else "ema_state_dict"]) == EVERYTHING


def test_averaged_weights_are_used_where_asked_for(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = place / "source"
    photo().save(tmp_path / "image.png")
    found = []
    for split, options in (("val", []), ("val_ema", ["--ema"])):
        capsys.readouterr()
        assert main(["test", str(run), "--json", *options]) == 0
        result, expected = json.loads(capsys.readouterr().out), logged(run, split)
        assert (result["top1"], result["top5"]) == (expected["top1"], expected["top5"])
        assert result["loss"] == pytest.approx(expected["loss"], rel=1e-6)
        assert main(["predict", str(run), str(tmp_path / "image.png"), "--json", *options]) == 0
        predicted = json.loads(capsys.readouterr().out)
        out = tmp_path / f"{split}.npz"
        image = str(tmp_path / "image.png")
        assert main(["features", str(run), image, "--out", str(out), *options]) == 0
        found.append((predicted, np.load(out)["features"]))
    (raw, features), (averaged, averaged_features) = found
    assert raw != averaged
    assert features.shape == averaged_features.shape
    assert not np.allclose(features, averaged_features)
