"""`res2net convert`: there and back through every format, and what it refuses."""

import pickle

import pytest
import torch
import torchvision

from res2net.cli.main import main
from res2net.weights.formats import from_ours, possible_targets
from res2net.weights.read import read_weights
from res2net.zoo import create_model
from schemas import fits

NAME = "res2net20_cifar"


@pytest.fixture
def tensors():
    torch.manual_seed(3)
    return create_model(NAME).state_dict()


@pytest.fixture
def source(tmp_path, tensors):
    path = tmp_path / "source.pth"
    torch.save(from_ours(tensors, "official"), path)
    return path


def refusal(capsys, *arguments) -> str:
    assert main(["convert", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and err.count("\n") == 1
    return err


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_there_and_back(tmp_path, tensors, source, suffix, capsys):
    previous, whose = source, "official/timm"
    for step, target in enumerate(("mmpretrain", "res2net", "timm", "official", "res2net")):
        path = tmp_path / f"{step}{suffix}"
        assert main(["convert", str(previous), str(path), "--to", target]) == 0
        out, err = capsys.readouterr()
        line = f"{NAME}: 206 tensors, {whose} -> {target}, 91,994 parameters, {path}\n"
        assert (out, err) == (line, "")
        previous = path
        whose = "official/timm" if target in ("official", "timm") else target
    weights = read_weights(previous)
    assert weights.model == NAME
    assert weights.state_dict.keys() == tensors.keys()
    assert all(torch.equal(weights.state_dict[key], tensors[key]) for key in tensors)


def test_bare_tables_for_code_that_wants_them(tmp_path, tensors, source, capsys):
    for target in ("official", "timm"):
        path = tmp_path / f"{target}.pth"
        assert main(["convert", str(source), str(path), "--to", target]) == 0
        stored = torch.load(path, weights_only=True)
        assert stored.keys() == from_ours(tensors, target).keys()


def test_json(tmp_path, source, capsys):
    path = tmp_path / "a.safetensors"
    arguments = ["convert", str(source), str(path), "--to", "res2net", "--json"]
    assert main(arguments) == 0
    assert fits("convert", capsys.readouterr().out) == {
        "source": str(source),
        "destination": str(path),
        "model": NAME,
        "from": "official/timm",
        "to": "res2net",
        "tensors": 206,
        "parameters": 91_994,
        "in_channels": 3,
    }


def test_only_what_to_takes_is_offered(tmp_path, source, capsys):
    with torch.device("meta"):
        assert "paddle" in possible_targets(create_model(NAME).state_dict())
    message = refusal(capsys, source, tmp_path / "a.pth", "--to", "torchvision")
    assert message == (
        f"error: --to torchvision: has no form for {NAME} "
        "(choices: res2net, official, timm, mmpretrain)\n"
    )
    assert not (tmp_path / "a.pth").exists()


def test_averaged_weights(tmp_path, tensors, capsys):
    both, only = tmp_path / "both.pth", tmp_path / "only.pth"
    averaged = {key: value * 2 for key, value in tensors.items()}
    torch.save({"state_dict": tensors, "state_dict_ema": averaged}, both)
    torch.save({"state_dict_ema": averaged}, only)
    raw, *written = (tmp_path / f"{number}.pth" for number in range(3))
    assert main(["convert", str(both), str(raw), "--to", "res2net"]) == 0
    assert capsys.readouterr().err == (
        f"{both}: has averaged weights as well, which --ema takes; these are the raw ones\n"
    )
    bias = "head.fc.bias"
    assert torch.equal(read_weights(raw).state_dict[bias], tensors[bias])
    for source, path in zip((both, only), written, strict=True):
        assert main(["convert", str(source), str(path), "--to", "res2net", "--ema"]) == 0
        assert capsys.readouterr().err == ""
        assert torch.equal(read_weights(path).state_dict[bias], averaged[bias])
    path = tmp_path / "x.pth"
    assert "give --ema to take them" in refusal(capsys, only, path, "--to", "res2net")


def test_torchvision_s_names_there_and_back(tmp_path, capsys):
    theirs = torchvision.models.resnet50(num_classes=2).state_dict()
    first, ours, second, timm = (tmp_path / f"{name}.pth" for name in "abcd")
    torch.save({"model": theirs}, first)  # as torchvision's reference training writes it
    assert main(["convert", str(first), str(ours), "--to", "res2net"]) == 0
    assert main(["convert", str(ours), str(second), "--to", "torchvision"]) == 0
    assert main(["convert", str(ours), str(timm), "--to", "timm"]) == 0
    line, *_ = capsys.readouterr().out.splitlines()
    assert line.startswith("resnet50: 320 tensors, torchvision/timm -> res2net, ")
    for path in (second, timm):
        after = torch.load(path, weights_only=True)
        assert after.keys() == theirs.keys()
        assert all(torch.equal(after[key], theirs[key]) for key in theirs)


def test_images_of_other_channels_are_told(tmp_path, capsys):
    source, path = tmp_path / "a.pth", tmp_path / "b.pth"
    torch.save(create_model(NAME, in_channels=1).state_dict(), source)
    assert main(["convert", str(source), str(path), "--to", "official"]) == 0
    out, _ = capsys.readouterr()
    assert out.endswith(f" parameters, for images of 1 channel, {path}\n")


def test_values_that_are_not_finite_are_told(tmp_path, tensors, capsys):
    source, path = tmp_path / "a.pth", tmp_path / "b.pth"
    tensors["backbone.stages.1.0.convs.1.weight"][0, 0] = float("nan")
    torch.save(tensors, source)
    assert main(["convert", str(source), str(path), "--to", "official"]) == 0
    assert capsys.readouterr().err == (
        "warning: 1 of 206 tensors have values that are not finite: layer2.0.convs.1.weight\n"
    )


def test_nothing_is_overwritten(tmp_path, source, capsys):
    before = source.read_bytes()
    assert "never overwritten" in refusal(capsys, source, source, "--to", "res2net")
    assert source.read_bytes() == before
    assert "choices: .pth, .safetensors" in refusal(capsys, source, "a.onnx", "--to", "res2net")


def test_missing_tensors_are_named_and_nothing_is_written(tmp_path, tensors, capsys):
    source, path = tmp_path / "a.pth", tmp_path / "b.pth"
    del tensors["backbone.stages.1.1.conv3.weight"]
    torch.save(tensors, source)
    for model in ([], ["--model", NAME]):
        message = refusal(capsys, source, path, "--to", "official", *model)
        assert f"{NAME}: backbone.stages.1.1.conv3.weight is missing" in message
    assert not path.exists()


def test_counters_that_are_missing_are_added(tmp_path, tensors, capsys):
    source, path = tmp_path / "a.pth", tmp_path / "b.pth"
    old = {key: value for key, value in tensors.items() if "num_batches" not in key}
    torch.save(from_ours(old, "official"), source)
    assert main(["convert", str(source), str(path), "--to", "res2net"]) == 0
    converted = read_weights(path).state_dict
    assert converted.keys() == tensors.keys()
    assert all(torch.equal(converted[key], tensors[key]) for key in tensors)


def test_a_backbone_stays_one(tmp_path, tensors, capsys):
    source, path = tmp_path / "a.pth", tmp_path / "b.safetensors"
    theirs = from_ours(tensors, "mmpretrain")
    torch.save({k: v for k, v in theirs.items() if not k.startswith("head.")}, source)
    assert main(["convert", str(source), str(path), "--to", "official"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{NAME}: 204 tensors, mmpretrain -> official")
    assert err == "a backbone without a classifier\n"
    weights = read_weights(path, backbone_only=True)
    assert (weights.num_classes, len(weights.state_dict)) == (0, 204)


def test_paddle_s_networks_must_be_named(tmp_path, tensors, capsys):
    source, path = tmp_path / "a.pdparams", tmp_path / "b.pth"
    arrays = {key: value.numpy() for key, value in from_ours(tensors, "paddle").items()}
    source.write_bytes(pickle.dumps(arrays))
    message = refusal(capsys, source, path, "--to", "res2net")
    assert f"say with --model what to take them for (choices: {NAME})" in message
    assert main(["convert", str(source), str(path), "--to", "res2net", "--model", NAME]) == 0
    assert read_weights(path).model == NAME


def test_paddle_s_own_networks_are_known(tmp_path, capsys):
    """The smaller of theirs, as PaddleClas names it: read, named, kept in our names only."""
    source, path = tmp_path / "a.pdparams", tmp_path / "b.safetensors"
    ours = create_model("Res2Net50_14w_8s", num_classes=2).state_dict()
    arrays = {key: value.numpy() for key, value in from_ours(ours, "paddle").items()}
    source.write_bytes(pickle.dumps(arrays))
    assert main(["convert", str(source), str(path), "--to", "res2net"]) == 0
    assert capsys.readouterr().out.startswith("res2net50_14w_8s_paddle: 896 tensors, paddle -> res")
    assert read_weights(path).model == "res2net50_14w_8s_paddle"
    for arguments in ([source], [path]):
        message = refusal(capsys, *arguments, tmp_path / "c.pth", "--to", "official")
        assert "res2net50_14w_8s_paddle pools and adds as PaddleClas does" in message
        message = refusal(
            capsys, *arguments, tmp_path / "c.pth", "--to", "timm", "--model", "res2net50_14w_8s"
        )
        assert "they are of res2net50_14w_8s_paddle" in message


def test_the_authors_dla_gets_its_dead_projections_back(tmp_path, capsys):
    ours = create_model("res2next_dla60", num_classes=2).state_dict()
    first, timm, second = (tmp_path / name for name in ("a.pth", "b.pth", "c.pth"))
    torch.save(from_ours(ours, "official"), first)
    assert main(["convert", str(first), str(timm), "--to", "timm"]) == 0
    assert main(["convert", str(timm), str(second), "--to", "official"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("res2next_dla60: 572 tensors, official -> timm")
    assert lines[1].startswith("res2next_dla60: 590 tensors, timm -> official")
    before, after = (torch.load(path, weights_only=True) for path in (first, second))
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_names_under_which_another_network_would_compute(tmp_path, source, monkeypatch, capsys):
    from res2net.weights import infer

    monkeypatch.setattr(infer, "pools_as_paddle", lambda variant: True)
    message = refusal(
        capsys, source, tmp_path / "b.pth", "--to", "timm", "--model", "res2net20_cifar"
    )
    assert "pools and adds as PaddleClas does" in message


def test_what_is_no_model(tmp_path, source, capsys):
    path = tmp_path / "b.pth"
    assert "no such variant" in refusal(capsys, source, path, "--to", "timm", "--model", "vgg")
    assert "no such file" in refusal(capsys, tmp_path / "no.pth", path, "--to", "timm")
    assert "do not fit res2net50_26w_4s" in refusal(
        capsys, source, path, "--to", "timm", "--model", "res2net50"
    )
    assert "invalid choice" in refusal(capsys, source, path, "--to", "paddle")
    assert not path.exists()
