"""Pickles of other code: what is admitted, and that nothing in them is ever run."""

import argparse
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from res2net.errors import InputError
from res2net.weights.formats import from_ours
from res2net.weights.paddle_file import read_paddle
from res2net.weights.read import read_weights
from res2net.weights.torch_file import read_torch
from res2net.zoo import create_model


class Runs:
    """Calls `function(*arguments)` when it is unpickled without care."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


# What mmcv and mmengine put beside the weights.
META = {
    "env_info": "sys.platform: linux",
    "config": "model = dict(type='ImageClassifier')\n",
    "seed": 0,
    "epoch": np.int64(100),
    "time": "Mon Sep 27 10:00:00 2021",
    "hook_msgs": {"best_score": np.float64(78.14), "best_ckpt": "epoch_100.pth", "ok": np.True_},
    "CLASSES": ("tench", "goldfish"),
    "scores": np.array([78.1, 93.8], dtype=np.float32),
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_meta_of_openmmlab_is_admitted(tmp_path, legacy):
    torch.manual_seed(0)
    tensors = create_model("res2net20_cifar").state_dict()
    path = tmp_path / "a.pth"
    stored = {"meta": META, "state_dict": OrderedDict(from_ours(tensors, "mmpretrain"))}
    torch.save(stored, path, _use_new_zipfile_serialization=not legacy)
    weights = read_weights(path)
    assert weights.format == "mmpretrain"
    assert weights.state_dict.keys() == tensors.keys()
    assert all(torch.equal(weights.state_dict[key], tensors[key]) for key in tensors)
    assert read_torch(path)["meta"]["hook_msgs"]["best_score"] == 78.14


def test_numpy_of_before_version_2_is_admitted(tmp_path):
    path = tmp_path / "a.pth"
    torch.save(META["scores"], path, _use_new_zipfile_serialization=False)
    old = path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != path.read_bytes()
    path.write_bytes(old)
    assert np.array_equal(read_torch(path).make(), META["scores"])


def test_arguments_of_timm_s_training_are_admitted(tmp_path):
    torch.manual_seed(0)
    tensors = create_model("res2net20_cifar").state_dict()
    raw = {key: value + 1 for key, value in tensors.items()}
    path = tmp_path / "a.pth.tar"
    stored = {
        "epoch": 3,
        "arch": "res2net50d",
        "args": argparse.Namespace(lr=0.1, model="res2net50d"),
        "state_dict": {f"module.{key}": value for key, value in raw.items()},
        "state_dict_ema": from_ours(tensors, "timm"),
    }
    torch.save(stored, path)
    averaged = read_weights(path, ema=True).state_dict
    assert all(torch.equal(averaged[key], tensors[key]) for key in tensors)
    assert torch.equal(read_weights(path).state_dict["head.fc.bias"], raw["head.fc.bias"])


def test_objects_of_openmmlab_s_training_are_refused_by_name(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"state_dict": {}, "message_hub": Runs(getattr, str, "upper")}, path)
    with pytest.raises(InputError, match=r"carries the Python object \S*getattr, which could run"):
        read_torch(path)


def paddle_file(path: Path, tensors, *, protocol=4, **more) -> Path:
    arrays = {key: value.numpy() for key, value in from_ours(tensors, "paddle").items()}
    names = {key: f"conv2d_{index}.w_0" for index, key in enumerate(arrays)}
    stored = arrays | {"StructuredToParameterName@@": names} | more
    path.write_bytes(pickle.dumps(stored, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_paddle_file(tmp_path, protocol):
    torch.manual_seed(0)
    tensors = create_model("res2net20_cifar").state_dict()
    path = paddle_file(tmp_path / "a.pdparams", tensors, protocol=protocol)
    weights = read_weights(path)
    assert weights.format == "paddle"
    assert weights.num_classes == 10
    for key, tensor in weights.state_dict.items():
        assert torch.equal(tensor, tensors[key])
    lacking = tensors.keys() - weights.state_dict.keys()
    assert lacking and all(key.endswith("num_batches_tracked") for key in lacking)
    model = create_model("res2net20_cifar", weights=path)
    assert torch.equal(model.head.fc.weight, tensors["head.fc.weight"])


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("evil", ["system", "eval", "getattr", "load"])
def test_code_in_a_paddle_file_is_refused_and_does_not_run(tmp_path, protocol, evil):
    trace = tmp_path / "trace"
    source = tmp_path / "inner"
    source.write_bytes(pickle.dumps(Runs(os.system, f"touch {trace}")))
    call = {
        "system": Runs(os.system, f"touch {trace}"),
        "eval": Runs(eval, f"open({str(trace)!r}, 'w').close()"),
        "getattr": Runs(getattr, Runs(os.system, f"touch {trace}"), "real"),
        "load": Runs(np.load, str(source), None, True),
    }[evil]
    tensors = create_model("res2net20_cifar").state_dict()
    path = paddle_file(tmp_path / "a.pdparams", tensors, protocol=protocol, extra=call)
    with pytest.raises(InputError, match=r"carries the Python object \S+, which could run code"):
        read_weights(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists()  # the file does run code where it may


def test_paddle_files_that_are_none(tmp_path):
    path = tmp_path / "a.pdparams"

    def refusal() -> str:
        with pytest.raises(InputError) as caught:
            read_paddle(path)
        return str(caught.value)

    path.touch()
    assert refusal() == "the file is empty"
    path.write_bytes(b"\xff\xd8 a photograph")
    assert "damaged" in refusal()
    whole = pickle.dumps({"a": np.ones(100, dtype=np.float32)})
    path.write_bytes(whole[: len(whole) // 2])
    assert "damaged" in refusal()
    path.write_bytes(pickle.dumps([1, 2]))
    assert refusal() == "holds a list, not a table of weights"
    for value, kind in ((3, "int"), (np.array(["a"]), "ndarray"), (np.array([{}]), "ndarray")):
        path.write_bytes(pickle.dumps({"a": value}))
        assert refusal() == f"entry 'a' is a {kind}, not an array of numbers"
    path.write_bytes(pickle.dumps(b"a", protocol=2).replace(b"latin1", b"rot_13"))
    assert "damaged" in refusal()
