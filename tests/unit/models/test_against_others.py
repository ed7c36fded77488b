"""What timm and torchvision have as well: Res2Nets, ResNets, squeeze and excitation, drop path."""

import re

import pytest
import timm
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.layers import SEModule
from timm.models.res2net import Bottle2neck as TimmBlock
from torch import nn

from res2net.models.head import Res2NetClassifier
from res2net.models.res2net import Res2Net
from res2net.models.variants import VARIANTS
from res2net.preprocessing import Preprocessing
from res2net.weights.formats import from_ours, possible_targets, to_ours
from res2net.zoo import create_model

# timm's names, which are aliases of ours
TIMM = (
    "res2net50_26w_4s",
    "res2net50_48w_2s",
    "res2net50_14w_8s",
    "res2net50_26w_6s",
    "res2net50_26w_8s",
    "res2net101_26w_4s",
    "res2next50",
    "res2net50d",
    "res2net101d",
    "dla60_res2net",
    "dla60_res2next",
)
SIZES = (224, 233, 288)
LAYOUTS = (torch.contiguous_format, torch.channels_last)
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


def photographs(size, layout):
    """Two, normalised: (2, 3, size, size)."""
    preprocessing = Preprocessing(size)
    transform = preprocessing.transform()
    pixels = [transform(Image.fromarray(image)) for image in load_sample_images().images]
    return preprocessing.normalise(torch.stack(pixels)).contiguous(memory_format=layout)


def norms(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def pair_on_the_same_weights(name, layout):
    """timm's network and ours; their norms will take a batch's statistics as they are."""
    torch.manual_seed(0)
    judge = timm.create_model(name, pretrained=False)
    for module in norms(judge):  # timm starts some from 0, which would hide what comes before
        module.weight.data.uniform_(0.5, 1.5)
        module.bias.data.uniform_(-0.5, 0.5)
    if name.startswith("dla"):
        for module in judge.modules():
            if isinstance(module, nn.MaxPool2d):
                module.ceil_mode = True  # timm's rounds down and fails at odd sizes
    model = create_model(name)
    model.load_state_dict(to_ours(judge.state_dict())[0], strict=True)
    for module in (*norms(judge), *norms(model)):
        module.momentum = None
    return judge.to(memory_format=layout), model.to(memory_format=layout)


def hold_to(expected, logits, *, exact):
    assert expected.isfinite().all()
    assert expected.std() > 0.1
    if exact:
        assert torch.equal(logits, expected)
    assert (logits - expected).abs().max() <= 1e-4 * expected.std()


def compare_training(judge, model, images, *, exact):
    """Logits, gradients, and the statistics that the norms keep."""
    expected, logits = judge.train()(images), model.train()(images)
    hold_to(expected, logits, exact=exact)
    upstream = torch.randn_like(logits)
    expected.backward(upstream)
    logits.backward(upstream)
    gradients, _ = to_ours({key: value.grad for key, value in judge.named_parameters()})
    parameters = dict(model.named_parameters())
    assert parameters.keys() == gradients.keys()
    for key, parameter in parameters.items():
        largest = gradients[key].abs().max()
        assert largest.isfinite() and largest > 0, key
        assert (parameter.grad - gradients[key]).abs().max() <= 1e-4 * largest, key
    tensors, _ = to_ours(judge.state_dict())
    for key, value in model.state_dict().items():
        assert torch.equal(value, tensors[key]), key


def compare_evaluation(judge, model, images, *, exact):
    with torch.inference_mode():
        hold_to(judge.eval()(images), model.eval()(images), exact=exact)


# A linear layer sums in another order than DLA's classifier there, a 1x1 convolution.
def is_exact(name):
    return not name.startswith("dla")


@pytest.mark.parametrize(
    ("name", "layout"), [(name, LAYOUTS[index % 2]) for index, name in enumerate(TIMM)], ids=str
)
def test_networks_compute_what_timm_s_do(name, layout):
    judge, model = pair_on_the_same_weights(name, layout)
    exact = is_exact(name)
    compare_training(judge, model, photographs(224, layout), exact=exact)
    for size in SIZES:
        compare_evaluation(judge, model, photographs(size, layout)[:1], exact=exact)


@pytest.mark.soak
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", TIMM)
def test_networks_compute_what_timm_s_do_at_any_size_in_any_layout(name, size, layout):
    judge, model = pair_on_the_same_weights(name, layout)
    images = photographs(size, layout)
    compare_training(judge, model, images, exact=is_exact(name))
    compare_evaluation(judge, model, images, exact=is_exact(name))


@pytest.mark.parametrize("name", TIMM)
def test_conversions_there_and_back_change_no_bit(name):
    with torch.device("meta"):
        shapes = timm.create_model(name, pretrained=False).state_dict()
    theirs = {}
    for index, (key, value) in enumerate(shapes.items()):  # no two alike, nor two rows of one
        numbers = torch.arange(value.numel(), dtype=value.dtype).view(value.shape)
        theirs[key] = numbers + index
    ours, _ = to_ours(theirs)
    assert_same(from_ours(ours, "timm"), theirs)
    targets = possible_targets(ours)
    dla = name.startswith("dla")
    assert set(targets) >= {"official", "timm"} | (set() if dla else {"mmpretrain", "paddle"})
    assert ("mmdet" in targets) == name.endswith("d")
    for target in targets:
        back, _ = to_ours(from_ours(ours, target))
        if target == "paddle":  # whose norms count no batches
            assert_same(back, {k: v for k, v in ours.items() if "num_batches" not in k})
        else:
            assert_same(back, ours)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype and torch.equal(found[key], value), key


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
