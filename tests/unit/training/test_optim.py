"""Which parameters decay, and that they do."""

import pytest
import torch
from torch import nn

from res2net.training.optim import build_optimizer, parameter_groups
from res2net.zoo import create_model


def test_exactly_norms_and_biases_go_without_decay() -> None:
    model = create_model("res2net20_cifar")
    expected = {
        id(parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if isinstance(module, nn.BatchNorm2d) or name == "bias"
    }
    decayed, bare = parameter_groups(model, weight_decay=0.05, decay_norm_and_bias=False)
    assert (decayed["weight_decay"], bare["weight_decay"]) == (0.05, 0.0)
    assert {id(parameter) for parameter in bare["params"]} == expected
    assert len(decayed["params"]) + len(bare["params"]) == len(list(model.parameters()))
    assert all(parameter.ndim in (2, 4) for parameter in decayed["params"])
    assert len(expected) > 20


def test_one_group_decays_all_as_the_paper_does() -> None:
    model = create_model("res2net20_cifar")
    (group,) = parameter_groups(model, weight_decay=0.05, decay_norm_and_bias=True)
    assert group["weight_decay"] == 0.05
    assert list(map(id, group["params"])) == list(map(id, model.parameters()))


@pytest.mark.parametrize("decay_norm_and_bias", [False, True])
def test_frozen_parameters_are_left_out(decay_norm_and_bias: bool) -> None:
    model = create_model("res2net20_cifar")
    model.backbone.requires_grad_(False)
    groups = parameter_groups(model, weight_decay=0.1, decay_norm_and_bias=decay_norm_and_bias)
    kept = [id(parameter) for group in groups for parameter in group["params"]]
    assert kept == [id(model.head.fc.weight), id(model.head.fc.bias)]


def test_a_step_is_nesterovs_by_hand() -> None:
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, 2.0)
    nn.init.constant_(model.bias, 3.0)
    optimizer = build_optimizer(
        model,
        lr=0.1,
        momentum=0.5,
        nesterov=True,
        weight_decay=0.25,
        decay_norm_and_bias=False,
    )
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    # the first velocity is the gradient; Nesterov adds momentum times velocity to it
    assert model.weight.item() == pytest.approx(2 - 0.1 * 1.5 * (1 + 0.25 * 2))
    assert model.bias.item() == pytest.approx(3 - 0.1 * 1.5)


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.9, False), (0.0, True), (0.0, False)])
def test_plain_momentum_and_none(momentum: float, nesterov: bool) -> None:
    optimizer = build_optimizer(
        nn.Linear(1, 1),
        lr=0.1,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=0.0,
        decay_norm_and_bias=True,
    )
    assert optimizer.defaults["momentum"] == momentum and not optimizer.defaults["nesterov"]
