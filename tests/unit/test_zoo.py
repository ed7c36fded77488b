"""The one door: names, classes, channels and weights."""

import dataclasses
import logging
import subprocess
import sys

import pytest
import torch

import res2net
from res2net.errors import InputError
from res2net.models.variants import VARIANTS
from res2net.weights.catalog import find_published
from res2net.weights.formats import from_ours
from res2net.weights.read import read_weights
from res2net.zoo import create_model, list_models, nearest_variant, open_model

NAME = "res2net20_cifar"


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(1)
    path = tmp_path / "a.pth"
    torch.save(create_model(NAME, num_classes=7).state_dict(), path)
    return path


def test_defaults_are_the_variant_s():
    model = create_model(NAME)
    assert (model.variant, model.num_classes, model.in_channels) == (NAME, 10, 3)
    with torch.device("meta"):
        model = create_model("res2net50d")
    assert (model.variant, model.num_classes) == ("res2net50_v1b_26w_4s", 1000)


def test_classes_and_channels():
    model = create_model(NAME, num_classes=4, in_channels=1)
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 4)


def test_weights_bring_their_classes(file):
    expected = read_weights(file).state_dict
    for weights in (file, str(file), read_weights(file)):
        model = create_model(NAME, weights=weights)
        assert model.num_classes == 7
        assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


def test_other_number_of_classes_is_announced(file, caplog):
    with caplog.at_level(logging.WARNING):
        create_model(NAME, weights=file)
        assert not caplog.records
        model = create_model(NAME, num_classes=3, weights=file)
    assert model.num_classes == 3
    (record,) = caplog.records
    assert "for 7 classes, the network has 3: the head starts fresh" in record.getMessage()


@pytest.fixture
def backbone(tmp_path):
    torch.manual_seed(1)
    tensors = create_model(NAME, num_classes=7).state_dict()
    path = tmp_path / "backbone.pth"
    torch.save({key: value for key, value in tensors.items() if "head" not in key}, path)
    return path


@pytest.mark.parametrize("num_classes", [None, 3])
def test_a_backbone_s_weights_leave_the_head_fresh(backbone, num_classes, caplog):
    with caplog.at_level(logging.WARNING):
        model = create_model(NAME, num_classes=num_classes, weights=backbone)
    assert model.num_classes == (num_classes or VARIANTS[NAME].num_classes)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"weights {str(backbone)!r} are for no classes, the network has {model.num_classes}: the "
        "head starts fresh"
    )
    tensors = torch.load(backbone, weights_only=True)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in tensors.items())


def test_a_backbone_alone_is_not_opened(backbone):
    for arguments in ({"what": backbone}, {"what": NAME, "weights": backbone}):
        with pytest.raises(InputError, match="holds a backbone without a classifier") as caught:
            open_model(**arguments)
        assert "\n" not in str(caught.value)


def test_files_that_do_not_say_their_variant(tmp_path, file):
    model, _ = open_model(file)
    assert model.variant == NAME  # only one has these shapes
    path = tmp_path / "two.pth"
    torch.save(create_model("res2net50_26w_4s", num_classes=2).state_dict(), path)
    with pytest.raises(InputError) as caught:
        open_model(path)
    assert str(caught.value) == (
        f"model {str(path)!r}: the file does not say which variant its weights are for; name it "
        f"and give the file as its weights: VARIANT --weights {path} "
        "(choices: res2net50_26w_4s, res2net50_26w_4s_paddle)"
    )
    for name in ("res2net50_26w_4s", "res2net50_26w_4s_paddle"):
        assert open_model(name, weights=path)[0].variant == name


def test_an_empty_name():
    for arguments in ({"what": ""}, {"what": NAME, "weights": ""}):
        with pytest.raises(InputError, match="'': an empty name; give"):
            open_model(**arguments)


def test_the_best_checkpoint_of_what_is_no_run(file, tmp_path, monkeypatch):
    monkeypatch.setenv("RES2NET_CACHE", str(tmp_path / "cache"))
    for arguments in (
        {"what": file},
        {"what": NAME, "weights": file},
        {"what": "res2net50", "weights": "in1k"},
    ):
        with pytest.raises(InputError, match="checkpoint 'best': applies to run directories, '"):
            open_model(**arguments, checkpoint="best")
    assert not (tmp_path / "cache").exists()  # nothing was fetched for it


@pytest.mark.parametrize(
    ("name", "target", "key", "theirs"),
    [
        ("resnext50_32x4d", "torchvision", "stages.3.2.conv3.weight", "layer4.2.conv3.weight"),
        ("res2net50_14w_8s", "official", "stages.0.0.bns.3.bias", "layer1.0.bns.3.bias"),
        ("res2net50_14w_8s", "paddle", "stem.bn1.bias", "conv1._batch_norm.bias"),
    ],
)
def test_a_file_that_lacks_one_tensor_names_it(tmp_path, name, target, key, theirs):
    tensors = create_model(name, num_classes=3).state_dict()
    del tensors[f"backbone.{key}"]
    path = tmp_path / "a.pth"
    torch.save(from_ours(tensors, target), path)
    nearest = f"{name}_paddle" if target == "paddle" else name
    with pytest.raises(InputError) as caught:
        open_model(path)
    assert str(caught.value) == (
        f"weights {str(path)!r} are of no variant; compared with the nearest, {nearest}: {theirs} "
        "is missing"
    )


