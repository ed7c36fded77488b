"""Reading weights: what is accepted, what is refused and how, and that nothing is loaded half."""

import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from res2net.errors import InputError
from res2net.preprocessing import Preprocessing
from res2net.weights.formats import from_ours
from res2net.weights.read import Weights, apply_weights, read_state_dict, read_weights
from res2net.zoo import create_model

NAME = "res2net20_cifar"
IDENTITY = {
    "schema": 1,
    "model": NAME,
    "num_classes": 10,
    "class_names": [f"class {index}" for index in range(10)],
    "preprocessing": Preprocessing(image_size=32, crop_fraction=1.0).to_dict(),
}


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return create_model(NAME).state_dict()


def lightning_checkpoint(tensors, **more):
    wrapped = {f"model.{key}": value for key, value in tensors.items()}
    return {"state_dict": wrapped, "epoch": 3, "res2net": IDENTITY, **more}


def assert_same(weights: Weights, tensors: dict[str, torch.Tensor]) -> None:
    assert weights.state_dict.keys() == tensors.keys()
    assert all(torch.equal(weights.state_dict[key], tensors[key]) for key in tensors)


def refusal(path: Path, **arguments) -> str:
    with pytest.raises(InputError) as caught:
        read_weights(path, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert repr(str(path)) in message
    # What is accepted: only where another kind of file would help.
    told = ("is damaged, cut short or no", "no such file", "the directory has no")
    assert ("; accepted: a run directory" in message) == any(words in message for words in told)
    return message


def test_our_checkpoint(tmp_path, tensors):
    path = tmp_path / "a.ckpt"
    torch.save(lightning_checkpoint(tensors), path)
    weights = read_weights(path)
    assert_same(weights, tensors)
    assert weights.model == NAME
    assert weights.num_classes == 10
    assert weights.class_names == tuple(IDENTITY["class_names"])
    assert weights.preprocessing == Preprocessing(image_size=32, crop_fraction=1.0)
    assert weights.source == str(path)


def test_averaged_weights_are_read_when_asked_for(tmp_path, tensors):
    averaged = {f"model.{key}": value + 1 for key, value in tensors.items()}
    path = tmp_path / "a.ckpt"
    torch.save(lightning_checkpoint(tensors, ema_state_dict=averaged), path)
    assert_same(read_weights(path), tensors)
    assert_same(read_weights(path, ema=True), {key: value + 1 for key, value in tensors.items()})


@pytest.mark.parametrize("container", ["ema_state_dict", "state_dict_ema", "model_ema"])
def test_what_a_file_has_of_averaged_weights(tmp_path, tensors, container):
    path = tmp_path / "a.pth"
    averaged = {f"module.{key}": value + 1 for key, value in tensors.items()}
    # torch's and mmengine's averages count their updates beside the tensors
    averaged |= {"n_averaged": torch.tensor(3), "steps": torch.tensor(3)}
    torch.save({"model": tensors, container: averaged}, path)
    assert read_weights(path).has_ema
    assert not read_weights(path, ema=True).has_ema
    torch.save({container: averaged, "epoch": 3}, path)
    assert f"holds only averaged weights ({container}): give --ema to take them" in refusal(path)
    assert_same(read_weights(path, ema=True), {key: value + 1 for key, value in tensors.items()})
    torch.save({"model": tensors}, path)
    assert not read_weights(path).has_ema


def test_the_best_checkpoint_is_one_of_a_run_directory(tmp_path, tensors):
    path = tmp_path / "a.ckpt"
    torch.save(lightning_checkpoint(tensors), path)
    with pytest.raises(InputError) as caught:
        read_weights(path, checkpoint="best")
    assert str(caught.value) == (
        f"checkpoint 'best': applies to run directories, {str(path)!r} is none"
    )


def test_averaged_weights_that_are_not_there(tmp_path, tensors):
    path = tmp_path / "a.ckpt"
    torch.save(lightning_checkpoint(tensors), path)
    assert "holds no averaged weights" in refusal(path, ema=True)
    path = tmp_path / "a.safetensors"
    save_file(tensors, path)
    assert "holds no averaged weights" in refusal(path, ema=True)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("container", [None, "state_dict", "model", "model_state_dict", "net"])
def test_official_file(tmp_path, tensors, container, legacy):
    official = {f"module.{key}": value for key, value in from_ours(tensors, "official").items()}
    path = tmp_path / "a.pth"
    stored = official if container is None else {container: official, "arch": "resnet18"}
    torch.save(stored, path, _use_new_zipfile_serialization=not legacy)
    assert zipfile.is_zipfile(path) is not legacy
    weights = read_weights(str(path))
    assert_same(weights, tensors)
    assert (weights.model, weights.class_names, weights.preprocessing) == (None, None, None)
    assert weights.format == "official"
    assert weights.num_classes == 10


def test_safetensors_with_and_without_a_description(tmp_path, tensors):
    path = tmp_path / "a.safetensors"
    save_file(from_ours(tensors, "official"), path)
    weights = read_weights(path)
    assert_same(weights, tensors)
    assert weights.model is None
    save_file(tensors, path, metadata={"res2net": json.dumps(IDENTITY)})
    weights = read_weights(path)
    assert_same(weights, tensors)
    assert weights.model == NAME
    assert weights.preprocessing == Preprocessing(image_size=32, crop_fraction=1.0)


def test_run_directory(tmp_path, tensors):
    torch.save(lightning_checkpoint(tensors), tmp_path / "best.ckpt")
    with pytest.raises(InputError, match=r"has no last\.ckpt, it has best\.ckpt; accepted"):
        read_weights(tmp_path)
    weights = read_weights(tmp_path, checkpoint="best")
    assert weights.source == str(tmp_path / "best.ckpt")
    later = {key: value + 1 for key, value in tensors.items()}
    torch.save(lightning_checkpoint(later), tmp_path / "last.ckpt")
    assert_same(read_weights(tmp_path), later)
    assert_same(read_weights(tmp_path, checkpoint="best"), tensors)


def test_directory_without_checkpoints(tmp_path):
    assert "has no last.ckpt, it has no checkpoint" in refusal(tmp_path)


def test_missing_and_empty_files(tmp_path):
    assert "no such file" in refusal(tmp_path / "a.ckpt")
    for name in ("a.ckpt", "a.safetensors"):
        (tmp_path / name).touch()
        assert "the file is empty" in refusal(tmp_path / name)


class Malicious:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("form", ["pickle", "zip", "legacy"])
def test_code_is_refused_and_does_not_run(tmp_path, tensors, form):
    trace = tmp_path / "trace"
    path = tmp_path / "a.pth"
    stored = {"state_dict": from_ours(tensors, "official"), "extra": Malicious(trace)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(stored))
    else:
        torch.save(stored, path, _use_new_zipfile_serialization=form == "zip")
    message = refusal(path)
    assert not trace.exists()
    if form == "pickle":
        pickle.loads(path.read_bytes())
    else:
        assert "carries the Python object posix.system, which could run code" in message
        torch.load(path, weights_only=False)
    assert trace.exists()  # the file does run code where it may


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_truncated_file(tmp_path, tensors, form, share):
    path = tmp_path / ("a.safetensors" if form == "safetensors" else "a.pth")
    if form == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=form == "zip")
    read_weights(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "damaged" in refusal(path)


def test_flipped_bit(tmp_path, tensors):
    path = tmp_path / "a.pth"
    torch.save(tensors, path)
    content = bytearray(path.read_bytes())
    needle = tensors["backbone.stages.2.1.conv3.weight"].numpy().tobytes()
    place = content.find(needle)
    assert place > 0
    content[place + 100] ^= 1
    path.write_bytes(content)
    torch.load(path, weights_only=True)  # PyTorch does not notice
    assert "damaged" in refusal(path)


@pytest.mark.parametrize("content", [b"\xff\xd8\xff\xe0 a photograph", b"PK\x03\x04 no archive"])
@pytest.mark.parametrize("name", ["a.jpg", "a.ckpt", "a.safetensors"])
def test_foreign_bytes(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    assert "damaged" in refusal(path)


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        ([1, 2], "holds a list, not a table of weights"),
        ({}, "holds no weights"),
        ({"state_dict": {"a": 1}}, "entry 'a' is a int, not a tensor"),
        ({"a": torch.ones(1)}, "its keys (a, ...) are not those of a Res2Net"),
        ({"net.a": torch.ones(1)}, "its keys (net.a, ...) are not those of a Res2Net"),
    ],
)
def test_foreign_contents(tmp_path, stored, reason):
    path = tmp_path / "a.pth"
    torch.save(stored, path)
    assert reason in refusal(path)


