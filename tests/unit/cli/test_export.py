"""`res2net export` in-process: its lines, its JSON, and what it refuses, making nothing."""

import importlib.util
import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch

from res2net.cli.main import main
from res2net.weights.read import read_weights
from res2net.zoo import create_model
from samples import NAMES, photo, save_network, small_network


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("runs") / "mine"
    save_network(small_network(), folder / "last.ckpt")
    return str(folder)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refusal(capsys, *arguments: str) -> str:
    before = sorted(os.listdir())
    assert main(["export", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert sorted(os.listdir()) == before
    return err


def test_safetensors(run, capsys):
    assert main(["export", run, "--to=safetensors", "--out=a.safetensors"]) == 0
    assert capsys.readouterr().out == (
        "a.safetensors: res2net20_cifar, 10 classes, 0.4 MB, licence: not stated\n"
        "read back: all tensors are bit for bit the network's; keys of this project\n"
    )
    weights = read_weights("a.safetensors")
    network = small_network()
    assert weights.model == "res2net20_cifar" and weights.class_names == tuple(NAMES)
    assert all(torch.equal(weights.state_dict[k], v) for k, v in network.state_dict().items())


@pytest.mark.parametrize("form", ["safetensors", "folder"])
def test_a_file_that_does_not_give_the_tensors_back(run, form, capsys, monkeypatch):
    save = safetensors.torch.save

    def other(tensors, metadata):
        changed = dict(tensors)
        key = next(key for key in tensors if key.endswith("fc.bias"))
        changed[key] = -tensors[key]
        return save(changed, metadata)

    monkeypatch.setattr(safetensors.torch, "save", other)
    assert main(["export", run, f"--to={form}", "--out=a.safetensors"]) == 1
    assert capsys.readouterr() == (
        "",
        "error: the file differs from the network in head.fc.bias, read back; nothing was "
        "written\n",
    )
    assert os.listdir() == []


def test_a_folder_says_whose_keys_it_has(run, capsys):
    torch.save(create_model("res2net50", num_classes=3).state_dict(), "bare.pth")
    bare = ["res2net50", "--weights=bare.pth"]
    assert main(["export", *bare, "--to=folder", "--out=theirs", "--image-size=64"]) == 0
    out, err = capsys.readouterr()
    assert 'keys of timm: timm.create_model("local-dir:theirs", pretrained=True)\n' in out
    assert err.startswith("warning: bare.pth: does not say how its images were prepared")
    # what was asked for stands in the file from now on
    assert main(["export", "theirs", "--to=torch", "--out=a.pt2"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["export", run, "--to=folder", "--out=ours", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same_tensors"] is True
    assert main(["export", run, "--to=folder", "--out=again"]) == 0
    assert "keys of this project, as timm has no res2net20_cifar\n" in capsys.readouterr().out


def test_the_licence_goes_with_the_weights(run, capsys):
    """From a form to the next; what is shipped has one of its own."""
    forms = [("a.safetensors", "safetensors"), ("b.safetensors", "safetensors"), ("c", "folder")]
    model, given = run, ["--licence=MIT"]
    for out, form in forms:
        assert main(["export", model, f"--to={form}", f"--out={out}", "--json", *given]) == 0
        assert json.loads(capsys.readouterr().out)["licence"] == "MIT"
        model, given = out, []
    assert main(["export", "res2net_digits", "--to=safetensors", "--out=f.safetensors"]) == 0
    assert "licence: Apache-2.0" in capsys.readouterr().out


def test_json_on_images_of_one_s_own(run, capsys):
    Path("images").mkdir()
    for seed in range(3):
        photo(seed).save(f"images/{seed}.png")
    command = ["export", run, "--to=torch", "--out=a.pt2", "--check=images", "--licence=MIT"]
    assert main([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result.pop("error") <= 1e-5
    assert result == {
        "model": "res2net20_cifar",
        "weights": f"{run}/last.ckpt",
        "to": "torch",
        "file": "a.pt2",
        "bytes": os.path.getsize("a.pt2"),
        "num_classes": 10,
        "licence": "MIT",
        "images": 3,
        "same_top1": 1.0,
        "same_tensors": None,
    }


def test_int8(run, capsys):
    Path("images").mkdir()
    for seed in range(20):
        photo(seed).save(f"images/{seed}.png")
    command = ["export", run, "--to=onnx", "--out=a.onnx", "--int8", "--calibrate=images"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert err == "10 images of --calibrate set the ranges: hundreds are better\n"
    lines = out.splitlines()
    assert lines[1].startswith("compared with PyTorch on 10 images of images: the same top-1 on ")
    assert sorted(os.listdir()) == ["a.onnx", "images"]


def test_bad_input(run, capsys):
    def said(*arguments: str) -> str:
        return refusal(capsys, run, *arguments)

    assert "invalid choice: 'tflite'" in said("--to=tflite", "--out=a.tflite")
    assert "--int8: needs --calibrate DIR" in said("--to=onnx", "--out=a.onnx", "--int8")
    assert "--calibrate: only --int8" in said("--to=onnx", "--out=a.onnx", "--calibrate=x")
    assert "choices: onnx)" in said("--to=torch", "--out=a.pt2", "--int8")
    assert "--fold-bn: not for --to folder" in said("--to=folder", "--out=a", "--fold-bn")
    assert "choices: .onnx" in said("--to=onnx", "--out=a.pt2")
    assert "there is no folder" in said("--to=onnx", "--out=no/a.onnx")
    assert "no such image or folder" in said("--to=torch", "--out=a.pt2", "--check=none")
    for form, name in (("onnx", "a.onnx"), ("torch", "a.pt2"), ("folder", "kept")):
        Path(name).touch()
        assert "exists already and is never overwritten" in said(f"--to={form}", f"--out={name}")
        assert Path(name).read_bytes() == b""
    assert "no such variant" in refusal(capsys, "vgg", "--to=folder", "--out=b")
    assert "--weights" in refusal(capsys, "res2net20_cifar", "--to=folder", "--out=b")


def test_the_extra_is_missing(run, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name)
    )
    assert refusal(capsys, run, "--to=onnx", "--out=a.onnx") == (
        "error: onnxscript: not installed; this form needs pip install "
        "'res2net-lightning[export]'\n"
    )
