"""The block against an independent one of loops, written from the paper's equations."""

import pytest
import torch
import torch.nn.functional as F

from res2net.models.blocks import Bottle2neck


def randomise(module: torch.nn.Module) -> None:
    """Norms that do something: neither 1 nor 0, neither mean 0 nor variance 1."""
    for child in module.modules():
        if isinstance(child, torch.nn.BatchNorm2d):
            child.weight.data.uniform_(0.5, 1.5)
            child.bias.data.uniform_(-0.5, 0.5)
            child.running_mean.uniform_(-0.5, 0.5)
            child.running_var.uniform_(0.5, 1.5)


def naive_norm(x, tensors, name):
    weight, bias, mean, variance = (
        tensors[f"{name}.{part}"][None, :, None, None]
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / (variance + 1e-5) ** 0.5 * weight + bias


def naive_grouped(x, weight, stride, groups):
    outputs = []
    for group in range(groups):
        inputs = x.chunk(groups, dim=1)[group]
        outputs.append(
            F.conv2d(inputs, weight.chunk(groups, dim=0)[group], stride=stride, padding=1)
        )
    return torch.cat(outputs, dim=1)


def naive_pool(x, stride, count_include_pad):
    padded = F.pad(x, (1, 1, 1, 1))
    ones = F.pad(torch.ones_like(x), (1, 1, 1, 1))
    height, width = x.shape[2:]
    total, valid = 0.0, 0.0
    for dy in range(3):
        for dx in range(3):
            window = (..., slice(dy, dy + height, stride), slice(dx, dx + width, stride))
            total = total + padded[window]
            valid = valid + ones[window]
    return total / (9.0 if count_include_pad else valid)


def naive_block(x, tensors, *, scale, stride, groups, stage, count_include_pad):
    hidden = naive_norm(F.conv2d(x, tensors["conv1.weight"]), tensors, "bn1").relu()
    parts = list(hidden.chunk(scale, dim=1))
    results = []
    for index in range(scale):
        if index == scale - 1 and scale > 1:
            results.append(
                naive_pool(parts[index], stride, count_include_pad) if stage else parts[index]
            )
            continue
        value = parts[index]
        if not stage and index > 0:
            value = results[index - 1] + value
        value = naive_grouped(value, tensors[f"convs.{index}.weight"], stride, groups)
        results.append(naive_norm(value, tensors, f"bns.{index}").relu())
    out = naive_norm(F.conv2d(torch.cat(results, dim=1), tensors["conv3.weight"]), tensors, "bn3")
    if "shortcut.conv.weight" in tensors:
        x = F.conv2d(x[:, :, ::stride, ::stride], tensors["shortcut.conv.weight"])
        x = naive_norm(x, tensors, "shortcut.bn")
    return (out + x).relu()


@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(("kind", "stride"), [("normal", 1), ("stage", 1), ("stage", 2)])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_block_is_the_paper_s(scale, kind, stride, groups, count_include_pad):
    torch.manual_seed(0)
    block = Bottle2neck(
        32 if kind == "normal" else 20,
        8,
        stride=stride,
        kind=kind,
        base_width=48,
        scale=scale,
        cardinality=groups,
        pool_count_include_pad=count_include_pad,
    ).double()
    assert block.width == 6 * groups
    randomise(block)
    block.eval()
    inputs = torch.randn(2, block.conv1.in_channels, 9, 7, dtype=torch.float64, requires_grad=True)
    out = block(inputs)
    expected = naive_block(
        inputs,
        dict(block.state_dict()),
        scale=scale,
        stride=stride,
        groups=groups,
        stage=kind == "stage",
        count_include_pad=count_include_pad,
    )
    assert out.std() > 0.1
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    upstream = torch.randn_like(out)
    (gradient,) = torch.autograd.grad(out, inputs, upstream)
    (expected_gradient,) = torch.autograd.grad(expected, inputs, upstream)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-11, atol=1e-11)


def test_width_rounds_down_before_the_groups_multiply():
    assert Bottle2neck(32, 8, base_width=26).width == 3  # 3.25
    assert Bottle2neck(32, 8, base_width=26, cardinality=8).width == 24  # not 26


def test_scale_1_has_one_convolution_and_all_its_channels_go_through_it():
    block = Bottle2neck(256, 64, base_width=64, scale=1)
    assert len(block.convs) == len(block.bns) == 1
    assert block.convs[0].in_channels == block.conv1.out_channels == 64


def test_children_have_the_names_that_weights_use():
    names = [name for name, _ in Bottle2neck(16, 8, kind="stage").named_children()]
    assert names == ["conv1", "bn1", "convs", "bns", "conv3", "bn3", "shortcut"]
    assert Bottle2neck(32, 8).shortcut is None


def test_averaging_shortcut_pools_only_where_it_shrinks():
    block = Bottle2neck(16, 8, stride=2, kind="stage", avg_down=True)
    assert [name for name, _ in block.shortcut.named_children()] == ["pool", "conv", "bn"]
    assert block.shortcut.conv.stride == (1, 1)
    level = Bottle2neck(16, 8, kind="stage", avg_down=True)
    assert [name for name, _ in level.shortcut.named_children()] == ["conv", "bn"]
    # A column that is cut off at the border counts as its own average.
    pooled = block.shortcut.pool(torch.tensor([[[[1.0, 3.0, 7.0]]]]))
    assert pooled.tolist() == [[[[2.0, 7.0]]]]


def test_normal_block_with_a_stride_is_refused():
    with pytest.raises(ValueError, match="stride=2: a normal block has stride 1"):
        Bottle2neck(32, 8, stride=2)
