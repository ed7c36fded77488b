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
from PIL import Image

from res2net.cli.main import main
from res2net.inference.features import FeatureExtractor
from samples import photo, save_network, small_network


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
    assert printed == {
        "file": "out.csv",
        "images": 5,
        "unreadable": 0,
        "num_features": 128,
        "parts": {"features": 128},
        "classes": None,
    }
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


def test_through_dali(run, images, capsys):
    """As by `predict`: pixels as `test` sees them, in order, and what DALI cannot read named."""
    Path("images/b/broken.png").write_bytes(b"no image")
    arguments = ["features", run, "images", "--batch-size=2", "--device=cpu"]
    found = {}
    for loader in ("dali", "pillow"):
        assert main([*arguments, f"--loader={loader}", f"--out={loader}.npz"]) == 1
        error = capsys.readouterr().err.splitlines()
        assert error[0] == "error: images/b/broken.png: is no image in a known format"
        assert error[1].startswith("error: 1 of 6 images could not be read, see above; ")
        with np.load(f"{loader}.npz") as stored:
            assert stored["sources"].tolist() == images
            found[loader] = stored["features"]
    rows = FeatureExtractor(run, device="cpu").stream(images, loader="dali")
    np.testing.assert_allclose(
        found["dali"], np.concatenate([batch for _, batch in rows]), atol=1e-5
    )
    # Pillow's pixels are within one of 256 levels
    off = np.abs(found["dali"] - found["pillow"])
    assert 0 < off.max() <= 0.05 * found["pillow"].std()


def test_many_images_stream_through_dali(run, images, monkeypatch):
    from res2net.cli import images as shared

    monkeypatch.setattr(shared, "DALI_FROM", len(images))
    seen = []
    stream = FeatureExtractor.stream

    def noted(self, given, **options):
        seen.append(options["loader"])
        return stream(self, given, **options)

    monkeypatch.setattr(FeatureExtractor, "stream", noted)
    assert main(["features", run, *images, "--out=many.npz"]) == 0
    assert main(["features", run, *images[1:], "--out=few.npz"]) == 0
    assert seen == ["dali", "pillow"]


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
        ([], "--out FILE is missing"),
        (["--stage=0", "--out=out.npz"], "res2net features: argument --stage: '0' is no stage"),
        (["--stage=top", "--out=o.npz"], "res2net features: argument --stage: 'top' is no stage"),
        (
            ["--probe", "--seed=-1"],
            "res2net features: argument --seed: '-1' is not an integer from 0 to 4,294,967,295",
        ),
        (["--probe"], "--probe: these images have no labels; give one folder, which has"),
        (["--out=out.npz", "--probe"], "--probe: these images have no labels"),
        (["--out=out.npy"], "out.npy: the suffix says the form"),
        (["--out=images"], "images: the suffix says the form"),
        (["--out=none/out.npz"], "none/out.npz: there is no folder 'none'"),
        (["--out=old.csv"], "old.csv: exists already and is never overwritten"),
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


def test_paths_without_images_are_named_and_the_rest_kept(run, images, capsys):
    os.mkdir("empty")
    given = ["images/none.png", "images", "empty"]
    assert main(["features", run, *given, "--out=out.npz"]) == 1
    first, second, last = capsys.readouterr().err.splitlines()
    assert first == "error: images/none.png: no such image or folder"
    assert second.startswith("error: empty: no images in this folder")
    assert last == (
        "error: some paths had no images, see above; the features of the other 5 are in out.npz"
    )
    assert np.load("out.npz")["sources"].tolist() == images
    assert main(["features", run, "empty", "--out=none.npz"]) == 2
    assert capsys.readouterr().err.startswith("error: empty: no images in this folder")
    assert not os.path.exists("none.npz")


@pytest.mark.parametrize("stage", ["1", "2", "3", "pooled", "all"])
def test_stages(run, images, stage, capsys):
    assert main(["features", run, "images", f"--stage={stage}", "--out=out.npz", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    extractor = FeatureExtractor(run, stage=int(stage) if stage.isdecimal() else stage)
    assert printed["parts"] == dict(extractor.parts)
    with np.load("out.npz") as stored:
        found = np.concatenate([stored[name] for name in extractor.parts], axis=1)
    np.testing.assert_array_equal(found, extractor(images))


def test_no_such_stage(run, images, capsys):
    assert main(["features", run, "images", "--stage=4", "--out=out.npz"]) == 2
    assert capsys.readouterr().err == (
        "error: stage 4: res2net20_cifar has the stages 1 to 3; also: pooled, all\n"
    )
    assert os.listdir() == ["images"]


@pytest.fixture
def labelled(tmp_path, monkeypatch) -> Path:
    """Thirty images of two classes in folders whose names have spaces and letters beyond ASCII."""
    monkeypatch.chdir(tmp_path)
    folder = Path("two kinds ü")
    for number in range(30):
        kind = folder / ("hot, dog" if number % 3 else "ähre")
        kind.mkdir(parents=True, exist_ok=True)
        color = (200, number, 0) if number % 3 else (0, number, 200)
        Image.new("RGB", (40, 40), color).save(kind / f"{number:02} 图.png")
    return folder


def test_labels_and_a_probe(run, labelled, capsys):
    assert main(["features", run, str(labelled), "--out=out.npz", "--probe", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["classes"] == 2
    assert printed["probe"] == {
        "top1": 1.0,
        "train_top1": 1.0,
        "chance": pytest.approx(2 / 3),
        "train": 24,
        "held_out": 6,
        "classes": 2,
        "seed": 0,
    }
    with np.load("out.npz") as stored:
        assert stored["class_names"].tolist() == ["hot, dog", "ähre"]
        for source, label in zip(stored["sources"], stored["labels"], strict=True):
            assert Path(source).parent.name == stored["class_names"][label]

    Path(labelled, "ähre", "zip.jpg").write_bytes(b"PK\x03\x04" + bytes(40))
    assert main(["features", run, str(labelled), "--probe", "--seed=7"]) == 1
    captured = capsys.readouterr()
    summary, probed = captured.out.splitlines()
    assert summary.startswith(f"{run}: 30 images, 128 features each, 2 classes, ")
    assert probed == (
        "linear probe: 100.00% of 6 images held out (100.00% of the 24 it was fitted to; 2 "
        "classes, the most frequent has 66.67%; stratified split of seed 7)"
    )
    assert captured.err.splitlines() == [
        f"error: {labelled}/ähre/zip.jpg: is no image in a known format",
        "error: 1 of 31 images could not be read, see above; "
        "the features of the other 30 were used",
    ]


def test_a_probe_of_a_class_of_one_image(run, labelled, capsys):
    (labelled / "one").mkdir()
    photo().save(labelled / "one" / "a.png")
    assert main(["features", "no-such-model", str(labelled), "--probe"]) == 2
    assert capsys.readouterr().err == (
        "error: --probe: class 'one' has one image; two at least, to hold one out\n"
    )


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [("sklearn.linear_model", ["--probe"], "probe"), ("pyarrow", ["--out=o.parquet"], "parquet")],
)
def test_a_missing_extra(labelled, module, arguments, extra, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["features", "no-such-model", str(labelled), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.endswith(f"pip install 'res2net-lightning[{extra}]'\n")
    assert error.count("\n") == 1
