"""The weights that come with the package: what is told of them is so, and their image is ours."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

import res2net
from res2net.models.variants import VARIANTS
from res2net.weights.catalog import resolve
from res2net.weights.read import read_weights
from res2net.weights.shipped import SAMPLE, SHIPPED
from res2net.zoo import open_model

# One hexadecimal number a pixel, 0 to 15: a 3, drawn for this project.
DRAWN = """
..5AB6..
.CF9BF3.
.42..FA.
...7DF3.
...5CF9.
......F7
.7..4EF4
.4DFFD6.
"""


def drawn() -> np.ndarray:
    """uint8 (8, 8)."""
    rows = [[int(digit.replace(".", "0"), 16) for digit in row] for row in DRAWN.split()]
    return 17 * np.array(rows, dtype=np.uint8)


def test_the_sample_is_the_drawing() -> None:
    with Image.open(SAMPLE) as image:
        np.testing.assert_array_equal(np.asarray(image), drawn())
    assert SAMPLE.stat().st_size < 500


def test_files_are_small_and_say_what_the_table_says() -> None:
    package = Path(res2net.__file__).parent
    for shipped in SHIPPED.values():
        assert shipped.path.is_relative_to(package)  # so that the wheel has it
        assert shipped.path.stat().st_size < 1_000_000
        weights = read_weights(shipped.path)
        assert weights.model == shipped.variant in VARIANTS
        assert weights.config is not None
        assert weights.config["run"]["seed"] == shipped.seed
        assert weights.config["run"]["dir"] == "checkpoints"  # nobody's own folder
        card = shipped.path.with_suffix(".md").read_text()
        assert f"{shipped.path.stat().st_size:,} bytes" in card
        for said in (shipped.licence, shipped.command, f"seed {shipped.seed}"):
            assert said in card
        assert f"| top-1 | {shipped.top1} % of the {shipped.images} images" in card


def test_the_name_is_a_model_and_weights() -> None:
    (name,) = SHIPPED
    expected = read_weights(SHIPPED[name].path).state_dict
    networks = [
        open_model(name)[0],
        res2net.create_model(name),
        res2net.create_model("res2net20_cifar", weights=name),
        res2net.Predictor(name, device="cpu").model,
    ]
    for network in networks:
        given = network.state_dict()
        assert all(torch.equal(given[key], value) for key, value in expected.items())
    assert resolve(name, "res2net20_cifar") == SHIPPED[name].path


def test_the_measured_accuracy_is_that_of_the_file() -> None:
    """By PyTorch and scikit-learn alone: no loader of this project."""
    from sklearn.datasets import load_digits

    from res2net.data.sources.in_memory import open_digits

    (shipped,) = SHIPPED.values()
    _, aside = open_digits(0, None)
    assert len(aside) == shipped.images
    every = np.rint(load_digits().images * (255 / 16))
    known = {image.tobytes() for image in every.astype(np.uint8)}
    assert all(image[..., 0].tobytes() in known for image in aside.images)
    images = torch.tensor(aside.images).permute(0, 3, 1, 2).float() / 255
    images = torch.nn.functional.interpolate(images, 16, mode="bilinear", antialias=True)
    with torch.inference_mode():
        logits = open_model(shipped.name)[0].eval()((images - 0.5) / 0.5)
    right = (logits.argmax(dim=1) == torch.tensor(aside.labels)).double().mean().item()
    assert 100 * right == 100 * 357 / 360
    assert round(100 * right, 2) == shipped.top1


def test_the_sample_is_taken_for_a_3() -> None:
    prediction = res2net.Predictor("res2net_digits", device="cpu")(SAMPLE)
    assert prediction.label == "3"
    assert prediction.score > 0.6
