"""`res2net cam` in-process: its pictures, its sheet, and what is never overwritten."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from res2net.cli.main import main
from res2net.inference import cam_pictures
from res2net.inference.cam import Explainer
from res2net.plots.heat import PICTURE_SIDE, overlay
from samples import NAMES, photo, save_network, small_network


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("runs") / "mine"
    save_network(small_network(), folder / "last.ckpt")
    return str(folder)


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> str:
    """Other weights; the same classes in another order."""
    network = small_network()
    torch.manual_seed(5)
    torch.nn.init.normal_(network.head.fc.weight)
    folder = tmp_path_factory.mktemp("runs") / "other"
    save_network(network, folder / "last.ckpt", class_names=NAMES[::-1])
    return str(folder)


@pytest.fixture
def images(tmp_path, monkeypatch) -> list[str]:
    """Relative to the working directory; namesakes, spaces, letters beyond ASCII."""
    monkeypatch.chdir(tmp_path)
    names = ["images/a.png", "images/b/A.png", "images/d é 图.png", "images/sheet.png"]
    for seed, name in enumerate(names):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        photo(seed).save(name)
    return names


PICTURES = ["a.png", "A-2.png", "d é 图.png", "sheet-2.png"]


def read(file) -> np.ndarray:
    return np.asarray(Image.open(file))


def test_a_picture_of_each_image_and_a_sheet(run, images, capsys):
    assert main(["cam", run, "images", "--out=made/here", "--device=cpu"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "made/here: 4 pictures and sheet.png\n"
    assert captured.err == ""
    assert sorted(os.listdir("made/here")) == sorted([*PICTURES, "sheet.png"])
    for name, each in zip(PICTURES, Explainer(run, device="cpu")(images), strict=True):
        picture = read(f"made/here/{name}")
        expected = np.asarray(overlay(each.pixels, each.heat, PICTURE_SIDE))
        assert picture.shape == expected.shape == (448, 448, 3)
        assert np.abs(picture.astype(int) - expected).max() <= 6
    assert read("made/here/sheet.png").shape[1] > 8 * 160


def test_json_with_class_stage_and_method(run, images, capsys):
    asked = ["--target=kind 7", "--stage=2", "--method=gradcam++", "--json"]
    assert main(["cam", run, *images[:2], "--out=out", *asked]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["sheet"], printed["unreadable"]) == ("out/sheet.png", 0)
    explainer = Explainer(run, stage=2, method="gradcam++")
    for shown, each in zip(printed["pictures"], explainer(images[:2], 7), strict=True):
        assert shown.pop("score") == pytest.approx(each.score, abs=1e-5)
        assert shown.pop("file") in ("out/a.png", "out/A-2.png")
        assert shown == {
            "source": each.source,
            "label": "kind 7",
            "index": 7,
            "predicted": each.predicted,
        }
        expected = np.asarray(overlay(each.pixels, each.heat, PICTURE_SIDE)).astype(int)
        files = [read(f"out/{name}").astype(int) for name in ("a.png", "A-2.png")]
        assert min(np.abs(file - expected).max() for file in files) <= 6


def test_two_models_explain_the_same_class(run, other, images, capsys):
    assert main(["cam", run, "images", f"--against={other}", "--out=out", "--json"]) == 0
    for shown in json.loads(capsys.readouterr().out)["pictures"]:
        (first,) = Explainer(run)(shown["source"])
        (second,) = Explainer(other)(shown["source"], first.label)
        assert (shown["label"], shown["against"]["label"]) == (first.label, first.label)
        assert shown["against"]["index"] == 9 - shown["index"]  # found by its name
        assert shown["against"]["score"] == pytest.approx(second.score, abs=1e-5)
        picture = read(shown["file"])
        assert picture.shape == (448, 2 * 448 + 12, 3)
        for part, each in ((picture[:, :448], first), (picture[:, -448:], second)):
            expected = np.asarray(overlay(each.pixels, each.heat, 448)).astype(int)
            assert np.abs(part - expected).max() <= 6  # a step of the colours


def test_models_without_a_class_in_common(run, images, tmp_path, capsys):
    few = save_network(small_network(2), tmp_path / "two" / "few.ckpt", class_names=["kind 1", "x"])
    command = ["cam", run, "images", f"--against={few}", "--out=out"]
    assert main(command) == 2
    assert capsys.readouterr().err == (
        "error: two/few.ckpt: has no class 'kind 0', which the first explains; it has 2 classes: "
        "kind 1, x; name one that both have (--target)\n"
    )
    assert not os.path.exists("out")
    assert main([*command, "--target=kind 1"]) == 0


def test_nothing_is_overwritten(run, images, capsys):
    os.mkdir("out")
    for name in ("d é 图.png", "sheet.png"):
        Path("out", name).write_text("old")
        assert main(["cam", "no-such-model", "images", "--out=out"]) == 2
        expected = f"error: out/{name}: exists already and is never overwritten; choose another"
        assert capsys.readouterr().err.startswith(expected)
        assert os.listdir("out") == [name]
        os.remove(f"out/{name}")
    Path("out/notes.txt").write_text("old")
    assert main(["cam", run, "images", "--out=out"]) == 0
    assert len(os.listdir("out")) == 6


def test_hostile_files_are_named_and_the_rest_drawn(run, images, capsys):
    Path("images/zip.jpg").write_bytes(b"PK\x03\x04" + bytes(40))
    Path("images/empty.jpg").write_bytes(b"")
    Path("images/page.jpg").write_text("<!DOCTYPE html>")
    os.mkdir("none")
    assert main(["cam", run, "none", "images", "--out=out"]) == 1
    captured = capsys.readouterr()
    first, *named, last = captured.err.splitlines()
    assert first.startswith("error: none: no images in this folder")
    assert named == [
        f"error: images/{name}.jpg: is no image in a known format"
        for name in ("empty", "page", "zip")
    ]
    assert last == (
        "error: some paths had no images and 3 of 7 images could not be read, see above; the "
        "pictures of the other 4 are in out"
    )
    assert captured.out == "out: 4 pictures and sheet.png\n"
    assert sorted(os.listdir("out")) == sorted([*PICTURES, "sheet.png"])
    assert main(["cam", run, "images/zip.jpg", "--out=none of it"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: none of it: no picture was made, not one image could be read"
    )
    assert not os.path.exists("none of it")


def test_names_are_safe(tmp_path):
    strange = ["x/a:b?.jpg", "x/" + "长" * 84 + ".jpg", "x/...jpg", os.fsdecode(b"x/\xff\n.jpg")]
    files = cam_pictures.name_pictures(tmp_path / "new", [*strange, strange[0]])
    names = [file.name for file in files.values()]
    assert names == ["a_b_.png", "长" * 60 + ".png", "image.png", "_xff_n.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "res2net cam: the following arguments are required: --out"),
        (["--out=images/a.png"], "images/a.png: is no folder"),
        (["--out=/sys/looks"], "/sys/looks: cannot be written ("),
        (["--out=new/" + 300 * "a"], f"new/{300 * 'a'}: cannot be written (File name too long)"),
        (["--out=out", "--method=cam"], "res2net cam: argument --method: invalid"),
        (["--out=out", "--stage=x"], "res2net cam: argument --stage: 'x' is not"),
        (["--out=out", "--against-weights=in1k"], "--against-weights: there is no second model"),
    ],
)
def test_bad_input_is_told_before_the_model_is_opened(images, arguments, message, capsys):
    assert main(["cam", "no-such-model", "images", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {message}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert os.listdir() == ["images"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target=kind"], "class 'kind': none of the model's 10 classes; give a name or an"),
        (["--stage=4"], "stage 4: res2net20_cifar has the stages 1 to 3"),
    ],
)
def test_bad_input_that_the_model_tells(run, images, arguments, message, capsys):
    assert main(["cam", run, "images", "--out=out", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert os.listdir() == ["images"]


def test_the_second_model_s_weights_have_an_option_of_their_own(run, images, capsys):
    assert main(["cam", run, "images", "--out=out", "--against=res2net20_cifar"]) == 2
    assert "give weights as well (--against-weights), or" in capsys.readouterr().err
    assert main(["cam", "res2net20_cifar", "images", "--out=out", f"--against={run}"]) == 2
    assert "give weights as well (--weights), or" in capsys.readouterr().err


def test_without_the_library(images, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    assert main(["cam", "no-such-model", "images", "--out=out"]) == 2
    error = capsys.readouterr().err
    assert error.endswith("pip install 'res2net-lightning[explain]'\n")
    assert error.count("\n") == 1
    assert os.listdir() == ["images"]


def test_bad_input_is_told_without_pytorch(images):
    code = (
        "import sys\nfrom res2net.cli.main import main\n"
        "assert main(['cam', 'any', 'images', '--out=images/a.png']) == 2\n"
        "assert not {'torch', 'cv2', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_sheet_shows_the_first_images(run, images, monkeypatch):
    monkeypatch.setattr(cam_pictures, "ON_SHEET", 1)
    assert main(["cam", run, "images", "--out=few"]) == 0
    monkeypatch.setattr(cam_pictures, "ON_SHEET", 9)
    assert main(["cam", run, *images, images[0], "--out=all"]) == 0
    few, every = (read(f"{folder}/sheet.png") for folder in ("few", "all"))
    # four images stand in one row: what is right of the first pair is empty only where it is alone
    assert (few[70:200, 400:] == 255).all()
    assert not (every[70:200, 400:] == 255).all()
    assert len(os.listdir("few")) == len(os.listdir("all")) == 5