def test_backbone_without_a_classifier(tmp_path, tensors):
    path = tmp_path / "a.pth"
    torch.save({key: value for key, value in tensors.items() if "fc" not in key}, path)
    assert "a backbone without a classifier" in refusal(path)
    weights = read_weights(path, backbone_only=True)
    assert weights.num_classes == 0
    model = create_model(NAME, num_classes=3)
    head = model.head.fc.weight.clone()
    assert apply_weights(model, weights) == (
        f"weights {str(path)!r} are for no classes, the network has 3: the head starts fresh"
    )
    assert torch.equal(model.head.fc.weight, head)
    stem = "backbone.stem.conv1.weight"
    assert torch.equal(model.state_dict()[stem], tensors[stem])


@pytest.mark.parametrize("backbone_only", [False, True])
def test_half_a_classifier(tmp_path, tensors, backbone_only):
    path = tmp_path / "a.pth"
    del tensors["head.fc.weight"]
    torch.save(tensors, path)
    assert "no matrix head.fc.weight" in refusal(path, backbone_only=backbone_only)
    torch.save(from_ours(tensors, "official"), path)
    assert "no matrix fc.weight" in refusal(path, backbone_only=backbone_only)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema": 2}, "has schema 2, this version reads 1"),
        ({"num_classes": 11}, "says 11 classes, its head has 10"),
        ({"class_names": ["one"]}, "names 1 classes, its head has 10"),
        ({"preprocessing": {"image_size": 32}}, "its description 'res2net' is damaged"),
        (
            {"preprocessing": IDENTITY["preprocessing"] | {"crop_fraction": 1.5}},
            "is damaged: preprocessing: crop_fraction=1.5: expected a number above 0 and up to 1",
        ),
        ({"num_classes": None}, "its description 'res2net' is damaged"),
    ],
)
def test_descriptions_that_cannot_be(tmp_path, tensors, change, reason):
    path = tmp_path / "a.safetensors"
    save_file(tensors, path, metadata={"res2net": json.dumps(IDENTITY | change)})
    assert reason in refusal(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "its metadata 'res2net': damaged, not JSON"),
        ("[]", "its description 'res2net' is not one of this project"),
        ("{}", "its description 'res2net' is not one of this project"),
    ],
)
def test_metadata_of_another_kind(tmp_path, tensors, text, reason):
    path = tmp_path / "a.safetensors"
    save_file(tensors, path, metadata={"res2net": text})
    assert reason in refusal(path)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("x" * 301, "a name of 301 characters"),
        (10**5000, "entry int is a Tensor, not a tensor"),
        (-(10**5000), "entry int is a Tensor, not a tensor"),
        (("a",) * 9999, "entry tuple is a Tensor, not a tensor"),
    ],
    ids=["long", "huge", "negative", "tuple"],
)
def test_names_of_tensors_that_are_none(tensors, key, reason):
    with pytest.raises(InputError) as caught:
        read_state_dict(tensors | {key: torch.zeros(1)})
    assert reason in str(caught.value) and len(str(caught.value)) < 300
