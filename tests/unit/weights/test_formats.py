"""Key maps, with timm's networks as the judge."""

import pytest
import timm
import torch

from res2net.errors import InputError
from res2net.models.res2net import Res2Net
from res2net.weights.formats import detect_format, from_official, strip_wrappers, to_official
from res2net.zoo import create_model

# timm's name -> number of tensors
TIMM = {
    "res2net50_26w_4s": 512,
    "res2net50_48w_2s": 320,
    "res2net50_14w_8s": 896,
    "res2net50_26w_6s": 704,
    "res2net50_26w_8s": 896,
    "res2net101_26w_4s": 1022,
    "res2next50": 512,
    "res2net50d": 524,
    "res2net101d": 1034,
}


@pytest.mark.parametrize("name", TIMM)
def test_map_covers_every_key_there_and_back(name):
    with torch.device("meta"):
        theirs = timm.create_model(name, pretrained=False).state_dict()
        ours = create_model(name).state_dict()
    assert len(theirs) == TIMM[name]
    mapped = from_official(theirs)
    assert {key: value.shape for key, value in mapped.items()} == {
        key: value.shape for key, value in ours.items()
    }
    back = to_official(mapped)
    assert list(back) == list(theirs)
    assert all(back[key] is theirs[key] for key in theirs)  # the very tensors: no bit changed


def timm_model(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False)
    # timm starts the last norm of each block from 0, which would hide every difference in it.
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.2, 0.8)
            module.bias.data.uniform_(-0.2, 0.2)
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize("name", ["res2net50_26w_4s", "res2next50", "res2net50d"])
def test_logits_are_timm_s_to_the_bit(name):
    judge = timm_model(name)
    model = create_model(name).eval()
    model.load_state_dict(from_official(judge.state_dict()))
    images = torch.randn(2, 3, 97, 97)
    with torch.inference_mode():
        expected = judge(images)
        logits = model(images)
    assert expected.isfinite().all()
    assert expected.std() > 0
    assert torch.equal(logits, expected)


def test_paddle_s_flags_are_another_network_on_the_same_weights():
    torch.manual_seed(0)
    images = torch.randn(1, 3, 33, 33)
    plain = Res2Net(stage_depths=(1, 1), base_channels=16).eval()
    with torch.inference_mode():
        expected = plain(images)[-1]
        for flags in ({"stride_1_first_as_normal": True}, {"pool_count_include_pad": False}):
            other = Res2Net(stage_depths=(1, 1), base_channels=16, **flags).eval()
            other.load_state_dict(plain.state_dict())
            assert not torch.allclose(other(images)[-1], expected, rtol=1e-2)


def test_cifar_stem_has_an_official_form_too():
    ours = create_model("res2net20_cifar").state_dict()
    theirs = to_official(ours)
    assert detect_format(theirs) == "official"
    assert from_official(theirs).keys() == ours.keys()


def test_formats_are_told_apart():
    with torch.device("meta"):
        for name in ("res2net50_26w_4s", "res2net50d"):
            ours = create_model(name).state_dict()
            assert detect_format(ours) == "res2net"
            assert detect_format(to_official(ours)) == "official"
        assert detect_format(timm.create_model("resnet18").state_dict()) is None
    assert detect_format([]) is None


def test_key_without_a_place_is_named():
    with pytest.raises(InputError, match=r"key 'layer5\.0\.conv1\.weight' has no place"):
        from_official({"conv1.weight": 0, "layer5.0.conv1.weight": 0})
    with pytest.raises(InputError, match=r"key 'conv1\.weight' has no place"):
        to_official({"conv1.weight": 0})


@pytest.mark.parametrize(
    "wrapped",
    ["module.{}", "_orig_mod.{}", "model.{}", "model._orig_mod.{}", "module.model._orig_mod.{}"],
)
def test_wrappers_come_off(wrapped):
    keys = ["backbone.stem.conv1.weight", "head.fc.bias"]
    tensors = {wrapped.format(key): index for index, key in enumerate(keys)}
    assert strip_wrappers(tensors) == {key: index for index, key in enumerate(keys)}


def test_compiled_backbone_inside_a_classifier_is_unwrapped():
    assert strip_wrappers({"model.backbone._orig_mod.stem.conv1.weight": 1, "model.head.a": 2}) == {
        "backbone.stem.conv1.weight": 1,
        "head.a": 2,
    }


def test_prefix_that_only_some_keys_have_stays():
    tensors = {"model.a": 1, "b": 2}
    assert strip_wrappers(tensors) == tensors
    assert strip_wrappers({}) == {}
