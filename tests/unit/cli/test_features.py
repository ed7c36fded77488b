"""`res2net features` in-process: its file, its lines, and images that cannot be read."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from res2net.cli.main import main
from res2net.inference.features import FeatureExtractor
from samples import photo, save_network, small_network


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """On a busy machine the threads of one small convolution wait for each other for a second."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("runs") / "mine"
    save_network(small_network(), folder / "last.ckpt")
    return str(folder)


@pytest.fixture
def images(tmp_path, monkeypatch) -> list[str]:
    """Five images in folders, found as `images`, relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    names = ["images/a.png", "images/b/c.png", "images/b/d.png", "images/e, f.png", "images/g.png"]
    for seed, name in enumerate(names):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        photo(seed).save(name)
    return names


def test_npz(run, images, capsys):
    command = ["features", run, "images", "--out=out.npz", "--batch-size=2", "--device=cpu"]
    assert main(command) == 0
    with np.load("out.npz") as stored:
        assert stored["sources"].tolist() == images
        expected = FeatureExtractor(run, device="cpu", batch_size=2)(images)
        np.testing.assert_array_equal(stored["features"], expected)
    captured = capsys.readouterr()
    assert captured.out.startswith("out.npz: 5 images, 128 features each, ")
    assert captured.out.endswith(" images/s\n")
    assert captured.err == ""


def test_csv_and_json(run, images, capsys):
    assert main(["features", run, *reversed(images), "--out", "out.csv", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed.pop("images_per_second") > 0
    assert printed == {"file": "out.csv", "images": 5, "unreadable": 0, "num_features": 128}
    with open("out.csv", newline="") as file:
        _, *rows = csv.reader(file)
    assert [row[0] for row in rows] == images[::-1]
    expected = FeatureExtractor(run)(images[::-1])
    np.testing.assert_array_equal(np.array([row[1:] for row in rows], np.float32), expected)


def test_averaged_weights(run, images):
    stored = torch.load(f"{run}/last.ckpt")
    averaged = {k: v + 1 if "bn3.bias" in k else v for k, v in stored["state_dict"].items()}
    torch.save(stored | {"ema_state_dict": averaged}, "both.ckpt")
    assert main(["features", "both.ckpt", "images", "--out=raw.npz"]) == 0
    assert main(["features", "both.ckpt", "images", "--ema", "--out=averaged.npz"]) == 0
    raw, found = (np.load(name)["features"] for name in ("raw.npz", "averaged.npz"))
    np.testing.assert_array_equal(found, FeatureExtractor("both.ckpt", ema=True)(images))
    assert not np.allclose(found, raw)


def test_a_broken_file_is_named_and_the_rest_kept(run, images, capsys):
    Path("images/b/broken.png").write_bytes(b"no image")
    assert main(["features", run, "images", "--out", "out.npz", "--json"]) == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        "error: images/b/broken.png: is no image in a known format",
        "error: 1 of 6 images could not be read, see above; "
        "the features of the other 5 are in out.npz",
    ]
    assert json.loads(captured.out)["unreadable"] == 1
    assert np.load("out.npz")["sources"].tolist() == images


def test_no_file_without_any_image_that_can_be_read(run, images, capsys):
    Path("broken.png").write_bytes(b"")
    assert main(["features", run, "broken.png", "--out", "out.npz"]) == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1] == (
        "error: out.npz: not written, not one image could be read"
    )
    assert captured.out == ""
    assert sorted(os.listdir()) == ["broken.png", "images"]


def test_a_diverged_network_leaves_no_file(images, tmp_path, capsys):
    network = small_network()
    torch.nn.init.constant_(next(network.parameters()), float("nan"))
    file = save_network(network, tmp_path / "nan.ckpt")
    assert main(["features", str(file), "images", "--out", "out.csv"]) == 1
    assert "images/a.png: the network's output is not finite" in capsys.readouterr().err
    assert sorted(os.listdir()) == ["images", "nan.ckpt"]


def test_file_names_that_are_no_text(run, images):
    strange = os.fsdecode(b"images/\xff.png")
    os.rename(images[0], strange)
    assert main(["features", run, strange, "--out", "out.npz"]) == 0
    assert np.load("out.npz")["sources"].tolist() == [strange]
    assert main(["features", run, strange, "--out", "out.csv"]) == 0
    assert Path("out.csv").read_text("utf-8").splitlines()[1].startswith(r"images/\xff.png,")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "res2net features: the following arguments are required: --out"),
        (["--out=out.npy"], "out.npy: the suffix says the form"),
        (["--out=images"], "images: the suffix says the form"),
        (["--out=none/out.npz"], "none/out.npz: there is no folder 'none'"),
        (["--out=old.csv"], "old.csv: exists already and is never overwritten"),
        (["--out=out.npz", "images/none.png"], "images/none.png: no such image or folder"),
        (["--out=out.npz", "--batch-size=0"], "res2net features: argument --batch-size: '0'"),
        (["--out=out.npz", "--device=tpu"], "res2net features: argument --device: invalid"),
    ],
)
def test_bad_input_is_told_before_the_model_is_opened(images, arguments, message, capsys):
    Path("old.csv").write_text("old")
    assert main(["features", "no-such-model", "images", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {message}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert sorted(os.listdir()) == ["images", "old.csv"]
    assert Path("old.csv").read_text() == "old"


def test_a_bad_destination_is_told_without_torch(images):
    code = (
        "import sys\n"
        "from res2net.cli.main import main\n"
        "assert main(['features', 'any', 'images', '--out=x.txt']) == 2\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_an_unknown_model(images, capsys):
    assert main(["features", "no-such-model", "images", "--out=out.npz"]) == 2
    assert capsys.readouterr().err.startswith("error: model 'no-such-model': no such variant")
    assert os.listdir() == ["images"]
