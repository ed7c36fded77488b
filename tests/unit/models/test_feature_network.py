"""Feature maps for dense tasks, held to timm's networks of the same kind."""

import pytest
import timm
import torch

from res2net.errors import InputError
from res2net.weights.formats import from_ours, to_ours
from res2net.zoo import create_model


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("res2net50_14w_8s", "res2net50_14w_8s"), ("res2net50d", "res2net50d"),
     ("res2net_dla60", "dla60_res2net")],
)  # fmt: skip
@pytest.mark.parametrize("out_indices", [None, (1, 3), (0, -1), (1,), 2])
def test_maps_and_their_description_are_timm_s(ours, theirs, out_indices) -> None:
    chosen = {} if out_indices is None else {"out_indices": out_indices}
    torch.manual_seed(0)
    expected = timm.create_model(theirs, features_only=True, **chosen).eval()
    whole = timm.create_model(theirs).eval()
    expected.load_state_dict(
        {key: whole.state_dict()[key] for key in expected.state_dict()}, strict=True
    )
    network = create_model(ours, weights=whole.state_dict(), features_only=True, **chosen).eval()
    for method in ("channels", "reduction"):
        assert getattr(network.feature_info, method)() == getattr(expected.feature_info, method)()
    names = network.feature_info.module_name()
    modules = dict(network.named_modules())
    seen = {}
    for name in names:
        modules[name].register_forward_hook(
            lambda _, __, output, name=name: seen.__setitem__(name, output.clone())
        )
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        maps, wanted = network(images), expected(images)
    assert isinstance(maps, list)
    for found, theirs_found, channels, stride, name in zip(
        maps,
        wanted,
        network.feature_info.channels(),
        network.feature_info.reduction(),
        names,
        strict=True,
    ):
        assert found.shape == (1, channels, 64 // stride, 96 // stride)
        assert (found - theirs_found).abs().max() <= 1e-4 * theirs_found.std()
        assert torch.equal(seen[name], found)


@pytest.mark.parametrize("name", ["res2net20_cifar", "res2net_dla60"])
def test_what_is_not_wanted_is_left_out(name) -> None:
    network = create_model(name, features_only=True, out_indices=(0, 3))
    sum(each.sum() for each in network(torch.randn(2, 3, 64, 64))).backward()
    assert [key for key, value in network.named_parameters() if value.grad is None] == []


def test_of_images_of_32_pixels() -> None:
    network = create_model("res2net20_cifar", features_only=True)
    assert network.feature_info.reduction() == [1, 1, 2, 4]
    shapes = [tuple(each.shape) for each in network(torch.randn(1, 3, 32, 32))]
    channels = network.feature_info.channels()
    assert shapes == [(1, c, 32 // s, 32 // s) for c, s in zip(channels, (1, 1, 2, 4), strict=True)]
    assert network.feature_info.get_dicts(["reduction"])[-1] == {"reduction": 4}
    assert network.feature_info.channels(0) == network.feature_info[0]["num_chs"] == channels[0]
    assert len(network.feature_info) == 4


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"out_indices": (5,)}, r"out_indices=\(5,\): no such maps \(choices: 0 to 4"),
        ({"out_indices": (-6,)}, "no such maps"),
        ({"out_indices": ()}, "no such maps"),
        ({"out_indices": (4, -1)}, "named twice"),
        ({"out_indices": 6}, "so many of the last maps, 1 to 5"),
        ({"num_classes": 3}, "num_classes=3: features_only=True leaves no classifier"),
    ],
)
def test_maps_that_there_are_not(arguments, reason) -> None:
    with torch.device("meta"), pytest.raises(InputError, match=reason):
        create_model("res2net50", features_only=True, **arguments)


def test_indices_want_features_only() -> None:
    with pytest.raises(InputError, match="only with features_only=True"):
        create_model("res2net50", out_indices=(1,))


def test_the_parts_of_a_classifier_are_called_as_in_timm() -> None:
    theirs = timm.create_model("res2net50_14w_8s").eval()
    ours = create_model("res2net50_14w_8s", weights=theirs.state_dict()).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features, wanted = ours.forward_features(images), theirs.forward_features(images)
        for a, b in [
            (features, wanted),
            (ours.forward_head(features), theirs.forward_head(wanted)),
            (ours.forward_head(features, True), theirs.forward_head(wanted, pre_logits=True)),
        ]:
            assert a.shape == b.shape
            assert (a - b).abs().max() <= 1e-4 * b.std()
    assert ours.num_features == theirs.num_features


@pytest.mark.parametrize("origin", ["res2net", "official", "mmpretrain", "paddle"])
def test_a_state_dict_of_any_origin(origin) -> None:
    source = create_model("res2net50_26w_4s", num_classes=5)
    name = "res2net50_26w_4s_paddle" if origin == "paddle" else "res2net50_26w_4s"
    tensors = from_ours(source.state_dict(), origin)
    wrapped = {f"module.{key}": value for key, value in tensors.items()}
    for given in (tensors, wrapped, {"state_dict": tensors}):
        model = create_model(name, weights=given)
        assert model.num_classes == 5
        expected = to_ours(tensors)[0]
        found = model.state_dict()
        assert all(torch.equal(found[key], value) for key, value in expected.items())
    with pytest.raises(InputError, match="weights 'the given state_dict': holds no weights"):
        create_model(name, weights={})


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("res2net50-w14-s8_3rdparty_8xb32_in1k", "res2net50_14w_8s"),
        ("res2net101-w26-s4_8xb32_in1k", "res2net101_26w_4s"),
        ("res2net101d.in1k", "res2net101_v1b_26w_4s"),
    ],
)
def test_names_of_peers(name, variant) -> None:
    with torch.device("meta"):
        assert create_model(name).variant == variant
