"""Files of full size as each publisher writes them, from a server to the same answers."""

import json
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from res2net import imagenet
from res2net.cli.main import main
from res2net.files.download import file_hash
from res2net.models.head import Res2NetClassifier
from res2net.preprocessing import Preprocessing
from res2net.weights.catalog import CATALOG
from res2net.weights.formats import from_ours
from res2net.weights.read import read_weights
from res2net.zoo import create_model

Answer = Callable[..., dict | list]

NAMES = list(imagenet.class_names().values())

# The files of one line hold the same random weights, each as its publisher writes them.
GROUPS = [
    ("official/res2net50_14w_8s", "timm/res2net50_14w_8s", "mmpretrain/res2net50_14w_8s"),
    ("paddle_ssld/res2net50_vd_26w_4s",),
]
MORE_GROUPS = [
    ("official/res2net_dla60", "timm/res2net_dla60"),
    ("official/res2net101_v1b_26w_4s", "timm/res2net101_v1b_26w_4s", "mmdet/res2net101_v1b_26w_4s"),
    ("paddle/res2net50_26w_4s_paddle",),
]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which its files can be had."""
    folder = tmp_path / "site"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> Answer:
    """Runs a command in this process and returns its JSON."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RES2NET_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str) -> dict | list:
        capfd.readouterr()
        code = main([*arguments, "--json"])
        said = capfd.readouterr()
        assert code == 0, said.err
        return json.loads(said.out)

    return run


def few_images(folder: Path) -> None:
    """Eight windows of two photographs, in folders named as ImageNet's classes."""
    ids = list(imagenet.class_names())
    for number in range(8):
        photograph = load_sample_images().images[number % 2]  # (427, 640, 3)
        window = photograph[20 * number :, 40 * number :]
        target = folder / ids[10 * number] / f"{number}.JPEG"
        target.parent.mkdir(parents=True)
        Image.fromarray(window).save(target, quality=92)


def sample_images(folder: Path) -> None:
    """The images of $RES2NET_IMAGENET_SAMPLE, called <id>_<name>.JPEG, in folders by id."""
    for path in sorted(Path(os.environ["RES2NET_IMAGENET_SAMPLE"]).glob("n*.JPEG")):
        target = folder / path.name.partition("_")[0] / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path)


def random_network(variant: str, images: Path) -> Res2NetClassifier:
    """Whose batch norms have seen eight of the images, so that the answers hang on the image."""
    torch.manual_seed(0)
    model = create_model(variant).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    preprocessing = Preprocessing()
    paths = sorted(images.glob("*/*.JPEG"))[:8]
    pixels = torch.stack([preprocessing.transform()(Image.open(path)) for path in paths])
    with torch.no_grad():
        model(preprocessing.normalise(pixels))
    return model


def write_as_published(path: Path, name: str, ours: dict[str, torch.Tensor]) -> None:
    """What the catalog's file `name` is: names of the keys, container, kind of file."""
    published = CATALOG[name]
    theirs = from_ours(ours, published.format)
    if published.source in ("paddle", "paddle_ssld"):
        arrays = {key: tensor.numpy() for key, tensor in theirs.items()}
        path.write_bytes(pickle.dumps(arrays, protocol=2))
    elif published.source == "timm":
        safetensors.torch.save_file(theirs, path)
    elif published.source == "mmpretrain":
        meta = {"epoch": 100, "CLASSES": None, "seed": np.int64(0), "time": "20210927"}
        torch.save({"state_dict": theirs, "meta": meta}, path)
    else:
        old = published.source == "official"  # as PyTorch wrote before 1.6
        torch.save(theirs, path, _use_new_zipfile_serialization=not old)


def check_all_files_agree(
    names: tuple[str, ...],
    images: Path,
    site: tuple[Path, str],
    answer: Answer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Download, check, convert, predict and evaluate each; all give the same."""
    folder, address = site
    variant = CATALOG[names[0]].variant
    model = random_network(variant, images)
    torch.save({"state_dict": model.state_dict()}, "ours.pth")
    first = answer("predict", variant, str(images), "--weights", "ours.pth")
    assert (
        len({image["score"] for image in first}) > len(first) // 2
    )  # the answer hangs on the image
    for image in first:  # our own file names no classes
        image["label"] = NAMES[int(image["label"])]
        for place in image["topk"]:
            place["label"] = NAMES[int(place["label"])]
    figures = []
    for name in names:
        published = CATALOG[name]
        assert published.variant == variant
        write_as_published(folder / published.file, name, model.state_dict())
        digest = file_hash(folder / published.file, "sha256")
        url = f"{address}/{published.file}"
        pinned = published.digest and digest[: len(published.digest)]
        monkeypatch.setitem(CATALOG, name, replace(published, url=url, digest=pinned))

        assert answer("predict", variant, str(images), "--weights", name) == first, name
        cached = Path("cache") / published.file
        converted = f"{published.source}.safetensors"
        said = answer("convert", str(cached), converted, "--to", "res2net")
        whose = said["from"].partition("/")[0]  # official/timm: two share these names
        assert (said["model"], whose) == (variant, published.format)
        kept = read_weights(converted)  # what is known of the published file is now said
        assert (kept.preprocessing, kept.licence) == (Preprocessing(), published.licence)
        figures.append(answer("test", converted, "--data", str(images), "--batch-size", "10"))
        (folder / published.file).unlink()  # the cache serves from now on
    # not in the 64 of a training's evaluation, to which a batch would be filled up
    asked = ("--weights", names[0], "--data", str(images), "--batch-size", "4")
    again = answer("test", variant, *asked)
    assert (again["published"] is None) == (CATALOG[names[0]].top1 is None)

    for figure in figures:
        assert figure["images"] == len(first)
        assert [figure[key] for key in ("top1", "top5", "loss")] == pytest.approx(
            [again[key] for key in ("top1", "top5", "loss")], rel=1e-6
        )


@pytest.mark.parametrize("names", GROUPS, ids=lambda names: names[0].partition("/")[2])
def test_every_published_format_gives_the_same_answers(
    names, tmp_path, site, answer, monkeypatch
) -> None:
    few_images(tmp_path / "images")
    check_all_files_agree(names, tmp_path / "images", site, answer, monkeypatch)


@pytest.mark.soak
@pytest.mark.parametrize(
    "names", GROUPS + MORE_GROUPS, ids=lambda names: names[0].partition("/")[2]
)
def test_the_same_on_real_imagenet_images(names, tmp_path, site, answer, monkeypatch) -> None:
    sample_images(tmp_path / "images")
    check_all_files_agree(names, tmp_path / "images", site, answer, monkeypatch)
