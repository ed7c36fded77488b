"""Which parameters decay, and which learning rate each has."""

from collections import Counter

import pytest
import torch
from torch import nn

from res2net.models.head import Res2NetClassifier
from res2net.training.optim.groups import parameter_groups
from res2net.training.optim.layers import layers, stem_and_stages
from res2net.zoo import create_model as build_model

VARIANTS = [
    "res2net20_cifar",
    "res2net50_26w_4s",
    "res2net50_v1b_26w_4s",
    "se_res2net50_26w_4s",
    "res2next29_6c24w_4s",
    "resnet50",
    "res2net_dla60",
    "res2next_dla60",
]
DLA_BLOCKS = [
    "level2.tree1",
    "level2.tree2",
    "level3.tree1.tree1",
    "level3.tree1.tree2",
    "level3.tree2.tree1",
    "level3.tree2.tree2",
    "level4.tree1.tree1.tree1",
    "level4.tree1.tree1.tree2",
    "level4.tree1.tree2.tree1",
    "level4.tree1.tree2.tree2",
    "level4.tree2.tree1.tree1",
    "level4.tree2.tree1.tree2",
    "level4.tree2.tree2.tree1",
    "level4.tree2.tree2.tree2",
    "level5.tree1",
    "level5.tree2",
]


def create_model(variant: str, **options: int) -> Res2NetClassifier:
    with torch.device("meta"):  # without numbers
        return build_model(variant, **options)  # type: ignore[arg-type]


def groups_of(model: Res2NetClassifier, **options: float) -> list[dict]:
    defaults = {"lr": 0.1, "weight_decay": 0.05, "decay_norm_and_bias": False}
    return parameter_groups(model, **{**defaults, **options})  # type: ignore[arg-type]


def by_name(model: Res2NetClassifier, groups: list[dict], key: str) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: group[key] for group in groups for p in group["params"]}


@pytest.mark.parametrize("options", [{}, {"layer_decay": 0.75, "head_lr": 10.0}])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_is_in_exactly_one_group(variant: str, options: dict) -> None:
    model = create_model(variant, num_classes=7)
    groups = groups_of(model, **options)
    counted = Counter(id(parameter) for group in groups for parameter in group["params"])
    assert set(counted.values()) == {1}
    assert set(counted) == set(map(id, model.parameters()))
    keys = [(group["lr"], group["weight_decay"]) for group in groups]
    assert len(keys) == len(set(keys)) == (2 if not options else 2 * len(layers(model)))
    assert all(group["lr"] == pytest.approx(0.1 * group["lr_scale"]) for group in groups)


@pytest.mark.parametrize("variant", VARIANTS)
def test_exactly_norms_and_biases_go_without_decay(variant: str) -> None:
    model = create_model(variant)
    bare = {
        id(parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if isinstance(module, nn.BatchNorm2d) or name == "bias"
    }
    first, second = groups_of(model)
    assert (first["weight_decay"], second["weight_decay"]) == (0.05, 0.0)
    # in the order in which the network has them: stored states of optimizers stay alike
    ids = list(map(id, model.parameters()))
    assert list(map(id, first["params"])) == [one for one in ids if one not in bare]
    assert list(map(id, second["params"])) == [one for one in ids if one in bare]
    assert len(bare) > 20


def test_one_group_decays_all_as_the_paper_does() -> None:
    model = create_model("res2net20_cifar")
    (group,) = groups_of(model, decay_norm_and_bias=True)
    assert (group["weight_decay"], group["lr"], group["lr_scale"]) == (0.05, 0.1, 1.0)
    assert list(map(id, group["params"])) == list(map(id, model.parameters()))


@pytest.mark.parametrize("decay_norm_and_bias", [False, True])
def test_frozen_parameters_are_left_out(decay_norm_and_bias: bool) -> None:
    model = create_model("res2net20_cifar")
    model.backbone.requires_grad_(False)
    groups = groups_of(model, decay_norm_and_bias=decay_norm_and_bias, head_lr=3.0, layer_decay=0.5)
    kept = [id(parameter) for group in groups for parameter in group["params"]]
    assert kept == [id(model.head.fc.weight), id(model.head.fc.bias)]
    assert {group["lr_scale"] for group in groups} == {3.0}


def test_layers_of_a_res2net() -> None:
    model = create_model("res2net50_26w_4s")
    scales = by_name(model, groups_of(model, layer_decay=0.9, head_lr=5.0), "lr_scale")
    position = 0
    expected = {}
    for stage, depth in enumerate((3, 4, 6, 3)):
        for block in range(depth):
            position += 1
            expected[f"backbone.stages.{stage}.{block}."] = 0.9 ** (17 - position)
    assert position == 16
    for name, scale in scales.items():
        if name.startswith("head."):
            assert scale == 5.0
        elif name.startswith("backbone.stem."):
            assert scale == pytest.approx(0.9**17)
        else:
            (block,) = [prefix for prefix in expected if name.startswith(prefix)]
            assert scale == pytest.approx(expected[block]), name


def test_layers_of_a_dla_run_as_its_trees_do() -> None:
    model = create_model("res2net_dla60")
    scales = by_name(model, groups_of(model, layer_decay=0.9), "lr_scale")
    depth = {f"backbone.{name}.": 16 - place for place, name in enumerate(DLA_BLOCKS)}
    seen = set()
    for name, scale in scales.items():
        below = None
        if name.startswith("head."):
            below = 0
        elif name.startswith(("backbone.base_layer.", "backbone.level0.", "backbone.level1.")):
            below = 17
        elif ".project." in name:  # the shortcut of the tree's first block
            below = depth[name.partition("project.")[0] + "tree1."]
        elif ".root." in name:  # aggregates when the second block has run
            below = depth[name.partition("root.")[0] + "tree2."]
        else:
            (block,) = [prefix for prefix in depth if name.startswith(prefix)]
            below = depth[block]
        seen.add(below)
        assert scale == pytest.approx(0.9**below), name
    assert seen == set(range(18))


def test_groups_come_as_the_network_runs() -> None:
    model = create_model("res2net20_cifar")
    groups = groups_of(model, layer_decay=0.5)
    scales = [group["lr_scale"] for group in groups]
    assert scales == sorted(scales) and scales[-1] == 1
    assert [bool(group["weight_decay"]) for group in groups] == [True, False] * (len(groups) // 2)


def test_equal_rates_share_a_group() -> None:
    model = create_model("res2net20_cifar")
    apart = groups_of(model, layer_decay=0.5)
    shared = groups_of(model, layer_decay=0.5, head_lr=0.5)  # as the last block's
    assert len(shared) == len(apart) - 2
    assert len(groups_of(model, weight_decay=0.0)) == 1


def test_stem_and_stages() -> None:
    for variant, stages in (("res2net_dla60", 4), ("res2net50_26w_4s", 4), ("res2net20_cifar", 3)):
        model = create_model(variant)
        stem, found = stem_and_stages(model.backbone)
        assert len(found) == stages
        sizes = sum(p.numel() for part in (*stem, *found) for p in part.parameters())
        assert sizes == sum(p.numel() for p in model.backbone.parameters())
