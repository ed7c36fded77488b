"""Networks, counts and ratios of `bench model`, on networks small enough to be counted by hand."""

import pytest
import torch
from torch import nn

from res2net.bench.ceilings import measure_ceilings
from res2net.bench.model import compare_models
from res2net.bench.networks import ModelWork, open_networks
from res2net.bench.traffic import count_traffic
from res2net.cli.bench_model import print_passes
from res2net.cli.main import main
from res2net.errors import InputError
from res2net.models.variants import find_variant
from schemas import fits

LAST = "head.fc.weight"


def work(**changes) -> ModelWork:
    kept = {"variant": "res2net50_26w_4s", "batch_size": 1, "image_size": 32}
    return ModelWork(**{**kept, "precision": "float32", "device": "cpu", **changes})


def test_traffic_is_what_a_convolution_computes_and_moves() -> None:
    convolution = nn.Conv2d(3, 8, 3, padding=1, bias=False, device="meta")
    images = torch.empty(2, 3, 16, 16, device="meta")
    with torch.inference_mode():
        counted = count_traffic(lambda: convolution(images))
    assert counted.flops == 2 * 2 * 8 * 16 * 16 * 3 * 9
    assert counted.bytes == 4 * (2 * 3 * 256 + 8 * 3 * 9 + 2 * 8 * 256)


def test_views_move_nothing_and_additions_three_tensors() -> None:
    left, right = torch.empty(2, 10, 10, device="meta")
    with torch.inference_mode():
        counted = count_traffic(lambda: left.view(100) + right.view(100))
    assert (counted.flops, counted.bytes) == (0, 3 * 400)


def test_a_forward_pass_has_the_variants_macs() -> None:
    network = next(open_networks(work(image_size=224), "forward"))
    twin = network.on_meta()
    macs = find_variant("res2net50_26w_4s").macs
    counted = count_traffic(lambda: twin.run("forward")).flops / 2
    assert counted == pytest.approx(macs, rel=0.001)


@pytest.mark.parametrize(
    ("which", "names"),
    [
        ("forward", ["ours", "ours, folded", "timm, contiguous", "timm", "timm, memory kept"]),
        ("step", ["ours", "timm, contiguous", "timm", "timm, memory kept"]),
    ],
)
def test_networks_beside_each_other(which, names) -> None:
    networks = list(open_networks(work(), which))
    assert [network.name for network in networks] == [
        *names,
        "resnet50",
        "resnet50, memory kept",
    ]
    timm = networks[names.index("timm")]
    assert type(timm.network).__module__.startswith("timm.")
    folded = {networks[1]} if which == "forward" else set()
    sizes = {
        sum(p.numel() for p in n.network.parameters())
        for n in networks
        if "resnet50" not in n.name and n not in folded
    }
    assert sizes == {find_variant("res2net50_26w_4s").parameters}
    weight = timm.network.conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert networks[names.index("timm, contiguous")].images.is_contiguous()


def test_steps_train_and_forward_passes_do_not() -> None:
    network = next(open_networks(work(variant="res2net20_cifar"), "step"))
    before = {name: value.clone() for name, value in network.network.state_dict().items()}
    network.ready("forward")
    network.run("forward")
    assert all(
        torch.equal(before[name], value) for name, value in network.network.state_dict().items()
    )
    network.ready("step")
    network.run("backward")
    weights = dict(network.network.named_parameters())
    assert all(torch.equal(before[name], weights[name]) for name in weights)
    network.run("step")
    assert not torch.equal(before[LAST], weights[LAST])
    assert all(weight.grad is None for weight in weights.values())


def test_figures_follow_from_the_turns() -> None:
    turns = []
    result = compare_models(
        work(variant="res2net20_cifar"),
        passes=["forward"],
        rounds=2,
        seconds=0.0,
        progress=lambda: turns.append(1),
    )
    measured = result["passes"]["forward"]
    assert len(turns) == 2 * len(measured["networks"]) == 8
    for name, row in measured["networks"].items():
        seconds = sorted(turn["seconds"] / turn["passes"] for turn in row["turns"])
        assert row["images_per_second"] == pytest.approx(2 / sum(seconds))
        assert 0 < row["of_tflops_ceiling"] < 1.5
        assert row["first_pass_seconds"] > 0
        pairs = measured["ratios"][name]["pairs"]
        ours = measured["networks"]["ours"]["turns"]
        assert pairs == pytest.approx(
            [
                mine["seconds"] / turn["seconds"]
                for mine, turn in zip(ours, row["turns"], strict=True)
            ]
        )


def test_ceilings_are_of_this_machine() -> None:
    ceilings = measure_ceilings("cpu", torch.float32)
    assert 1e-3 < ceilings.tflops < 100
    assert 0.1 < ceilings.gb_per_second < 10_000


def test_the_verb(capsys) -> None:
    arguments = ["bench", "model", "res2net20_cifar", "--pass", "forward", "--batch", "1"]
    arguments += ["--size", "32", "--rounds", "1", "--seconds", "0.2", "--device", "cpu"]
    assert main([*arguments, "--json"]) == 0
    result = fits("bench_model", capsys.readouterr().out)
    assert result["work"]["variant"] == "res2net20_cifar"
    assert list(result["passes"]) == ["forward"]
    print_passes(result, markdown=True)
    shown = capsys.readouterr().out
    assert "| forward | images/s | of ours |" in shown
    assert "\n| resnet50 | " in shown


def test_no_such_variant() -> None:
    with pytest.raises(InputError, match="no such variant"):
        list(open_networks(work(variant="res2net51"), "forward"))
