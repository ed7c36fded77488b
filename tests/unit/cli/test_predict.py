"""`res2net predict` in-process: every form of its output, and images that cannot be read."""

import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from res2net.cli import images as cli_images
from res2net.cli.main import main
from res2net.inference.predictor import Predictor
from res2net.preprocessing import Preprocessing
from res2net.zoo import create_model

NAMES = ["cat", "dog [brown]", "ünïcode, quoted"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> str:
    torch.manual_seed(0)
    model = create_model("res2net20_cifar", num_classes=3)
    folder = tmp_path_factory.mktemp("runs") / "mine"
    folder.mkdir()
    description = {
        "schema": 1,
        "model": "res2net20_cifar",
        "num_classes": 3,
        "class_names": NAMES,
        "preprocessing": {
            "image_size": 32,
            "crop_fraction": 1.0,
            "interpolation": "bilinear",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
        },
    }
    torch.save({"state_dict": model.state_dict(), "res2net": description}, folder / "last.ckpt")
    return str(folder)


def draw(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(path.name.encode())
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 36, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def images(tmp_path, monkeypatch) -> list[str]:
    """Three images in folders, found as `images`, relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    names = ["images/a.png", "images/b/c.JPG", "images/d [x].png"]
    for name in names:
        draw(tmp_path / name)
    return names


@pytest.fixture
def expected(run, images):
    return Predictor(run, device="cpu")(images)


def close(values, predictions):
    """Scores, which depend a little on what else is in the batch."""
    assert values == pytest.approx([prediction.score for prediction in predictions], abs=1e-5)


# --- Forms of output -----------------------------------------------------------------------------


def test_json(run, images, expected, capsys):
    assert main(["predict", run, "images", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [each["source"] for each in printed] == images
    assert [each["label"] for each in printed] == [each.label for each in expected]
    close([each["score"] for each in printed], expected)
    for each in printed:
        assert set(each) == {"source", "label", "index", "score", "topk"}
        assert NAMES[each["index"]] == each["label"]
        assert {pair["label"] for pair in each["topk"]} == set(NAMES)
        assert each["topk"][0] == {"label": each["label"], "score": each["score"]}


def test_jsonl(run, images, expected, capsys):
    assert main(["predict", run, "--jsonl", "--topk", "2", *reversed(images)]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["source"] for each in printed] == images[::-1]
    close([each["score"] for each in printed], expected[::-1])
    assert {len(each["topk"]) for each in printed} == {2}


def test_csv(run, images, expected, capsys):
    assert main(["predict", run, "images", "--csv", "--topk", "9"]) == 0
    out, err = capsys.readouterr()
    assert err == "--topk 9: the model has 3 classes\n"
    header, *rows = csv.reader(io.StringIO(out))
    columns = "source index label1 score1 label2 score2 label3 score3"
    assert header == columns.split()
    assert [row[0] for row in rows] == images
    assert [row[2] for row in rows] == [each.label for each in expected]
    close([float(row[3]) for row in rows], expected)


def test_table(run, images, expected, capsys):
    assert main(["predict", run, "images"]) == 0
    heading, _, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["image", "top-1", "score", "then"]
    assert len(lines) == 3
    for line, name, prediction in zip(lines, images, expected, strict=True):
        assert line.startswith(name)
        for label, score in prediction.topk:
            assert label in line
            assert f"{score:.1%}" in line


def test_table_of_one_class(run, images, capsys):
    assert main(["predict", run, images[0], "--topk", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["image", "top-1", "score"]


def test_averaged_weights(run, images, capsys):
    stored = torch.load(f"{run}/last.ckpt")
    raw = stored["state_dict"]
    averaged = raw | {"head.fc.bias": torch.tensor([0.0, 0.0, 1e6])}
    raw = raw | {"head.fc.bias": torch.tensor([1e6, 0.0, 0.0])}
    torch.save(stored | {"state_dict": raw, "ema_state_dict": averaged}, "both.ckpt")
    for arguments, label in (([], NAMES[0]), (["--ema"], NAMES[2])):
        assert main(["predict", "both.ckpt", "images", "--jsonl", *arguments]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert {json.loads(line)["label"] for line in lines} == {label}
    assert main(["predict", run, "images", "--ema"]) == 2
    assert "holds no averaged weights" in capsys.readouterr().err


def test_the_best_checkpoint_of_a_plain_file(run, images, capsys):
    assert main(["predict", f"{run}/last.ckpt", "images", "--checkpoint", "best"]) == 2
    assert "checkpoint 'best': applies to run directories" in capsys.readouterr().err


def test_two_forms_are_refused(run, images, capsys):
    assert main(["predict", run, images[0], "--json", "--csv"]) == 2
    assert "not allowed with" in capsys.readouterr().err


def test_batches_of_one_on_the_cpu(run, images, expected, capsys):
    assert main(["predict", run, "images", "--batch-size=1", "--device=cpu", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [each["source"] for each in printed] == images
    close([each["score"] for each in printed], expected)


# --- Images that cannot be read ------------------------------------------------------------------


@pytest.mark.parametrize("form", ["--json", "--jsonl", "--csv", None])
def test_a_broken_file_is_named_and_the_rest_goes_on(run, images, form, capsys):
    Path("images/b/broken.png").write_bytes(b"no image")
    assert main(["predict", run, "images", *([form] if form else [])]) == 1
    captured = capsys.readouterr()
    named, summary = captured.err.splitlines()
    assert named == "error: images/b/broken.png: is no image in a known format"
    assert summary.startswith("error: 1 of 4 images could not be read")
    for name in images:
        assert name in captured.out
    assert "broken" not in captured.out
    if form == "--json":
        assert len(json.loads(captured.out)) == 3


def test_json_without_any_image_that_can_be_read(run, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"")
    assert main(["predict", run, str(tmp_path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize(
    ("given", "problems", "lost"),
    [
        (["one"], 0, "the image could not be read, see above"),
        (["one", "two"], 0, "no image could be read, see above"),
        (["one", "none"], 1, "some paths had no images and the image could not be read, see above"),
        (
            ["one", "images/a.png"],
            0,
            "1 of 2 images could not be read, see above; the classes of the other one were printed",
        ),
    ],
)
def test_what_is_missing(run, images, given, problems, lost, capsys):
    Path("one").touch()
    Path("two").touch()
    assert main(["predict", run, *given]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == f"error: {lost}"
    assert len([line for line in lines if "no such image" in line]) == problems


def test_names_are_one_line_each(run, images, capsys):
    strange = "images/new\nline \x1b[31m.png"
    os.rename(images[0], strange)
    Path("images/bad\nname.png").touch()
    assert main(["predict", run, "images", "--sheet=a\nsheet.png"]) == 1
    out, err = capsys.readouterr()
    assert "images/new\\nline \\x1b[31m.png" in out and len(out.splitlines()) == 2 + 3
    first, sheet, _ = err.splitlines()
    assert first == "error: images/bad\\nname.png: is no image in a known format"
    assert sheet == "written: a\\nsheet.png"


@pytest.mark.parametrize("place", ["/sys/x.png", "/proc/x.png", 250 * "a" + ".png"])
def test_a_sheet_that_cannot_be(run, images, place, capsys):
    assert main(["predict", "no-such-model", "images", f"--sheet={place}"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"error: {place}: the ") and err.count("\n") == 1


def test_a_sheet_that_fails_later(run, images, capsys, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("res2net.plots.tiles.draw_tiles", fail)
    assert main(["predict", run, "images", "--sheet=s.png"]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2 + 3
    assert err == (
        "error: s.png: cannot be written (No space left on device); the classes were printed\n"
    )


def test_how_images_are_seen(run, images, capsys):
    bare = torch.load(f"{run}/last.ckpt")["state_dict"]
    torch.save(bare, "bare.pth")
    asked = ["--image-size=16", "--crop-fraction=0.5", "--interpolation=bicubic", "--json"]
    assert main(["predict", "bare.pth", "images", *asked]) == 0
    out, err = capsys.readouterr()
    assert err.startswith("warning: bare.pth: does not say how its images were prepared; taken: ")
    assert "short side 32, crop 16, bicubic" in err and err.count("\n") == 1
    wanted = Preprocessing(16, 0.5, "bicubic")
    expected = Predictor("bare.pth", preprocessing=wanted, device="cpu")(images)
    close([each["score"] for each in json.loads(out)], expected)
    assert main(["predict", run, "images"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["images", ""], "error: '': an empty path; name an image"),
        (["images", "images/none.png"], "error: images/none.png: no such image or folder"),
        (["images", "empty"], "error: empty: no images in this folder"),
        (
            ["images", "--topk", "0"],
            "error: res2net predict: argument --topk: '0' is not an integer from 1 to ",
        ),
        (
            ["images", "--batch-size", "0"],
            "error: res2net predict: argument --batch-size: '0' is not an integer from ",
        ),
        (["images", "--device", "tpu"], "error: res2net predict: argument --device: invalid"),
        (
            ["images", "--image-size", "100000"],
            "error: res2net predict: argument --image-size: '100000' is not an integer from 8 to",
        ),
    ],
)
def test_bad_input_is_told_before_the_model_is_opened(images, arguments, message, capsys):
    Path("empty").mkdir()
    Path("empty/notes.txt").write_text("not an image")
    assert main(["predict", "no-such-model", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(message)
    assert captured.out == ""


def test_stdin_that_is_closed(images, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    assert main(["predict", "no-such-model", "-"]) == 2
    assert capsys.readouterr() == (
        "",
        "error: -: stdin is closed; give files, or their names on stdin\n",
    )


def test_an_unknown_model(images, capsys):
    assert main(["predict", "no-such-model", "images"]) == 2
    assert capsys.readouterr().err.startswith("error: model 'no-such-model': no such variant")


def test_a_variant_with_weights(run, images, capsys):
    assert main(["predict", "res2net20_cifar", "images", "--weights", run, "--jsonl"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert main(["predict", "res2net20_cifar", "images"]) == 2
    assert "--weights" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["--json", "--csv", None])
def test_file_names_that_are_no_text(run, tmp_path, form, capsys):
    draw(tmp_path / "a.png")
    strange = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    os.rename(tmp_path / "a.png", strange)
    assert main(["predict", run, str(tmp_path), *([form] if form else [])]) == 0
    out = capsys.readouterr().out
    if form == "--json":
        assert json.loads(out)[0]["source"] == strange
    else:
        assert r"/\xff.png" in out


# --- Progress ------------------------------------------------------------------------------------


def test_progress_goes_to_a_terminal_on_stderr_only(run, images, capsys, monkeypatch):
    Path("images/broken.png").write_bytes(b"no image")
    monkeypatch.setattr(cli_images, "PROGRESS_FROM", 3)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert main(["predict", run, "images", "--json"]) == 1
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)) == 3
    assert "predicting" in captured.err
    assert "100%" in captured.err
    assert "error: images/broken.png: is no image" in captured.err


def test_no_progress_for_few_images_or_without_a_terminal(run, images, capsys):
    assert main(["predict", run, "images", "--json"]) == 0
    assert capsys.readouterr().err == ""
