"""What timm and torchvision have as well: ResNets, squeeze and excitation, stochastic depth."""

import re

import pytest
import timm
import torch
import torchvision
from timm.layers import SEModule
from timm.models.res2net import Bottle2neck as TimmBlock
from torch import nn

from res2net.models.head import Res2NetClassifier
from res2net.models.res2net import Res2Net
from res2net.models.variants import VARIANTS
from res2net.zoo import create_model

PARTS = (
    (r"^conv1\.", "backbone.stem.conv1."),
    (r"^bn1\.", "backbone.stem.bn1."),
    (r"^layer(\d)\.", lambda match: f"backbone.stages.{int(match[1]) - 1}."),
    (r"^fc\.", "head.fc."),
    (r"\.downsample\.0\.", ".shortcut.conv."),
    (r"\.downsample\.1\.", ".shortcut.bn."),
    (r"\.conv2\.", ".convs.0."),
    (r"\.bn2\.", ".bns.0."),
)


def our_keys(tensors):
    renamed = {}
    for key, value in tensors.items():
        for old, new in PARTS:
            key = re.sub(old, new, key)
        is_convolution_there = re.search(r"\.se\.fc\d\.weight$", key)
        renamed[key] = value.flatten(1) if is_convolution_there else value
    return renamed


def randomise(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.2, 0.8)
            module.bias.data.uniform_(-0.2, 0.2)
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)


def compare(judge, model, images, *, exact):
    model.load_state_dict(our_keys(judge.state_dict()), strict=True)
    torch.manual_seed(1)
    expected = judge(images)
    torch.manual_seed(1)
    logits = model(images)
    assert expected.isfinite().all()
    assert expected.std() > 0
    if exact:
        assert torch.equal(logits, expected)
    assert (logits - expected).abs().max() <= 1e-4 * expected.std()
    return expected, logits


@pytest.mark.parametrize("name", ["resnet50", "resnet101", "resnext50_32x4d"])
def test_baselines_have_torchvision_s_tensors(name):
    with torch.device("meta"):
        judge = getattr(torchvision.models, name)(weights=None)
        model = create_model(name)
    assert VARIANTS[name].parameters == sum(value.numel() for value in judge.parameters())
    assert {key: value.shape for key, value in model.state_dict().items()} == {
        key: value.shape for key, value in our_keys(judge.state_dict()).items()
    }


@pytest.mark.parametrize("name", ["resnet50", "resnext50_32x4d"])
def test_baselines_compute_what_torchvision_s_do(name):
    torch.manual_seed(0)
    judge = getattr(torchvision.models, name)(weights=None).eval()
    randomise(judge)
    with torch.inference_mode():
        compare(judge, create_model(name).eval(), torch.randn(2, 3, 65, 65), exact=True)


@pytest.mark.parametrize("training", [False, True])
def test_squeeze_and_excitation_is_timm_s(training):
    torch.manual_seed(0)
    judge = timm.models.resnet.ResNet(
        TimmBlock,
        layers=(2, 1, 1, 1),
        num_classes=7,
        base_width=26,
        block_args={"scale": 4, "attn_layer": SEModule},
    ).train(training)
    randomise(judge)
    backbone = Res2Net(stage_depths=(2, 1, 1, 1), se_reduction=16)
    model = Res2NetClassifier(backbone, 7).train(training)
    expected, logits = compare(judge, model, torch.randn(3, 3, 65, 65), exact=False)
    upstream = torch.randn_like(logits)
    expected.backward(upstream)
    logits.backward(upstream)
    gradients = our_keys({key: value.grad for key, value in judge.named_parameters()})
    for key, parameter in model.named_parameters():
        largest = gradients[key].abs().max()
        assert largest > 0, key
        assert (parameter.grad - gradients[key]).abs().max() <= 1e-4 * largest, key


def test_stochastic_depth_drops_what_timm_drops():
    torch.manual_seed(0)
    judge = timm.create_model("res2net50_26w_4s", pretrained=False, drop_path_rate=0.5).train()
    randomise(judge)
    model = create_model("res2net50_26w_4s", drop_path=0.5).train()
    with torch.no_grad():
        compare(judge, model, torch.randn(3, 3, 65, 65), exact=True)
