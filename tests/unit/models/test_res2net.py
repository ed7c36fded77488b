"""The backbone: which maps it gives, at which sizes, from which blocks."""

import math

import pytest
import torch
from torch import nn

from res2net.models.head import Res2NetClassifier
from res2net.models.res2net import Res2Net

SMALL = {"stage_depths": (1, 2, 1, 1), "base_channels": 16}


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (71, 33)])
@pytest.mark.parametrize("stem", ["v1", "deep", "cifar"])
@pytest.mark.parametrize("avg_down", [False, True])
def test_maps_have_the_declared_channels_and_strides(stem, avg_down, size):
    backbone = Res2Net(**SMALL, stem=stem, avg_down=avg_down, in_channels=2).eval()
    with torch.no_grad():
        maps = backbone(torch.randn(1, 2, *size))
    first = 1 if stem == "cifar" else 4
    assert backbone.stage_strides == (first, first * 2, first * 4, first * 8)
    assert backbone.stage_channels == (64, 128, 256, 512)
    for features, channels, stride in zip(
        maps, backbone.stage_channels, backbone.stage_strides, strict=True
    ):
        rows, columns = (math.ceil(length / stride) for length in size)
        assert features.shape == (1, channels, rows, columns)


@pytest.mark.parametrize(
    ("stem", "names"),
    [
        ("v1", "conv1 bn1 relu1 pool"),
        ("deep", "conv1 bn1 relu1 conv2 bn2 relu2 conv3 bn3 relu3 pool"),
        ("cifar", "conv1 bn1 relu1"),
    ],
)
def test_stem_children(stem, names):
    backbone = Res2Net(**SMALL, stem=stem)
    assert [name for name, _ in backbone.stem.named_children()] == names.split()


def kinds(backbone: Res2Net) -> list[list[tuple[str, int]]]:
    return [[(block.kind, block.stride) for block in stage] for stage in backbone.stages]


def test_every_stage_opens_with_a_stage_block():
    assert kinds(Res2Net(stage_depths=(2, 3), base_channels=16)) == [
        [("stage", 1), ("normal", 1)],
        [("stage", 2), ("normal", 1), ("normal", 1)],
    ]


def test_paddle_s_first_stage_opens_with_a_normal_block():
    backbone = Res2Net(
        stage_depths=(2, 2),
        base_channels=16,
        stride_1_first_as_normal=True,
        pool_count_include_pad=False,
    )
    assert kinds(backbone) == [[("normal", 1), ("normal", 1)], [("stage", 2), ("normal", 1)]]
    assert backbone.stages[0][0].shortcut is not None
    assert not any(block.pool_count_include_pad for stage in backbone.stages for block in stage)


def test_initialisation_is_he_s_over_fan_out_and_no_norm_is_zero():
    torch.manual_seed(0)
    backbone = Res2Net(stage_depths=(1, 1), base_width=4, cardinality=8, scale=4)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
        elif isinstance(module, nn.Conv2d):
            fan_out = module.weight[0, 0].numel() * module.out_channels
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)


def test_classifier_s_parts_make_up_its_whole():
    torch.manual_seed(0)
    model = Res2NetClassifier(Res2Net(**SMALL), 7, variant="own").eval()
    images = torch.randn(2, 3, 65, 33)
    with torch.no_grad():
        logits = model(images)
        maps = model.feature_maps(images)
        features = model.forward_features(images)
        assert torch.equal(maps[-1], features)
        assert torch.equal(model.forward_head(features), logits)
        by_hand = features.mean((2, 3)) @ model.head.fc.weight.T + model.head.fc.bias
    assert logits.shape == (2, 7)
    assert (model.num_classes, model.in_channels, model.variant) == (7, 3, "own")
    torch.testing.assert_close(logits, by_hand, rtol=1e-4, atol=1e-5)


def test_odd_images_change_the_gradient_of_every_parameter():
    torch.manual_seed(0)
    model = Res2NetClassifier(Res2Net(**SMALL, stem="deep", avg_down=True), 5)
    model(torch.randn(4, 3, 97, 65)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
