"""The published key sets, written down here a second time, with timm's networks as the judge."""

import pytest
import timm
import torch

from res2net.models.head import Res2NetClassifier
from res2net.models.res2net import Res2Net
from res2net.weights.formats import from_ours, to_ours
from res2net.zoo import create_model

# variant -> (timm's name, blocks of each stage, 3x3 convolutions of a block, tensors)
PUBLISHED = {
    "res2net50_26w_4s": ("res2net50_26w_4s", (3, 4, 6, 3), 3, 512),
    "res2net50_48w_2s": ("res2net50_48w_2s", (3, 4, 6, 3), 1, 320),
    "res2net50_14w_8s": ("res2net50_14w_8s", (3, 4, 6, 3), 7, 896),
    "res2net50_26w_6s": ("res2net50_26w_6s", (3, 4, 6, 3), 5, 704),
    "res2net50_26w_8s": ("res2net50_26w_8s", (3, 4, 6, 3), 7, 896),
    "res2net101_26w_4s": ("res2net101_26w_4s", (3, 4, 23, 3), 3, 1022),
    "res2next50": ("res2next50", (3, 4, 6, 3), 3, 512),
    "res2net50_v1b_26w_4s": ("res2net50d", (3, 4, 6, 3), 3, 524),
    "res2net101_v1b_26w_4s": ("res2net101d", (3, 4, 23, 3), 3, 1034),
}
# variant -> (blocks of each stage, 3x3 convolutions of a block, tensors), counted on PaddleClas's
# own networks (paddleclas 2.6.0).
PADDLE = {
    "res2net50_26w_4s_paddle": ((3, 4, 6, 3), 3, 427),
    "res2net50_14w_8s_paddle": ((3, 4, 6, 3), 7, 747),
    "res2net50_vd_26w_4s": ((3, 4, 6, 3), 3, 437),
    "res2net101_vd_26w_4s": ((3, 4, 23, 3), 3, 862),
    "res2net200_vd_26w_4s": ((3, 12, 48, 3), 3, 1687),
}
DLA = {"res2net_dla60": "dla60_res2net", "res2next_dla60": "dla60_res2next"}
# Module of a projection that the authors build and nothing uses -> (input, output) channels.
DEAD = {
    "level3.project": (128, 256),
    "level4.project": (256, 512),
    "level4.tree1.project": (256, 512),
}
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
PADDLE_NORM = ("weight", "bias", "_mean", "_variance")


def blocks(depths):
    return [(stage, block) for stage, depth in enumerate(depths) for block in range(depth)]


def official_keys(depths, convs, *, v1b):
    keys = {"fc.weight", "fc.bias", *(f"bn1.{leaf}" for leaf in NORM)}
    keys |= {f"conv1.{k}.weight" for k in (0, 3, 6)} if v1b else {"conv1.weight"}
    keys |= {f"conv1.{k}.{leaf}" for k in (1, 4) for leaf in NORM if v1b}
    for stage, block in blocks(depths):
        layer = f"layer{stage + 1}.{block}"
        names = [f"convs.{k}" for k in range(convs)] + ["conv1", "conv3"]
        norms = [f"bns.{k}" for k in range(convs)] + ["bn1", "bn3"]
        if block == 0:
            names.append(f"downsample.{1 if v1b else 0}")
            norms.append(f"downsample.{2 if v1b else 1}")
        keys |= {f"{layer}.{name}.weight" for name in names}
        keys |= {f"{layer}.{norm}.{leaf}" for norm in norms for leaf in NORM}
    return keys


def mmpretrain_keys(official, *, v1b):
    stem = {
        "conv1.0": "stem.0.conv",
        "conv1.1": "stem.0.bn",
        "conv1.3": "stem.1.conv",
        "conv1.4": "stem.1.bn",
        "conv1.6": "stem.2.conv",
        "bn1": "stem.2.bn",
    }
    keys = set()
    for key in official:
        module, _, leaf = key.rpartition(".")
        if module == "fc":
            keys.add(f"head.fc.{leaf}")
        else:
            keys.add(f"backbone.{stem.get(module, module) if v1b else module}.{leaf}")
    return keys


