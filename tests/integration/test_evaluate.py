"""`res2net test` against a loop over the images, and what it tells besides."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from res2net.cli.main import main
from res2net.errors import InputError, WorkError
from res2net.training import evaluate
from res2net.training.evaluate import Asked, FlipAverage
from res2net.weights.catalog import CATALOG
from runs import Run
from samples import NAMES, PREPROCESSING, photo, save_network, small_network

COUNT = 23


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return save_network(small_network(), tmp_path / "weights" / "small.pth")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    for number in range(COUNT):
        folder = root / NAMES[number % 10]
        folder.mkdir(parents=True, exist_ok=True)
        photo(number).save(folder / f"{number:02d}.png")
    return root


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict]:
    def run(*arguments: str) -> dict:
        assert main(["test", *arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def by_hand(images: Path, *, size: int = 32, flip: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) and probabilities (N, 10), one image after the other, in the folders' order."""
    from dataclasses import replace

    network, preprocessing = small_network(), replace(PREPROCESSING, image_size=size)
    labels, probabilities = [], []
    for path in sorted(images.glob("*/*.png")):
        pixels = preprocessing.transform()(Image.open(path))[None]
        views = [pixels, pixels.flip(3)] if flip else [pixels]
        with torch.inference_mode():
            scores = [network(preprocessing.normalise(view)).softmax(1)[0] for view in views]
        labels.append(NAMES.index(path.parent.name))
        probabilities.append(torch.stack(scores).mean(0).numpy())
    return np.array(labels), np.array(probabilities)


@pytest.mark.parametrize(
    ("options", "how"),
    [
        ([], {}),
        (["--flip"], {"flip": True}),
        (["--image-size", "40"], {"size": 40}),
        (["--batch-size", "7", "--flip", "--image-size", "24"], {"flip": True, "size": 24}),
    ],
    ids=["as stored", "flip", "size", "all"],
)
def test_the_figures_are_those_of_a_loop(answer, weights, images, options, how) -> None:
    result = answer(str(weights), "--data", str(images), *options)
    labels, probabilities = by_hand(images, **how)
    ranked = np.argsort(-probabilities, axis=1)
    assert result["images"] == COUNT
    assert result["top1"] == (ranked[:, 0] == labels).mean()
    assert result["top5"] == (ranked[:, :5] == labels[:, None]).any(1).mean()
    losses = -np.log(probabilities[np.arange(COUNT), labels])
    assert result["loss"] == pytest.approx(losses.mean(), rel=2e-3)  # a grey level apart
    assert result["preprocessing"]["image_size"] == how.get("size", 32)
    wrong = {pair["images"] for pair in result["confusions"]}
    assert (result["top1"] < 1) == bool(wrong)


def test_mirror_images_do_not_matter_when_averaged() -> None:
    network = FlipAverage(small_network()).eval()
    images = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        scores = network(images)
        assert torch.allclose(scores, network(images.flip(3)), atol=1e-5)
    assert torch.allclose(scores.exp().sum(1), torch.ones(3), atol=1e-5)


def test_classes_confusions_and_other_labels_are_written(
    answer, weights, images, tmp_path, capsys
) -> None:
    files = [str(tmp_path / "classes.csv"), str(tmp_path / "confusion.png")]
    options = ("--per-class", files[0], "--confusion", files[1])
    result = answer(str(weights), "--data", str(images), *options)
    with open(files[0], newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["images"]) for row in rows) == COUNT
    right = sum(float(row["top1"]) * int(row["images"]) for row in rows)
    assert right == pytest.approx(result["top1"] * COUNT)
    assert Image.open(files[1]).width > 400
    # neither is ever overwritten, and both are looked at before the work begins
    for option, path in (("--per-class", files[0]), ("--confusion", files[1])):
        assert main(["test", "nowhere", option, path]) == 2
        assert "never overwritten" in capsys.readouterr().err


def test_two_processes_say_the_same(command: Run, weights, images, tmp_path) -> None:
    said = []
    for devices in ("1", "2"):
        table = f"{devices}.csv"
        done = command(
            "test", str(weights), "--data", str(images), "--devices", devices, "--batch-size", "4",
            "--per-class", table, "--json",
        )  # fmt: skip
        result = json.loads(done.stdout)
        del result["images_per_second"], result["loss"]
        said.append((result, (tmp_path / table).read_text()))
    assert said[0] == said[1]


def test_files_that_cannot_be_decoded_are_left_out_if_so_asked(answer, weights, images) -> None:
    (images / NAMES[3] / "bad.png").write_bytes(b"not an image")
    with pytest.raises(WorkError, match=r"bad.png cannot be decoded: .* with --skip-corrupt$"):
        evaluate.test(str(weights), Asked(data=str(images)))
    whole = answer(str(weights), "--data", str(images), "--skip-corrupt")
    assert (whole["images"], whole["excluded"]) == (COUNT, 1)
    (images / NAMES[3] / "bad.png").unlink()
    clean = answer(str(weights), "--data", str(images))
    for key in ("top1", "top5", "confusions"):
        assert whole[key] == clean[key]


def test_a_network_that_says_nothing_fails(tmp_path, images) -> None:
    network = small_network()
    network.head.fc.weight.data.fill_(torch.nan)
    broken = save_network(network, tmp_path / "nan.pth")
    with pytest.raises(WorkError, match=r"nan.pth: the network's output is not finite"):
        evaluate.test(str(broken), Asked(data=str(images)))


def test_published_files_are_told_and_compared_only_like_with_like(
    weights, images, monkeypatch, capsys
) -> None:
    published = CATALOG["official/res2net50_26w_4s"]
    monkeypatch.setattr(evaluate, "identify", lambda path: published)
    result = evaluate.test(str(weights), Asked(data=str(images)))
    assert result["published"] == {
        "name": "official/res2net50_26w_4s",
        "top1": published.top1 / 100,
        "top5": published.top5 / 100,
        "measured_by": "authors",
        "comparable": False,
    }
    assert main(["test", str(weights), "--data", str(images)]) == 0
    assert "top-1 77.99%  top-5 93.85%" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"labels": "x.txt"}, "--labels x.txt: names labels of --data DIR"),
        ({"per_class": "x.txt"}, "the suffix says the form"),
        ({"confusion": "nowhere/x.png"}, "there is no folder 'nowhere'"),
        ({"real": "missing.json", "data": "images"}, "missing.json"),
    ],
)
def test_bad_requests(tmp_path, monkeypatch, weights, images, asked, message) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        evaluate.test(str(weights), Asked(**asked))