@pytest.mark.parametrize("name", ["res2next_dla60", "se_resnext29_8c64w", "res2net200_vd_26w_4s"])
def test_the_nearest_variant_has_most_tensors_in_common(file, name):
    with torch.device("meta"):
        tensors = create_model(name, num_classes=2, in_channels=1).state_dict()
    *_, last = (key for key in tensors if key.endswith("conv1.weight"))
    del tensors[last]
    weights = dataclasses.replace(read_weights(file), state_dict=tensors)
    assert nearest_variant(weights) == name


def test_a_damaged_file_in_the_cache_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("RES2NET_CACHE", str(tmp_path))
    path = tmp_path / find_published("res2net50").file
    path.write_bytes(b"cut short")
    with pytest.raises(InputError, match="remove it to have it fetched from https://") as caught:
        create_model("res2net50", weights="in1k")
    assert str(caught.value).startswith(f"{path}: its sha256 is ")
    assert "\n" not in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_channels_that_the_stem_does_not_have(file):
    with pytest.raises(InputError, match=r"in_channels=1: the weights '.*' are for images of 3"):
        create_model(NAME, in_channels=1, weights=file)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"num_classes": 0}, "num_classes=0: at least 1; for .*FeatureExtractor, .*feature_maps"),
        ({"weights": ""}, "weights '': an empty name; give a file"),
        ({"in_channels": 0}, "in_channels=0: at"),
        ({"drop_path": 1.0}, "drop_path=1.0: at least 0 and below 1"),
        ({"drop_path": -0.1}, "drop_path=-0.1: at least 0 and below 1"),
    ],
)
def test_numbers_out_of_range(arguments, reason):
    with pytest.raises(InputError, match=reason):
        create_model(NAME, **arguments)


@pytest.mark.parametrize("name", ["res2net20_cifar", "res2net_dla60"])
def test_zero_init_makes_each_block_its_shortcut(name):
    model = create_model(name, zero_init_last=True)
    zero = [n for n, p in model.named_parameters() if n.endswith("bn3.weight") and not p.any()]
    blocks = [n for n, _ in model.named_modules() if n.endswith("bn3")]
    assert len(zero) == len(blocks) >= 6
    if name == "res2net20_cifar":
        block = model.backbone.stages[0][0].eval()
        x = torch.randn(2, 8, 4, 4)
        torch.testing.assert_close(block(x), block.shortcut(x).relu())


def test_drop_path_reaches_the_last_block():
    assert create_model(NAME, drop_path=0.2).backbone.stages[-1][-1].drop_path == 0.2
    with torch.device("meta"):
        dla = create_model("res2net_dla60", drop_path=0.2)
    assert dla.backbone.level5.tree2.drop_path == 0.2


def test_dla_is_checked_for_channels_and_fit_too(tmp_path, file):
    weights = read_weights(file)
    with torch.device("meta"), pytest.raises(InputError, match="do not fit res2net_dla60"):
        create_model("res2net_dla60", weights=weights)
    dla = create_model("res2net_dla60", num_classes=2)
    weights = dataclasses.replace(weights, state_dict=dla.state_dict(), num_classes=2)
    with pytest.raises(InputError, match=r"in_channels=1: the weights '.*' are for images of 3"):
        create_model("res2net_dla60", in_channels=1, weights=weights)
    model = create_model("res2net_dla60", weights=weights)
    assert all(torch.equal(value, dla.state_dict()[k]) for k, value in model.state_dict().items())


def test_unknown_name():
    with pytest.raises(InputError, match="'res2net20': no such variant; the nearest: res2net"):
        create_model("res2net20")


def test_list_models():
    assert list_models() == list(VARIANTS)
    assert list_models("res2net101*") == [
        "res2net101_26w_4s",
        "res2net101_v1b_26w_4s",
        "res2net101_vd_26w_4s",
    ]
    assert list_models("nothing*") == []


def test_package_offers_the_door():
    assert res2net.create_model is create_model
    assert res2net.list_models is list_models
    assert {"create_model", "list_models", "Predictor"} <= set(dir(res2net))
    with pytest.raises(AttributeError, match="'res2net' has no attribute 'nothing'"):
        _ = res2net.nothing


def test_importing_the_package_does_not_import_torch():
    check = (
        "import sys, res2net, res2net.models.variants; assert 'torch' not in sys.modules;"
        "res2net.create_model; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