def mmdet_keys(official):
    keys = set()
    for key in official:
        module, _, leaf = key.rpartition(".")
        module = "stem.7" if module == "bn1" else module.replace("conv1.", "stem.")
        # `layerN.M.conv1` has no number behind it
        keys.add(f"{module}.{leaf}")
    return keys


def paddle_keys(depths, convs, *, deep):
    layers = ["conv1_1", "conv1_2", "conv1_3"] if deep else ["conv1"]
    for stage, block in blocks(depths):
        name = f"res{stage + 2}{'abcdefghijkl'[block] if stage != 2 or depths[2] == 6 else ''}"
        if stage == 2 and depths[2] > 6:
            name += "a" if block == 0 else f"b{block}"
        inner = ["conv0", "conv2", *(f"{name}_branch2b_{k + 1}" for k in range(convs))]
        layers += [f"bb_{stage}_{block}.{layer}" for layer in inner]
        if block == 0:
            layers.append(f"bb_{stage}_{block}.short")
    keys = {f"{layer}._conv.weight" for layer in layers} | {"out.weight", "out.bias"}
    return keys | {f"{layer}._batch_norm.{leaf}" for layer in layers for leaf in PADDLE_NORM}


def shapes(tensors):
    return {key: value.shape for key, value in tensors.items()}


def ours_on_meta(name):
    with torch.device("meta"):
        return create_model(name).state_dict()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_key_sets(name):
    timm_name, depths, convs, count = PUBLISHED[name]
    v1b = "v1b" in name
    ours = ours_on_meta(name)
    official = official_keys(depths, convs, v1b=v1b)
    assert len(official) == count
    assert from_ours(ours, "official").keys() == official
    assert from_ours(ours, "timm").keys() == official
    assert from_ours(ours, "mmpretrain").keys() == mmpretrain_keys(official, v1b=v1b)
    assert from_ours(ours, "paddle").keys() == paddle_keys(depths, convs, deep=v1b)
    if v1b:
        assert from_ours(ours, "mmdet").keys() == mmdet_keys(official)

    with torch.device("meta"):
        theirs = timm.create_model(timm_name, pretrained=False).state_dict()
    mapped, whose = to_ours(theirs)
    assert whose == "official"
    assert shapes(mapped) == shapes(ours)
    assert list(from_ours(mapped, "timm")) == list(theirs)


@pytest.mark.parametrize("name", PADDLE)
def test_published_key_sets_of_paddle(name):
    depths, convs, count = PADDLE[name]
    ours = ours_on_meta(name)
    theirs = from_ours(ours, "paddle")
    assert len(theirs) == count
    assert theirs.keys() == paddle_keys(depths, convs, deep="vd" in name)
    back, whose = to_ours(theirs)
    assert whose == "paddle"
    kept = {key: value for key, value in ours.items() if "num_batches" not in key}
    assert shapes(back) == shapes(kept)


@pytest.mark.parametrize("name", DLA)
def test_published_key_sets_of_dla(name):
    with torch.device("meta"):
        theirs = timm.create_model(DLA[name], pretrained=False).state_dict()
    assert len(theirs) == 572
    mapped, whose = to_ours(theirs)
    assert whose == "timm"
    assert shapes(mapped) == shapes(ours_on_meta(name))
    assert shapes(from_ours(mapped, "timm")) == shapes(theirs)

    # All that the authors' code asks for, and nothing else: 590 tensors, their shapes.
    expected = shapes(theirs)
    for module, (fan_in, fan_out) in DEAD.items():
        expected[f"{module}.0.weight"] = (fan_out, fan_in, 1, 1)
        expected |= {f"{module}.1.{leaf}": (fan_out,) for leaf in NORM[:4]}
        expected[f"{module}.1.num_batches_tracked"] = ()
    official = from_ours(mapped, "official")
    assert len(official) == 590
    assert shapes(official) == expected
    dead = {key: value for key, value in official.items() if key not in theirs}
    trained = [value for key, value in dead.items() if key.endswith(("weight", "bias"))]
    assert sum(value.numel() for value in trained) == 297_472
    assert all(value.isfinite().all() for value in dead.values())
    assert all(dead[f"{module}.1.num_batches_tracked"].dtype == torch.int64 for module in DEAD)

    back, whose = to_ours(official)
    assert whose == "official"
    assert shapes(back) == shapes(mapped)


