"""Names exchanged there and back to the bit, formats told apart, wrappers; timm as the judge."""

import pytest
import timm
import torch

from res2net.errors import InputError
from res2net.models.head import Res2NetClassifier
from res2net.models.res2net import Res2Net
from res2net.weights.formats import (
    detect_format,
    from_ours,
    possible_targets,
    strip_wrappers,
    to_ours,
)
from res2net.zoo import create_model

OURS = ("backbone.stem.conv1.weight", "backbone.stages.0.0.conv1.weight", "head.fc.bias")
THEIRS = ("conv1.weight", "layer1.0.convs.0.weight", "fc.weight")


def ours_on_meta(name):
    with torch.device("meta"):
        return create_model(name).state_dict()


def random_tensors(model):
    """Every tensor with numbers of its own, statistics and counters too."""
    torch.manual_seed(2)
    return {
        key: torch.randn(value.shape) if value.is_floating_point() else torch.randint(9, ())
        for key, value in model.state_dict().items()
    }


def small(stem, depths=(1, 2, 1, 1)):
    backbone = Res2Net(stage_depths=depths, base_channels=16, stem=stem, avg_down=stem == "deep")
    return Res2NetClassifier(backbone, 5)


@pytest.mark.parametrize("stem", ["v1", "deep"])
@pytest.mark.parametrize("depths", [(1, 2, 1, 1), (1, 1, 8, 1)], ids=["short", "long"])
def test_there_and_back_changes_no_bit(stem, depths):
    ours = random_tensors(small(stem, depths))
    targets = possible_targets(ours)
    assert {"official", "timm", "mmpretrain", "paddle"} <= set(targets)
    assert ("mmdet" in targets) == (stem == "deep")
    for target in targets:
        theirs = from_ours(ours, target)
        back, whose = to_ours(theirs)
        assert whose == ("official" if target == "timm" else target)
        kept = {k: v for k, v in ours.items() if target != "paddle" or "num_batches" not in k}
        assert back.keys() == kept.keys()
        assert all(torch.equal(back[key], kept[key]) for key in kept)
        again = from_ours(back, target)
        assert list(again) == list(theirs)
        assert all(torch.equal(again[key], theirs[key]) for key in theirs)


def test_dla_there_and_back_changes_no_bit():
    ours = random_tensors(create_model("res2next_dla60"))
    for target in ("official", "timm"):
        theirs = from_ours(ours, target)
        assert theirs["fc.weight"].shape == (1000, 1024, 1, 1)
        back, whose = to_ours(theirs)
        assert whose == target
        assert back.keys() == ours.keys()
        assert all(torch.equal(back[key], ours[key]) for key in ours)
    assert possible_targets(ours) == ["res2net", "official", "timm"]
    with pytest.raises(InputError, match=r"'mmpretrain' has no form .*choices: res2net, official"):
        from_ours(ours, "mmpretrain")


def test_paddle_s_classifier_lies_on_its_side():
    ours = random_tensors(small("deep"))
    theirs = from_ours(ours, "paddle")
    assert theirs["out.weight"].shape == (512, 5)
    assert torch.equal(theirs["out.weight"], ours["head.fc.weight"].T)
    mean = "bb_1_1.res3b_branch2b_2._batch_norm._mean"
    assert torch.equal(theirs[mean], ours["backbone.stages.1.1.bns.1.running_mean"])


def test_backbones_without_a_classifier():
    ours = {k: v for k, v in random_tensors(small("deep")).items() if not k.startswith("head.")}
    for target in ("official", "mmpretrain", "mmdet"):
        theirs = from_ours(ours, target)
        for prefix in ("", "backbone."):
            if target == "mmpretrain" and prefix:
                continue  # its own keys begin so
            back, _ = to_ours({prefix + key: value for key, value in theirs.items()})
            assert back.keys() == ours.keys()


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


def test_formats_are_told_apart():
    for name in ("res2net50_26w_4s", "res2net50d", "res2net_dla60", "resnet50", "res2net20_cifar"):
        ours = ours_on_meta(name)
        for target in possible_targets(ours):
            found = detect_format(from_ours(ours, target))
            if target != "timm" or "dla" in name:
                assert found == target
            else:
                assert found == ("torchvision" if name == "resnet50" else "official")
    with torch.device("meta"):
        for name in ("resnet18", "dla60", "densenet121"):
            assert detect_format(timm.create_model(name, pretrained=False).state_dict()) is None
    assert detect_format([]) is None


def test_every_key_without_a_place_is_named():
    tensors = from_ours(random_tensors(small("v1")), "official")
    extra = {f"layer5.{index}.conv1.weight": torch.ones(1) for index in range(2)}
    with pytest.raises(InputError) as caught:
        to_ours(tensors | extra)
    assert str(caught.value) == (
        "keys that have no place in a Res2Net: layer5.0.conv1.weight, layer5.1.conv1.weight"
    )
    many = {f"decoder.{index}.weight": torch.ones(1) for index in range(20)}
    with pytest.raises(InputError, match=r"decoder\.0\.weight, .*decoder\.7\.weight \(and 12 more"):
        to_ours(tensors | many)
    with pytest.raises(InputError, match=r"Res2Net: conv1\.weight$"):
        from_ours(random_tensors(small("v1")) | {"conv1.weight": torch.ones(1)}, "official")


def test_two_keys_for_one_place_are_refused():
    tensors = from_ours(random_tensors(small("deep")), "paddle")
    with pytest.raises(InputError, match=r"no place in a Res2Net: bb_0_0\.conv1\.weight"):
        to_ours(tensors | {"bb_0_0.conv1.weight": torch.ones(1)})


def test_tensors_that_cannot_be_turned():
    tensors = from_ours(random_tensors(small("deep")), "paddle")
    with pytest.raises(InputError, match=r"out\.weight is \(3,\), not \(C, N\)"):
        to_ours(tensors | {"out.weight": torch.ones(3)})


@pytest.mark.parametrize(
    "wrapped",
    [
        "module.{}",
        "_orig_mod.{}",
        "model.{}",
        "net.{}",
        "model._orig_mod.{}",
        "module.model._orig_mod.{}",
    ],
)
@pytest.mark.parametrize("keys", [OURS, THEIRS], ids=["ours", "theirs"])
def test_wrappers_come_off(wrapped, keys):
    tensors = {wrapped.format(key): index for index, key in enumerate(keys)}
    assert strip_wrappers(tensors) == {key: index for index, key in enumerate(keys)}
    nobodys = {wrapped.format(key): 1 for key in ("encoder.weight", "encoder.bias")}
    assert strip_wrappers(nobodys) == nobodys


def test_a_backbone_s_wrapper_may_stand_among_others():
    for wrapped in ("net.module.backbone.{}", "backbone.model.{}"):
        theirs = strip_wrappers({wrapped.format(key): 1 for key in THEIRS})
        assert detect_format(theirs) == "official"


def test_compiled_backbone_inside_a_classifier_is_unwrapped():
    tensors = {key: index for index, key in enumerate(OURS)}
    compiled = {f"model.{k.replace('ne.s', 'ne._orig_mod.s')}": v for k, v in tensors.items()}
    assert "model.backbone._orig_mod.stem.conv1.weight" in compiled
    assert strip_wrappers(compiled) == tensors


def test_prefix_that_only_some_keys_have_stays():
    tensors = {f"model.{key}": 1 for key in OURS} | {"b": 2}
    assert strip_wrappers(tensors) == tensors
    assert strip_wrappers({}) == {}
