"""Files that are written with what they are, whole or not at all."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from res2net.errors import InputError
from res2net.weights.formats import from_ours
from res2net.weights.read import read_weights
from res2net.weights.write import describe_weights, write_weights
from res2net.zoo import create_model

NAME = "res2net20_cifar"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_written_files_say_what_they_are(tmp_path, suffix):
    torch.manual_seed(0)
    tensors = create_model(NAME, num_classes=2).state_dict()
    torch.save(tensors, tmp_path / "source.pth")
    weights = read_weights(tmp_path / "source.pth")
    path = tmp_path / f"a{suffix}"
    weights = replace(weights, licence="MIT")
    write_weights(path, weights.state_dict, description=describe_weights(weights, NAME))
    again = read_weights(path)
    assert again.licence == "MIT" and describe_weights(again, NAME)["licence"] == "MIT"
    assert "licence" not in describe_weights(replace(again, licence=None), NAME)
    assert (again.model, again.num_classes, again.format) == (NAME, 2, "res2net")
    assert (again.class_names, again.preprocessing, again.config) == (None, None, {})
    assert all(torch.equal(again.state_dict[key], tensors[key]) for key in tensors)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"a{suffix}", "source.pth"]
    if suffix == ".safetensors":
        with safe_open(path, framework="pt") as stored:
            assert json.loads(stored.metadata()["res2net"])["model"] == NAME
    else:
        assert torch.load(path, weights_only=True)["res2net"]["model"] == NAME


def test_without_a_description_only_tensors_are_written(tmp_path):
    tensors = from_ours(create_model(NAME).state_dict(), "official")
    write_weights(tmp_path / "a.pth", tensors, description=None)
    assert torch.load(tmp_path / "a.pth", weights_only=True).keys() == tensors.keys()
    write_weights(tmp_path / "a.safetensors", tensors, description=None)
    assert read_weights(tmp_path / "a.safetensors").format == "official"


def test_destinations_that_cannot_be(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"old")
    for name, reason in (
        ("a.pth", "exists already and is never overwritten"),
        ("a.onnx", r"choices: \.pth, \.safetensors"),
        ("no/a.pth", "there is no folder"),
    ):
        with pytest.raises(InputError, match=reason):
            write_weights(tmp_path / name, {}, description=None)
    assert (tmp_path / "a.pth").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.pth"]


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\)"):
        write_weights(tmp_path / "a.pth", {"a": torch.ones(1)}, description=None)
    assert list(tmp_path.iterdir()) == []
