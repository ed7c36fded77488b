"""ONNX and torch.export: what the files compute, say and take; what is not kept."""

import json
import os
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from sklearn.datasets import load_sample_images
from torch import nn

from families import FAMILIES
from res2net.errors import InputError, WorkError
from res2net.export import compare
from res2net.export.compare import agreement, generated
from res2net.export.onnx import export_int8, export_onnx, split_images
from res2net.export.source import Source
from res2net.export.torch_export import FACTS, export_program
from res2net.models.head import Res2NetClassifier
from res2net.preprocessing import Preprocessing
from samples import NAMES, PREPROCESSING, photo


def photographs(count: int, side: int) -> torch.Tensor:
    """uint8 (N, 3, S, S)."""
    pictures = [np.array(photo(seed, (side, side))) for seed in range(count)]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def real_photographs(count: int, side: int) -> torch.Tensor:
    """uint8 (N, 3, S, S): parts of the two photographs that scikit-learn ships."""
    china, flower = (np.array(picture) for picture in load_sample_images().images)  # (427, 640, 3)
    places = [(13 * number, 30 * number) for number in range(count)]
    parts = [
        (china, flower)[number % 2][y : y + 4 * side : 4, x : x + 4 * side : 4][:side, :side]
        for number, (y, x) in enumerate(places)
    ]
    return torch.from_numpy(np.stack(parts)).permute(0, 3, 1, 2)


def normalised(pixels: torch.Tensor, preprocessing: Preprocessing = PREPROCESSING) -> np.ndarray:
    """By the formula, in float64."""
    mean, std = (
        np.array(three).reshape(1, 3, 1, 1) for three in (preprocessing.mean, preprocessing.std)
    )
    return ((pixels.numpy() / 255 - mean) / std).astype(np.float32)


