"""A trained run as a file for other programs, by the command."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from res2net.data.sources.in_memory import open_digits
from res2net.export.source import open_source
from res2net.inference.predictor import Predictor
from runs import Run
from samples import photo, save_network, small_network


def test_onnx_gives_the_scores_of_predict(command: Run, tmp_path: Path) -> None:
    """With what the file says of its preprocessing, and nothing else of this project."""
    save_network(small_network(), tmp_path / "run" / "last.ckpt")
    photo(3, (70, 50)).save(tmp_path / "a.png")
    done = command("export", "run", "--to", "onnx", "--out", "a.onnx")
    assert "a.onnx: res2net20_cifar, 10 classes" in done.stdout and done.stderr == ""
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"))
    said = session.get_modelmeta().custom_metadata_map
    how = json.loads(said["preprocessing"])
    image = Image.open(tmp_path / "a.png")
    short, side = how["resize_short_side"], how["center_crop"]
    width = round(image.width * short / image.height)
    left = round((width - side) / 2)
    image = image.resize((width, short), Image.Resampling.BILINEAR)
    pixels = np.array(image.crop((left, 0, left + side, side)))
    images = ((pixels / 255 - how["mean"]) / how["std"]).astype(np.float32).transpose(2, 0, 1)
    logits = session.run(None, {"images": images[None]})[0][0]
    scores = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    expected = Predictor(tmp_path / "run")(tmp_path / "a.png", topk=10)
    found = dict(zip(json.loads(said["class_names"]), scores, strict=True))
    for label, score in expected.topk:
        assert abs(found[label] - score) <= 0.02


@pytest.mark.soak
def test_int8_on_the_test_set_of_the_quickstart(command: Run, tmp_path: Path) -> None:
    command("train", "quickstart")
    run = tmp_path / "checkpoints" / "quickstart"
    for split, source in zip(("train", "val"), open_digits(0, None), strict=True):
        (tmp_path / split).mkdir()
        for number, pixels in enumerate(source.images):
            Image.fromarray(pixels).save(tmp_path / split / f"{number:04}.png")
    arguments = ["--int8", "--calibrate", "train", "--check", "val", "--input", "uint8", "--json"]
    done = command("export", str(run), "--to", "onnx", "--out", "a.onnx", *arguments)
    result = json.loads(done.stdout)
    assert result["images"] == 360 and result["same_top1"] >= 0.99
    transform = open_source(run).preprocessing.transform()
    files = sorted((tmp_path / "val").iterdir())
    pixels = np.stack([transform(Image.open(file)).numpy() for file in files])
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"))
    labels = open_digits(0, None)[1].labels
    assert (session.run(None, {"images": pixels})[0].argmax(1) == labels).mean() >= 0.97
