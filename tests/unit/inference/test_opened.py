"""Which model is opened, on which device, and what its file says."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from res2net import imagenet
from res2net.errors import InputError, WorkError
from res2net.inference.opened import OpenedModel
from res2net.inference.predictor import Predictor
from res2net.preprocessing import Preprocessing
from res2net.weights.preprocessing import AssumedPreprocessing
from res2net.zoo import create_model
from samples import NAMES, PREPROCESSING, VARIANT, photo, save_network


def test_evaluation_mode_and_what_the_file_says(run):
    predictor = Predictor(run, device="cpu")
    assert not predictor.model.training
    assert predictor.preprocessing == PREPROCESSING
    assert predictor.class_names == tuple(NAMES)


def test_checkpoint_of_a_run(network, tmp_path):
    save_network(network, tmp_path / "mine" / "last.ckpt")
    best = [f"best {number}" for number in range(10)]
    save_network(network, tmp_path / "mine" / "best.ckpt", class_names=best)
    predictor = Predictor(str(tmp_path / "mine"), checkpoint="best", device="cpu")
    assert predictor.class_names[0] == "best 0"
    assert Predictor(tmp_path / "mine" / "last.ckpt", device="cpu").class_names[0] == "kind 0"


def test_a_run_called_after_its_variant_is_found(network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = save_network(network, tmp_path / VARIANT / "last.ckpt")
    assert Predictor(VARIANT, device="cpu").class_names == tuple(NAMES)
    assert Predictor(VARIANT, weights=file, device="cpu").class_names == tuple(NAMES)


@pytest.mark.parametrize(
    ("wanted", "taken", "told"),
    [
        (None, Preprocessing(), "bilinear, as of published Res2Nets (other"),
        (
            {"image_size": 32},
            Preprocessing(image_size=32),
            "short side 36, crop 32, bilinear, what was not given (crop_fraction, interpolation, "
            "mean, std) as of published Res2Nets (other",
        ),
        (PREPROCESSING, PREPROCESSING, ""),
        (PREPROCESSING.to_dict(), PREPROCESSING, ""),
    ],
)
def test_preprocessing_of_which_the_file_says_nothing(
    network, tmp_path, wanted, taken, told, recwarn
):
    file = save_network(network, tmp_path / "bare.pth", described=False)
    for weights in (file, network.state_dict()):
        predictor = Predictor(VARIANT, weights=weights, preprocessing=wanted, device="cpu")
        assert predictor.preprocessing == taken
        if told:
            warning = recwarn.pop(AssumedPreprocessing)
            assert told in str(warning.message)
            assert f"short side {taken.resize_size}, crop {taken.image_size}, b" in str(warning)
            assert warning.filename == __file__
    assert not [each for each in recwarn if each.category is AssumedPreprocessing]


@pytest.mark.filterwarnings("error::res2net.weights.preprocessing.AssumedPreprocessing")
def test_preprocessing_that_is_known(run, network, tmp_path, monkeypatch):
    predictor = Predictor(run, preprocessing={"crop_fraction": 0.5}, device="cpu")
    assert predictor.preprocessing == replace(PREPROCESSING, crop_fraction=0.5)
    for wrong in ({"size": 3}, 224):
        with pytest.raises(InputError, match=r"preprocessing=.* expected a Preprocessing or some"):
            Predictor(run, preprocessing=wrong)
    with pytest.raises(
        InputError, match=r"^preprocessing: image_size=-1: expected an integer from 1 to"
    ):
        Predictor(run, preprocessing={"image_size": -1})
    monkeypatch.setattr("res2net.weights.preprocessing.identify", lambda source: "published")
    file = save_network(network, tmp_path / "bare.pth", described=False)
    assert Predictor(VARIANT, weights=file, device="cpu").preprocessing == Preprocessing()


def test_models_that_cannot_be(run, tmp_path):
    with pytest.raises(InputError, match=r"'res2net50'.* without weights answers at random"):
        Predictor("res2net50")
    with pytest.raises(InputError, match=r"no such variant; the nearest: .*no run directory or"):
        Predictor("res2net20")
    with pytest.raises(InputError, match="weights of its own"):
        Predictor(run, weights=run)
    with pytest.raises(InputError, match="device 'tpu': none of auto, cpu, cuda"):
        Predictor(run, device="tpu")
    with pytest.raises(InputError, match="batch_size=0: at least 1"):
        Predictor(run, batch_size=0)
    for value in (3, None, b"run", [run]):
        with pytest.raises(InputError, match=r"model .*: is of type .*; expected a path, a name"):
            Predictor(value)
    with pytest.raises(InputError, match=r"weights 3: is of type int; expected a path"):
        Predictor("res2net20_cifar", weights=3)
    with pytest.raises(InputError, match=r"model 'res2net_digit': .*; the nearest: res2net_digits"):
        Predictor("res2net_digit")
    for name, opens in (("m.onnx", "onnxruntime.Infer"), ("m.pt2", "torch.export.load")):
        (tmp_path / name).write_bytes(b"any")
        with pytest.raises(InputError, match=rf"{name}': an exported file, which {opens}"):
            Predictor(tmp_path / name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_cuda_device(run):
    with pytest.raises(InputError, match="device 'cuda': PyTorch finds no CUDA device"):
        Predictor(run, device="cuda")
    assert Predictor(run).device.type == "cpu"


def test_a_diverged_network_is_said_to_be(network, tmp_path):
    file = save_network(network, tmp_path / "nan.ckpt")
    content = torch.load(file)
    content["state_dict"]["model.head.fc.bias"] = torch.full((10,), float("nan"))
    torch.save(content, file)
    with pytest.raises(WorkError, match="the image: the network's output is not finite"):
        Predictor(file, device="cpu")(photo())


def test_too_large_a_batch_for_the_device_is_said_to_be(run, network):
    def function(images):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    opened = OpenedModel(run, device="cpu", batch_size=7)
    with pytest.raises(WorkError, match=r"batch_size=7: too many .* memory of cpu; take fewer"):
        next(opened._outputs([photo()], function))


def test_imagenets_classes_have_english_names(tmp_path):
    network = create_model(VARIANT, num_classes=1000)
    file = save_network(network, tmp_path / "file.ckpt", class_names=tuple(imagenet.class_names()))
    predictor = Predictor(file, device="cpu")
    assert predictor.class_names[278] == "kit fox"
    prediction = predictor(photo())
    assert prediction.label == predictor.class_names[prediction.index]
    assert not prediction.label.startswith("n0")


def test_predicting_needs_neither_lightning_nor_dali():
    check = (
        "import sys, res2net.inference.features, res2net.inference.predictor;"
        "loaded = {'lightning', 'nvidia.dali', 'wandb', 'omegaconf'} & set(sys.modules);"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
