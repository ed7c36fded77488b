"""Stochastic depth: it drops, by the rule, and leaves all else alone."""

import pytest
import torch
from torch import nn

from res2net.models.blocks import Bottle2neck, drop_path, linear_drop_path
from res2net.models.dla import DLA
from res2net.models.res2net import Res2Net

SMALL = {"stage_depths": (2, 3), "base_channels": 16}


def test_samples_are_dropped_as_often_as_the_rate_says():
    torch.manual_seed(0)
    features = torch.randn(20_000, 2, 1, 3)
    dropped = drop_path(features, rate=0.3)
    gone = (dropped == 0).flatten(1).all(dim=1)
    # Five standard deviations of a fair count: (20000 * 0.3 * 0.7) ** 0.5 = 65.
    assert gone.sum().item() == pytest.approx(6000, abs=5 * 65)
    torch.testing.assert_close(dropped[~gone], features[~gone] / 0.7)
    ones = drop_path(torch.ones(20_000, 1, 1, 1), rate=0.3)
    assert ones.mean().item() == pytest.approx(1, abs=5 * (0.3 / 0.7 / 20_000) ** 0.5)


def test_dropped_sample_is_its_shortcut_and_the_others_are_scaled():
    torch.manual_seed(0)
    block = Bottle2neck(32, 8, drop_path=0.25)
    plain = Bottle2neck(32, 8)
    plain.load_state_dict(block.state_dict())
    inputs = torch.randn(400, 32, 3, 3)
    residuals = []
    block.bn3.register_forward_hook(lambda module, args, output: residuals.append(output))
    with torch.no_grad():
        out = block.train()(inputs)
        (residual,) = residuals
        is_dropped = (out == inputs.relu()).flatten(1).all(dim=1)
        kept = ~is_dropped
        assert 0.15 < is_dropped.float().mean() < 0.35
        expected = (inputs[kept] + residual[kept] / 0.75).relu()
        torch.testing.assert_close(out[kept], expected)
        assert torch.equal(block.eval()(inputs), plain.eval()(inputs)) is False
        plain.load_state_dict(block.state_dict())  # the training pass moved the statistics
        assert torch.equal(block(inputs), plain(inputs))


@pytest.mark.parametrize("kind", [Res2Net, DLA])
def test_rate_0_and_evaluation_draw_nothing(kind):
    images = torch.randn(2, 3, 33, 33)
    never, often = kind(**SMALL), kind(**SMALL, drop_path=0.5)
    state = torch.get_rng_state()
    never.train()(images)
    often.eval()(images)
    assert torch.equal(torch.get_rng_state(), state)
    often.train()(images)
    assert not torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", [Res2Net, DLA])
def test_rate_changes_no_key_no_child_and_no_initial_value(kind):
    torch.manual_seed(0)
    never = kind(**SMALL)
    torch.manual_seed(0)
    often = kind(**SMALL, drop_path=0.5)
    assert list(never.state_dict()) == list(often.state_dict())
    assert [name for name, _ in never.named_modules()] == [n for n, _ in often.named_modules()]
    for key, value in never.state_dict().items():
        assert torch.equal(value, often.state_dict()[key])


def test_rule_is_linear_from_0():
    assert linear_drop_path(0.3, 4) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert linear_drop_path(0.3, 1) == [0]
    backbone = Res2Net(**SMALL, drop_path=0.2)
    rates = [block.drop_path for stage in backbone.stages for block in stage]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


@pytest.mark.parametrize("rate", [-0.1, 1, float("nan")])
def test_rates_that_are_none(rate):
    for kind in (Res2Net, DLA):
        with pytest.raises(ValueError, match="at least 0 and below 1"):
            kind(**SMALL, drop_path=rate)


def test_mean_over_many_draws_is_the_network_without():
    """Linear in the residual where nothing is cut off: a block whose sums are positive."""
    torch.manual_seed(0)
    block = Bottle2neck(32, 8, drop_path=0.4).train()
    nn.init.constant_(block.bn3.weight, 0.1)
    nn.init.constant_(block.bn3.bias, 1.0)
    inputs = torch.randn(1, 32, 5, 5).abs().expand(4000, -1, -1, -1)
    with torch.no_grad():
        mean = block(inputs).mean(0)
        block.drop_path = 0.0
        expected = block(inputs)[0]
    torch.testing.assert_close(mean, expected, rtol=0.05, atol=0.05)
