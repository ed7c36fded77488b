"""The folder: timm and this project open it, the card tells what is known, and nothing else."""

import json
import os
from dataclasses import replace

import pytest
import timm
import torch
import yaml

from res2net.errors import InputError
from res2net.export.card import write_card
from res2net.export.folder import export_folder
from res2net.export.source import open_source, same_in_timm
from res2net.files.runs import identity
from res2net.models.variants import VARIANTS
from res2net.preprocessing import Preprocessing
from res2net.weights.formats import from_ours
from res2net.zoo import create_model, open_model
from samples import NAMES


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert expected.isfinite().all()
    return float((found - expected).abs().max() / expected.std())


@pytest.mark.parametrize(
    ("name", "theirs"), [("res2net50_v1b", "res2net50d"), ("dla60_res2net",) * 2]
)
def test_timm_gives_the_same_logits_for_other_classes(name, theirs, tmp_path):
    """Of a fine-tuned run with seven classes: by the folder, and by `convert --to timm`."""
    from res2net.cli.main import main

    torch.manual_seed(0)
    network = create_model(name, num_classes=7).train()
    images = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        network(images)
        network(images)
    preprocessing = Preprocessing(64, crop_fraction=0.9, std=(0.3, 0.2, 0.1))
    (tmp_path / "run").mkdir()
    description = identity(
        network.variant,
        num_classes=7,
        class_names=[f"c{number}" for number in range(7)],
        preprocessing=preprocessing.to_dict(),
        config={"model": {"name": network.variant, "weights": "in1k"}},
    )
    state = {f"model.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": state, "res2net": description}, tmp_path / "run/last.ckpt")
    source = open_source(tmp_path / "run")
    folder = tmp_path / "folder"
    assert export_folder(source, folder) == ["README.md", "config.json", "model.safetensors"]
    with torch.inference_mode():
        expected = network.eval()(images)
        judge = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        assert error(judge(images), expected) <= 1e-5
        ours, read = open_model(folder)
        assert torch.equal(ours.eval()(images), expected)
        for file in ("a.pth", "a.safetensors"):
            path = str(tmp_path / file)
            assert main(["convert", str(tmp_path / "run"), path, "--to", "timm"]) == 0
            judge2 = timm.create_model(theirs, num_classes=7, checkpoint_path=path).eval()
            assert error(judge2(images), expected) <= 1e-5
    data = timm.data.resolve_model_data_config(judge)
    assert data["input_size"] == (3, 64, 64) and data["crop_pct"] == 0.9
    assert tuple(data["std"]) == (0.3, 0.2, 0.1) and data["interpolation"] == "bilinear"
    assert list(judge.pretrained_cfg["label_names"]) == [f"c{number}" for number in range(7)]
    assert read.preprocessing == preprocessing and read.class_names == source.class_names
    card = (folder / "README.md").read_text()
    assert "trained from official/" in card and "CC BY-NC-SA 4.0 (no commercial use)" in card


def test_timm_s_names():
    """Those variants, and no others, that timm has under one of its names."""
    for name in VARIANTS:
        theirs = same_in_timm(name)
        assert (theirs is not None) == (theirs in timm.list_models())
        if theirs is not None:
            with torch.device("meta"):
                judge, ours = timm.create_model(theirs), create_model(name).state_dict()
            shapes = {key: value.shape for key, value in judge.state_dict().items()}
            found = {key: value.shape for key, value in from_ours(ours, "timm").items()}
            assert found == shapes
    missed = [name for name in VARIANTS if name in timm.list_models() and not same_in_timm(name)]
    assert not missed


def test_a_network_that_timm_does_not_have(source, run, network, tmp_path):
    summary = {"val/top1": 0.875, "val/top5": 0.99, "best": {"epoch": 1, "val/top1": 0.9}}
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "config.yaml").write_text("{}")
    folder = tmp_path / "mine"
    export_folder(open_source(run), folder)
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == "res2net20_cifar" and config["label_names"] == NAMES
    card = (folder / "README.md").read_text()
    assert "Top-1 87.50%, top-5 99.00%: validation, the last epoch." in card
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "unknown" and front["library_name"] == "res2net-lightning"
    ours, _ = open_model(folder)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(ours.eval()(images), network(images))
    with pytest.raises(InputError, match="exists already and is never overwritten"):
        export_folder(source, folder)
    with pytest.raises(InputError, match="there is no folder"):
        export_folder(source, tmp_path / "no" / "folder")
    assert os.listdir(tmp_path) == ["mine"]


def test_accuracy_is_of_the_weights_that_are_exported(run, tmp_path):
    best = run / "best.ckpt"
    best.write_bytes((run / "last.ckpt").read_bytes())
    summary = {"val/top1": 0.5, "val_ema/top1": 0.6, "best": {"epoch": 1, "val/top1": 0.7}}
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "config.yaml").write_text("{}")
    assert open_source(run).accuracy.top1 == 0.5
    assert open_source(run, checkpoint="best").accuracy.top1 == 0.7
    assert open_source(best).accuracy.top1 == 0.7
    elsewhere = tmp_path / "copy.ckpt"
    elsewhere.write_bytes(best.read_bytes())
    assert open_source(elsewhere).accuracy is None


def test_what_a_card_says_of_names_and_licences(source):
    odd = replace(source, class_names=("a*b", "[x](y)\n# z"), licence='of "mine": 1')
    card = write_card(odd, "folder", parameters=1234)
    assert "a\\*b, \\[x\\](y) \\# z." in card
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "other" and front["license_name"] == 'of "mine": 1'
    spdx = yaml.safe_load(
        write_card(replace(source, licence="MIT"), "f", parameters=1).split("---")[1]
    )
    assert spdx["license"] == "mit"


def test_folded_weights_are_for_use_alone(source, network, tmp_path):
    from res2net.export.safetensors import export_safetensors

    path = tmp_path / "folded.safetensors"
    found = export_safetensors(source, path, fold=True)
    assert found.error <= 1e-5
    opened, read = open_model(path)
    assert read.is_folded and read.class_names == tuple(NAMES)
    assert not [key for key in opened.state_dict() if "running" in key]
    images = torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        assert error(opened.eval()(images), network(images)) <= 1e-5
    for use in (
        lambda: create_model("res2net20_cifar", weights=path),
        lambda: export_folder(open_source(path), tmp_path / "folder"),
    ):
        with pytest.raises(InputError, match="batch norms are folded"):
            use()
    assert os.listdir(tmp_path) == ["folded.safetensors"]


def test_what_cannot_be_exported():
    with pytest.raises(InputError, match="a variant without weights answers at random"):
        open_source("res2net20_cifar")
