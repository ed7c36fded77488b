"""The keys of plain ResNets, with torchvision's and timm's networks as the judges."""

import pytest
import timm
import torch
import torchvision

from res2net.errors import InputError
from res2net.weights.formats import from_ours, strip_wrappers, to_ours
from res2net.zoo import create_model

# variant -> blocks of each stage
RESNETS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnext50_32x4d": (3, 4, 6, 3)}
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def shapes(tensors):
    return {key: value.shape for key, value in tensors.items()}


def ours_on_meta(name):
    with torch.device("meta"):
        return create_model(name).state_dict()


def resnet_keys(depths):
    keys = {"conv1.weight", "fc.weight", "fc.bias", *(f"bn1.{leaf}" for leaf in NORM)}
    for stage, block in ((s, b) for s, depth in enumerate(depths) for b in range(depth)):
        layer = f"layer{stage + 1}.{block}"
        keys |= {f"{layer}.conv{k}.weight" for k in (1, 2, 3)}
        keys |= {f"{layer}.bn{k}.{leaf}" for k in (1, 2, 3) for leaf in NORM}
        if block == 0:
            keys |= {f"{layer}.downsample.0.weight"}
            keys |= {f"{layer}.downsample.1.{leaf}" for leaf in NORM}
    return keys


@pytest.mark.parametrize("library", ["torchvision", "timm"])
@pytest.mark.parametrize("name", RESNETS)
def test_key_sets_of_plain_resnets(name, library):
    ours = ours_on_meta(name)
    with torch.device("meta"):
        if library == "timm":
            theirs = timm.create_model(name, pretrained=False).state_dict()
        else:
            theirs = torchvision.models.get_model(name).state_dict()
    assert theirs.keys() == resnet_keys(RESNETS[name])
    mapped, whose = to_ours(theirs)
    assert whose == "torchvision"
    assert shapes(mapped) == shapes(ours)
    assert from_ours(ours, library).keys() == theirs.keys()
    for prefix in ("backbone.", "net.", "model.module."):
        wrapped = {prefix + key: value for key, value in theirs.items()}
        assert shapes(to_ours(strip_wrappers(wrapped))[0]) == shapes(ours)


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_resnet50_computes_what_torchvision_s_and_timm_s_do(library):
    torch.manual_seed(0)
    if library == "timm":
        judge = timm.create_model("resnet50", pretrained=False)
    else:
        judge = torchvision.models.resnet50()
    images = torch.randn(2, 3, 97, 97)
    for module in judge.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
            module.weight.data.uniform_(0.5, 1.5)
    with torch.inference_mode():
        judge.train()(images)
        model = create_model("resnet50")
        model.load_state_dict(to_ours(judge.state_dict())[0])
        expected, logits = judge.eval()(images), model.eval()(images)
    assert expected.isfinite().all() and expected.std() > 0.01
    assert torch.equal(logits, expected)


def test_only_plain_resnets_have_torchvision_s_names():
    for name in ("res2net50_48w_2s", "res2net50_26w_4s", "res2net50d", "se_resnext29_8c64w"):
        with pytest.raises(InputError, match="'torchvision' has no form for this network"):
            from_ours(ours_on_meta(name), "torchvision")
    for name in RESNETS:
        assert from_ours(ours_on_meta(name), "official").keys() >= {"layer1.0.convs.0.weight"}
