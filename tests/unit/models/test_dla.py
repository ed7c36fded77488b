"""DLA-60 of Res2Net blocks, with timm's as the judge."""

import math

import pytest
import timm
import torch
from torch import nn

from res2net.models.blocks import Bottle2neck
from res2net.models.dla import DLA
from res2net.zoo import create_model

JUDGES = {"res2net_dla60": "dla60_res2net", "res2next_dla60": "dla60_res2next"}


def our_keys(tensors):
    """timm's classifier is a 1x1 convolution."""
    return {
        f"head.{key}" if key.startswith("fc.") else f"backbone.{key}": (
            value.flatten(1) if key == "fc.weight" else value
        )
        for key, value in tensors.items()
    }


@pytest.fixture(scope="module", params=JUDGES)
def pair(request):
    """The judge and ours on the same weights; a train-mode pass sets the norms' statistics."""
    torch.manual_seed(0)
    judge = timm.create_model(JUDGES[request.param], pretrained=False)
    model = create_model(request.param)
    for module in judge.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.5, 0.5)
    model.load_state_dict(our_keys(judge.state_dict()), strict=True)
    for module in (*judge.modules(), *model.modules()):
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    return judge, model


@pytest.mark.parametrize("size", [224, 97])
def test_logits_and_gradients_are_timm_s(pair, size):
    judge, model = pair
    for module in judge.modules():
        if isinstance(module, nn.MaxPool2d):
            module.ceil_mode = size % 2 == 1  # timm's rounds down and fails at odd sizes
    images = torch.randn(2 if size < 100 else 1, 3, size, size)
    judge.train()
    model.train()
    judge.zero_grad()
    model.zero_grad()
    expected, logits = judge(images), model(images)
    close(logits, expected)
    upstream = torch.randn_like(logits)
    expected.backward(upstream)
    logits.backward(upstream)
    gradients = our_keys({key: value.grad for key, value in judge.named_parameters()})
    for key, parameter in model.named_parameters():
        largest = gradients[key].abs().max()
        assert largest > 0, key
        assert (parameter.grad - gradients[key]).abs().max() <= 1e-4 * largest, key

    judge.eval()
    model.eval()
    with torch.inference_mode():
        assert torch.equal(model.forward_features(images), judge.forward_features(images))
        close(model(images), judge(images))


def close(logits, expected):
    """Not to the bit: a linear layer sums in another order than a 1x1 convolution."""
    assert expected.isfinite().all()
    assert expected.std() > 0.1
    assert (logits - expected).abs().max() <= 1e-4 * expected.std()


@pytest.mark.parametrize("name", JUDGES)
def test_keys_are_timm_s(name):
    with torch.device("meta"):
        theirs = our_keys(timm.create_model(JUDGES[name], pretrained=False).state_dict())
        ours = create_model(name).state_dict()
    assert len(ours) == 572
    shapes = {key: value.shape for key, value in ours.items()}
    assert shapes == {key: value.shape for key, value in theirs.items()}


def small(**arguments) -> DLA:
    return DLA(stage_depths=(1, 2, 3, 1), base_channels=16, **arguments)


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (71, 33), (1, 1)])
def test_maps_have_the_declared_channels_and_strides(size):
    backbone = small(in_channels=2).eval()
    with torch.no_grad():
        maps = backbone(torch.randn(1, 2, *size))
    assert backbone.in_channels == 2
    assert backbone.stage_channels == (32, 64, 128, 256)
    assert backbone.stage_strides == (4, 8, 16, 32)
    for features, channels, stride in zip(
        maps, backbone.stage_channels, backbone.stage_strides, strict=True
    ):
        rows, columns = (math.ceil(length / stride) for length in size)
        assert features.shape == (1, channels, rows, columns)


def test_only_what_shrinks_is_a_stage_block_and_no_block_has_its_own_shortcut():
    blocks = [module for module in small().modules() if isinstance(module, Bottle2neck)]
    assert [block.stride for block in blocks] == [2, 1] + [2, 1, 1, 1] + [2] + [1] * 7 + [2, 1]
    assert all(block.kind == ("stage" if block.stride == 2 else "normal") for block in blocks)
    assert all(block.shortcut is None for block in blocks)


def test_every_parameter_has_a_gradient():
    torch.manual_seed(0)
    backbone = small()
    backbone(torch.randn(2, 3, 65, 49))[-1].square().sum().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_convolutions_start_as_he_has_it():
    torch.manual_seed(0)
    for module in small(base_width=4, cardinality=8).modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 1000:
            fan_out = module.weight[0, 0].numel() * module.out_channels
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)


def test_drop_path_grows_in_the_order_in_which_blocks_run():
    backbone = small(drop_path=0.3)
    called: list[float] = []
    for module in backbone.modules():
        if isinstance(module, Bottle2neck):
            module.register_forward_hook(lambda block, *_: called.append(block.drop_path))
    with torch.no_grad():
        backbone.eval()(torch.randn(1, 3, 32, 32))
    assert called == pytest.approx([0.3 * index / 15 for index in range(16)])