def logits_of(path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


def error(found, expected) -> float:
    found, expected = (np.asarray(values, np.float64) for values in (found, expected))
    assert np.isfinite(expected).all() and found.shape == expected.shape
    return float(np.abs(found - expected).max() / expected.std())


def right(network, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return network.eval()(torch.from_numpy(images)).numpy()


def test_onnx(source, network, tmp_path):
    path = tmp_path / "a.onnx"
    found = export_onnx(source, path)
    assert found.images == 6 and found.error <= 1e-5 and found.same_top1 == 1
    for count in (1, 3):
        images = normalised(photographs(count, 32))
        assert error(logits_of(path, images), right(network, images)) <= 1e-5
    assert os.listdir(tmp_path) == ["a.onnx"]

    graph = onnx.load(path)
    onnx.checker.check_model(graph, full_check=True)
    assert not [node for node in graph.graph.node if node.op_type == "BatchNormalization"]
    said = {entry.key: entry.value for entry in graph.metadata_props}
    assert said["model"] == "res2net20_cifar" and said["licence"] == "not stated"
    assert json.loads(said["class_names"]) == NAMES
    assert json.loads(said["preprocessing"]) == {
        "resize_short_side": 32,
        "interpolation": "bilinear",
        "antialias": True,
        "center_crop": 32,
        "mean": [0.5, 0.4, 0.3],
        "std": list(PREPROCESSING.std),
    }
    assert json.loads(said["input"])["dtype"] == "float32"
    assert b"res2net/models" not in path.read_bytes()  # where the code stood


def test_onnx_of_pixels(source, network, tmp_path):
    path = tmp_path / "a.onnx"
    export_onnx(source, path, takes="uint8")
    pixels = photographs(3, 32)
    expected = right(network, normalised(pixels))
    assert error(logits_of(path, pixels.numpy()), expected) <= 1e-5
    said = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(said["input"])["dtype"] == "uint8"


@pytest.mark.parametrize("takes", ["normalised", "uint8"])
@pytest.mark.parametrize("fold", [False, True])
def test_torch_export(source, network, tmp_path, takes, fold):
    path = tmp_path / "a.pt2"
    found = export_program(source, path, takes=takes, fold=fold)
    assert found.error <= 1e-5 and os.listdir(tmp_path) == ["a.pt2"]
    extra = {FACTS: ""}
    program = torch.export.load(path, extra_files=extra)
    norms = [node for node in program.graph.nodes if "batch_norm" in str(node.target)]
    assert bool(norms) != fold
    assert json.loads(extra[FACTS]) == source.facts(takes)
    for count in (1, 4):
        pixels = photographs(count, 32)
        images = normalised(pixels)
        given = pixels if takes == "uint8" else torch.from_numpy(images)
        with torch.inference_mode():
            logits = program.module()(given)
        assert error(logits, right(network, images)) <= 1e-5
    assert b"res2net/models" not in path.read_bytes()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(source, family, tmp_path):
    """Of small networks; `integration/test_export.py` has the published ones."""
    torch.manual_seed(0)
    network = Res2NetClassifier(FAMILIES[family](), 10, variant=family).train()
    preprocessing = Preprocessing(image_size=65)  # odd: every average meets a border
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    pixels = real_photographs(12, 65)
    images = normalised(pixels, preprocessing)
    with torch.no_grad():
        network(torch.from_numpy(images))
    small = replace(source, network=network.eval(), preprocessing=preprocessing)
    expected = right(network, images)
    export_onnx(small, tmp_path / "a.onnx", check=lambda: [pixels])
    assert error(logits_of(tmp_path / "a.onnx", images), expected) <= 1e-4
    export_program(small, tmp_path / "a.pt2", check=lambda: [pixels])
    program = torch.export.load(tmp_path / "a.pt2").module()
    assert error(program(torch.from_numpy(images)).detach(), expected) <= 1e-4


def test_int8(source, network, tmp_path):
    path = tmp_path / "a.onnx"
    pixels = photographs(48, 32)
    found = export_int8(source, path, calibrate=lambda: [pixels[:32]], check=lambda: [pixels[32:]])
    images = normalised(pixels[32:])
    expected, given = right(network, images), logits_of(path, images)
    assert found.images == 16
    assert found.error == pytest.approx(error(given, expected), rel=1e-3)
    assert found.same_top1 == (given.argmax(1) == expected.argmax(1)).mean()
    assert 1e-4 < found.error < 1
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds


def test_a_file_that_is_not_right_is_not_kept(source, tmp_path, monkeypatch):
    def wrong(self: Source) -> nn.Module:
        network = folded(self)
        with torch.no_grad():
            network.backbone.stages[1][0].conv1.weight.mul_(1.01)
        return network

    folded = Source.folded
    monkeypatch.setattr(Source, "folded", wrong)
    with pytest.raises(WorkError, match=r"ONNX file differs from the network by .* not.* written"):
        export_onnx(source, tmp_path / "a.onnx")
    with pytest.raises(WorkError, match=r"torch.export file differs"):
        export_program(source, tmp_path / "a.pt2", fold=True)
    assert os.listdir(tmp_path) == []


def test_the_measure(source):
    """By hand: max|a - b| / std(a) over images and classes."""
    pixels = list(generated(source))
    assert [len(batch) for batch in pixels] == list(compare.BATCHES)
    assert all(batch.dtype == torch.uint8 for batch in pixels)
    images = [normalised(batch) for batch in pixels]
    a = np.concatenate([right(source.network, batch) for batch in images])

    def other(batch: torch.Tensor) -> torch.Tensor:
        logits = source.network(batch)
        logits[0, 3] += 0.25
        return logits

    found = agreement(source, other, pixels, takes="normalised")
    assert found.error == pytest.approx(0.25 / a.std(), rel=1e-4)


def test_a_diverged_network(source, tmp_path):
    from copy import deepcopy

    network = deepcopy(source.network)
    nn.init.constant_(network.head.fc.bias, float("nan"))
    with pytest.raises(WorkError, match="is not finite"):
        export_onnx(replace(source, network=network), tmp_path / "a.onnx")
    assert os.listdir(tmp_path) == []


def test_halves_to_calibrate_and_compare():
    names = [f"{number:04}" for number in range(3000)]
    ranges, others = split_images(names, most=500)
    assert len(ranges) == len(others) == 500 and not set(ranges) & set(others)
    assert ranges[-1] > "2900"
    assert split_images(["a", "b", "c"], most=500) == (["a", "c"], ["b"])
    with pytest.raises(InputError, match="at least two"):
        split_images(["a"], most=500)
