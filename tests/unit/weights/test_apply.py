"""Putting weights into a network: all of them, or none and an error that names the keys."""

import re

import pytest
import torch

from res2net.errors import InputError
from res2net.weights.read import Weights, apply_weights, fit_weights
from res2net.zoo import create_model

NAME = "res2net20_cifar"


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return create_model(NAME).state_dict()


def given(tensors, *, model=NAME, num_classes=10) -> Weights:
    return Weights(tensors, model, num_classes, None, None, None, "a.ckpt")


def test_apply_loads_every_tensor(tensors):
    model = create_model(NAME)
    assert apply_weights(model, given(tensors)) is None
    assert all(torch.equal(value, tensors[key]) for key, value in model.state_dict().items())


def test_other_number_of_classes_leaves_the_head_fresh(tensors):
    model = create_model(NAME, num_classes=3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    announcement = apply_weights(model, given(tensors))
    assert announcement == (
        "weights 'a.ckpt' are for 10 classes, the network has 3: the head starts fresh"
    )
    for key, value in model.state_dict().items():
        assert torch.equal(value, (before if key.startswith("head.") else tensors)[key])


def test_old_files_lack_the_counters(tensors):
    old = {key: value for key, value in tensors.items() if "num_batches_tracked" not in key}
    assert len(old) < len(tensors)
    model = create_model(NAME)
    assert apply_weights(model, given(old)) is None
    assert torch.equal(model.head.fc.weight, tensors["head.fc.weight"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"head.fc.bias": None}, "head.fc.bias is missing"),
        ({"backbone.extra": torch.ones(1)}, "backbone.extra is unexpected"),
        (
            {"backbone.stem.conv1.weight": torch.ones(8, 3, 7, 7)},
            "backbone.stem.conv1.weight is (8, 3, 7, 7), not (8, 3, 3, 3)",
        ),
        ({"head.fc.weight": torch.ones(10, 64)}, "head.fc.weight is (10, 64), not (10, 128)"),
    ],
)
def test_misfit_loads_nothing(tensors, change, reason):
    changed = {key: value for key, value in (tensors | change).items() if value is not None}
    model = create_model(NAME)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(InputError) as caught:
        apply_weights(model, given(changed))
    assert str(caught.value) == f"weights 'a.ckpt' do not fit {NAME}: {reason}"
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_head_of_other_width_is_a_misfit_whatever_the_number_of_classes(tensors):
    tensors["head.fc.weight"] = torch.ones(10, 64)
    with pytest.raises(InputError, match=r"head\.fc\.weight is \(10, 64\), not \(3, 128\)"):
        apply_weights(create_model(NAME, num_classes=3), given(tensors))


def paddle_twins(format, model=None):
    with torch.device("meta"):
        tensors = create_model("res2net50_26w_4s").state_dict()
    return Weights(tensors, model, 1000, None, None, None, "a.pth", format)


@pytest.mark.parametrize(
    ("format", "model", "whose", "other"),
    [
        ("paddle", None, "res2net50_26w_4s_paddle", "res2net50_26w_4s"),
        ("official", None, "res2net50_26w_4s", "res2net50_26w_4s_paddle"),
        ("res2net", "res2net50_26w_4s", "res2net50_26w_4s", "res2net50_26w_4s_paddle"),
    ],
)
def test_weights_that_would_compute_something_else(format, model, whose, other):
    weights = paddle_twins(format, model)
    with torch.device("meta"):
        assert fit_weights(create_model(whose), weights)[1] is None
        with pytest.raises(InputError) as caught:
            fit_weights(create_model(other), weights)
    assert str(caught.value) == (
        f"weights 'a.pth' do not fit {other}: they are of {whose}, whose blocks have the same "
        "shapes, but pool and add in another way"
    )


def test_weights_that_do_not_say_how_their_blocks_pool_fit_both():
    for name in ("res2net50_26w_4s", "res2net50_26w_4s_paddle"):
        with torch.device("meta"):
            assert fit_weights(create_model(name), paddle_twins("res2net"))[1] is None


