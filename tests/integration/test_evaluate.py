"""`res2net test` against a loop over the images, and what it tells besides."""

import csv
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from res2net.callbacks.evaluation_bar import EvaluationBar
from res2net.cli.main import main
from res2net.config.load import from_dict
from res2net.data.datamodule import ImageDataModule
from res2net.data.order import permutation
from res2net.errors import InputError, WorkError
from res2net.training.data import open_data
from res2net.training.evaluation import test as evaluation
from res2net.training.evaluation.evaluate import FlipAverage
from res2net.training.evaluation.test import Asked
from res2net.weights.catalog import CATALOG
from res2net.zoo import open_model
from runs import Run
from samples import NAMES, PREPROCESSING, photo, save_network, small_network
from schemas import fits

pytestmark = pytest.mark.usefixtures("undrawn")

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
        return fits("test", capsys.readouterr().out)

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


def test_two_processes_say_the_same(command: Run, answer, weights, images, tmp_path) -> None:
    # in the second batches of ten one process has three images, the other nothing but padding
    asked = ("test", str(weights), "--data", str(images), "--batch-size", "10", "--per-class")
    two = json.loads(command(*asked, "two.csv", "--devices=2", "--json").stdout)
    one = answer(*asked[1:], str(tmp_path / "one.csv"), "--devices=1")
    for result in (one, two):
        del result["images_per_second"]
    assert one["images"] == COUNT
    assert one.pop("loss") == pytest.approx(two.pop("loss"), rel=1e-6)
    assert one == two
    assert (tmp_path / "one.csv").read_text() == (tmp_path / "two.csv").read_text()


def test_files_that_cannot_be_decoded_are_left_out_if_so_asked(answer, weights, images) -> None:
    (images / NAMES[3] / "bad.png").write_bytes(b"not an image")
    with pytest.raises(WorkError, match=r"bad.png cannot be decoded: .* with --skip-corrupt$"):
        evaluation.test(str(weights), Asked(data=str(images)))
    whole = answer(str(weights), "--data", str(images), "--skip-corrupt")
    assert (whole["images"], whole["excluded"]) == (COUNT, 1)
    (images / NAMES[3] / "bad.png").unlink()
    clean = answer(str(weights), "--data", str(images))
    for key in ("top1", "top5", "confusions"):
        assert whole[key] == clean[key]


def test_statistics_of_bn_can_be_taken_anew_from_training_images(
    answer, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "quickstart", "trainer.max_epochs=2"]) == 0
    capsys.readouterr()
    file = "checkpoints/quickstart/last.ckpt"
    trained = answer(file)
    checkpoint = torch.load(file, weights_only=True)
    for key, value in checkpoint["state_dict"].items():
        if "running_" in key:
            value.mul_(20).add_(3)
    torch.save(checkpoint, "broken.ckpt")
    broken = answer("broken.ckpt")
    mended = answer("broken.ckpt", "--recalibrate-bn", "1000", "--batch-size", "100")
    assert mended["recalibrated_on"] == 1000 and broken["recalibrated_on"] == 0
    assert broken["top1"] < 0.3 < 0.8 < mended["top1"]
    assert mended["top1"] > trained["top1"]  # which lag behind the weights after two epochs

    model, read = open_model("broken.ckpt")
    train, val = open_data(from_dict(read.config).data)
    some = permutation(len(train), seed=0, epoch=0)[:1000]
    views = ImageDataModule(None, train.subset(some), preprocessing=read.preprocessing)
    stream = views.open_val_stream(1, 0, torch.device("cpu"))
    batches = [views.finish(next(stream)[0], training=False) for _ in range(16)]
    seen = torch.cat(batches)[:1000].split(100)
    torch.optim.swa_utils.update_bn(seen, model)
    views = ImageDataModule(None, val, preprocessing=read.preprocessing)
    stream = views.open_val_stream(1, 0, torch.device("cpu"))
    with torch.inference_mode():
        chosen = [
            model.eval()(views.finish(next(stream)[0], training=False)).argmax(1) for _ in range(6)
        ]
    right = torch.cat(chosen)[: len(val)].numpy() == val.labels
    assert mended["top1"] == pytest.approx(right.mean(), abs=0.003)  # an image of 360
    for arguments, why in (
        (["broken.ckpt", "--recalibrate-bn", "63"], "takes full batches of 64 images"),
        (["broken.ckpt", "--recalibrate-bn", "x"], "'x' is not an integer from "),
    ):
        assert main(["test", *arguments]) == 2
        assert why in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it_as_they_end_other_verbs(
    weights, images, number, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(
        EvaluationBar, "on_validation_batch_end", lambda *_: os.kill(os.getpid(), number)
    )
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, number)}
    if number != signal.SIGINT:
        signal.signal(number, signal.SIG_DFL)  # by nohup it is ignored
    try:
        assert main(["test", str(weights), "--data", str(images)]) == 128 + number
    finally:
        for each, handler in before.items():  # Lightning ignores Ctrl-C from then on
            signal.signal(each, handler)
    ends = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    out, err = capsys.readouterr()
    assert (out, err.strip()) == ("", ends)


def test_batches_are_not_filled_up_with_nothing_but_padding(weights, images, monkeypatch) -> None:
    taken = []

    def evaluate(*arguments, batch_size: int, **options):
        taken.append(batch_size)
        raise WorkError("enough")

    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    for asked in (8, None, 65, 10**6):
        with pytest.raises(WorkError, match="enough"):
            evaluation.test(str(weights), Asked(data=str(images), batch_size=asked))
    assert taken == [8, 64, 64, 64]  # of 23 images


def test_a_network_that_says_nothing_fails(tmp_path, images) -> None:
    network = small_network()
    network.head.fc.weight.data.fill_(torch.nan)
    broken = save_network(network, tmp_path / "nan.pth")
    with pytest.raises(WorkError, match=r"nan.pth: the network's output is not finite"):
        evaluation.test(str(broken), Asked(data=str(images)))


def test_published_files_are_told_and_compared_only_like_with_like(
    weights, images, monkeypatch, capsys
) -> None:
    published = CATALOG["official/res2net50_26w_4s"]
    monkeypatch.setattr(evaluation, "identify", lambda path: published)
    result = evaluation.test(str(weights), Asked(data=str(images)))
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
        evaluation.test(str(weights), Asked(**asked))