# A swap of two names would survive the way there and back: some are pinned one by one.
PAIRS = {
    ("mmpretrain", "v1"): {
        "backbone.conv1.weight": "stem.conv1.weight",
        "backbone.bn1.bias": "stem.bn1.bias",
        "backbone.layer2.0.downsample.0.weight": "stages.1.0.shortcut.conv.weight",
        "backbone.layer2.0.downsample.1.running_var": "stages.1.0.shortcut.bn.running_var",
        "backbone.layer2.1.convs.2.weight": "stages.1.1.convs.2.weight",
    },
    ("mmpretrain", "deep"): {
        "backbone.stem.0.conv.weight": "stem.conv1.weight",
        "backbone.stem.0.bn.bias": "stem.bn1.bias",
        "backbone.stem.1.conv.weight": "stem.conv2.weight",
        "backbone.stem.1.bn.bias": "stem.bn2.bias",
        "backbone.stem.2.conv.weight": "stem.conv3.weight",
        "backbone.stem.2.bn.bias": "stem.bn3.bias",
        "backbone.layer3.0.downsample.1.weight": "stages.2.0.shortcut.conv.weight",
        "backbone.layer3.0.downsample.2.weight": "stages.2.0.shortcut.bn.weight",
    },
    ("mmdet", "deep"): {
        "stem.0.weight": "stem.conv1.weight",
        "stem.1.running_mean": "stem.bn1.running_mean",
        "stem.3.weight": "stem.conv2.weight",
        "stem.4.running_mean": "stem.bn2.running_mean",
        "stem.6.weight": "stem.conv3.weight",
        "stem.7.running_mean": "stem.bn3.running_mean",
        "layer4.0.bns.1.bias": "stages.3.0.bns.1.bias",
    },
    ("paddle", "v1"): {
        "conv1._conv.weight": "stem.conv1.weight",
        "conv1._batch_norm._variance": "stem.bn1.running_var",
        "bb_0_0.short._conv.weight": "stages.0.0.shortcut.conv.weight",
        "bb_0_0.short._batch_norm._mean": "stages.0.0.shortcut.bn.running_mean",
        "bb_1_1.res3b_branch2b_2._conv.weight": "stages.1.1.convs.1.weight",
    },
    ("paddle", "deep"): {
        "conv1_1._conv.weight": "stem.conv1.weight",
        "conv1_1._batch_norm._mean": "stem.bn1.running_mean",
        "conv1_2._conv.weight": "stem.conv2.weight",
        "conv1_2._batch_norm.bias": "stem.bn2.bias",
        "conv1_3._conv.weight": "stem.conv3.weight",
        "conv1_3._batch_norm._variance": "stem.bn3.running_var",
        "bb_1_1.conv0._conv.weight": "stages.1.1.conv1.weight",
        "bb_1_1.conv0._batch_norm._mean": "stages.1.1.bn1.running_mean",
        "bb_1_1.conv2._conv.weight": "stages.1.1.conv3.weight",
        "bb_1_1.conv2._batch_norm.bias": "stages.1.1.bn3.bias",
        "bb_2_0.res4a_branch2b_3._conv.weight": "stages.2.0.convs.2.weight",
        "bb_2_0.res4a_branch2b_1._batch_norm.weight": "stages.2.0.bns.0.weight",
        "bb_3_0.short._conv.weight": "stages.3.0.shortcut.conv.weight",
        "bb_3_0.short._batch_norm._variance": "stages.3.0.shortcut.bn.running_var",
    },
}


@pytest.mark.parametrize(("target", "stem"), PAIRS)
def test_names_one_by_one(target, stem):
    backbone = Res2Net(stage_depths=(1, 2, 1, 1), base_channels=16, stem=stem, avg_down=True)
    torch.manual_seed(2)
    ours = {
        key: torch.randn(value.shape)
        for key, value in Res2NetClassifier(backbone, 5).state_dict().items()
    }
    theirs = from_ours(ours, target)
    for name, our_name in PAIRS[target, stem].items():
        assert torch.equal(theirs[name], ours[f"backbone.{our_name}"]), name