def weights_on_meta(name, *, format="res2net", model=None, drop=()):
    with torch.device("meta"):
        tensors = create_model(name).state_dict()
    kept = {key: value for key, value in tensors.items() if key not in drop}
    return Weights(kept, model, 1000, None, None, None, "a.pth", format)


def misfit(name, weights) -> str:
    with torch.device("meta"), pytest.raises(InputError) as caught:
        apply_weights(create_model(name), weights)
    return str(caught.value)


@pytest.mark.parametrize(
    ("format", "model", "whose", "which"),
    [
        ("official", None, "res2net50_26w_4s", "that"),
        ("res2net", "res2net50_26w_4s", "res2net50_26w_4s", "that"),
        ("res2net", None, "res2net50_26w_4s or res2net50_26w_4s_paddle", "one of them"),
    ],
)
def test_weights_of_another_variant_are_said_to_be_its(format, model, whose, which):
    weights = weights_on_meta("res2net50_26w_4s", format=format, model=model)
    assert misfit("res2net101_26w_4s", weights) == (
        f"weights 'a.pth' do not fit res2net101_26w_4s: these are weights of {whose}; name {which} "
        "as the model (in a configuration model.name=res2net50_26w_4s), or take other weights"
    )


def test_weights_of_no_variant_name_some_keys():
    weights = weights_on_meta("res2net101_26w_4s", model="res2net101_26w_4s")
    weights.state_dict["backbone.extra"] = torch.ones(1)
    message = misfit("res2net50_26w_4s", weights)
    assert "do not fit res2net50_26w_4s (they are of res2net101_26w_4s): " in message
    assert message.count("is unexpected") == 8
    assert message.endswith(f"(and {1022 - 512 + 1 - 8} more)")


@pytest.mark.parametrize(
    ("name", "format", "key", "theirs"),
    [
        ("res2net50_26w_4s", "official", "stages.0.0.shortcut.bn.bias", "layer1.0.downsample.1."),
        ("res2net50d", "official", "stages.0.0.shortcut.bn.bias", "layer1.0.downsample.2.bias"),
        ("res2net50d", "mmpretrain", "stem.bn3.bias", "backbone.stem.2.bn.bias"),
        ("res2net50_vd_26w_4s", "paddle", "stem.bn3.running_var", "conv1_3._batch_norm._variance"),
        ("res2net101_vd_26w_4s", "paddle", "stages.2.1.bn1.bias", "bb_2_1.conv0._batch_norm.bias"),
        ("resnet50", "torchvision", "stages.3.2.bns.0.bias", "layer4.2.bn2.bias"),
        ("res2net_dla60", "timm", "level5.root.bn.bias", "level5.root.bn.bias"),
    ],
)
def test_keys_are_named_as_the_file_names_them(name, format, key, theirs):
    weights = weights_on_meta(name, format=format, drop=(f"backbone.{key}",))
    assert f": {theirs}" in misfit(name, weights)
    weights.state_dict[f"backbone.{key}"] = torch.ones(3)
    assert re.search(rf": {re.escape(theirs)}\S* is \(3,\), not \(\d+,\)$", misfit(name, weights))


def test_shapes_are_told_as_the_file_has_them():
    for name, format, expected in (
        ("res2net50_14w_8s_paddle", "paddle", "out.weight is (99, 1000), not (2048, 1000)"),
        ("res2net_dla60", "official", "fc.weight is (1000, 99, 1, 1), not (1000, 1024, 1, 1)"),
    ):
        weights = weights_on_meta(name, format=format)
        weights.state_dict["head.fc.weight"] = torch.ones(1000, 99)
        assert misfit(name, weights).endswith(f": {expected}")


def test_a_key_that_has_no_place_there_keeps_our_name():
    weights = weights_on_meta("resnet50", format="torchvision")
    weights.state_dict["nowhere.bias"] = torch.ones(3)
    assert misfit("resnet50", weights).endswith(": nowhere.bias is unexpected")
