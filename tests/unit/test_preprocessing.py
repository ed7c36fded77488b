"""The one description of what is done to an image: sizes, torchvision's form, normalisation."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as TF

from res2net.errors import InputError
from res2net.preprocessing import Preprocessing


@pytest.mark.parametrize(
    ("image_size", "crop_fraction", "resize_size"),
    [(224, 0.875, 256), (32, 1.0, 32), (224, 0.95, 235), (299, 0.875, 341), (160, 0.9, 177)],
)
def test_the_short_side_is_truncated_as_timm_does(
    image_size: int, crop_fraction: float, resize_size: int
) -> None:
    assert Preprocessing(image_size, crop_fraction).resize_size == resize_size


def test_the_defaults_are_those_of_the_published_figures() -> None:
    default = Preprocessing()
    assert (default.resize_size, default.image_size, default.interpolation) == (
        256,
        224,
        "bilinear",
    )
    assert default.mean == (0.485, 0.456, 0.406) and default.std == (0.229, 0.224, 0.225)


def test_it_goes_through_json_and_back() -> None:
    described = Preprocessing(97, 0.9, "bicubic", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert Preprocessing.from_dict(json.loads(json.dumps(described.to_dict()))) == described


def test_a_description_that_lacks_something_is_refused() -> None:
    for key in Preprocessing().to_dict():
        stored = Preprocessing().to_dict()
        del stored[key]
        with pytest.raises(KeyError, match=key):
            Preprocessing.from_dict(stored)


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("image_size", -1, "an integer from 1 to 4096"),
        ("image_size", 0, "an integer from 1 to 4096"),
        ("image_size", 32.5, "an integer from 1 to 4096"),
        ("image_size", "32", "an integer from 1 to 4096"),
        ("image_size", 4097, "an integer from 1 to 4096"),
        ("image_size", 10**9, "an integer from 1 to 4096"),
        ("image_size", True, "an integer from 1 to 4096"),
        ("mean", [0.5, 0.5, 1e4], "three numbers from -1000 to 1000"),
        ("std", [0.5, 0.5, 1e-9], "three numbers from 0.001 to 1000"),
        ("std", [True, True, True], "three numbers from 0.001 to 1000"),
        ("image_size", 10**400, "an integer from 1 to 4096"),
        ("crop_fraction", 0, "a number above 0 and up to 1"),
        ("crop_fraction", 1.01, "a number above 0 and up to 1"),
        ("crop_fraction", math.nan, "a number above 0 and up to 1"),
        ("interpolation", "nearest", "one of bilinear, bicubic"),
        ("interpolation", None, "one of bilinear, bicubic"),
        ("mean", [0.5, 0.5], "three numbers from -1000 to 1000"),
        ("mean", 0.5, "three numbers from -1000 to 1000"),
        ("mean", [0.5, 0.5, math.inf], "three numbers from -1000 to 1000"),
        ("std", [0.5, 0.5, 0.5, 0.5], "three numbers from 0.001 to 1000"),
        ("std", [0.5, 0.0, 0.5], "three numbers from 0.001 to 1000"),
        ("std", "abc", "three numbers from 0.001 to 1000"),
    ],
)
def test_values_without_sense_are_refused_at_once(field: str, value: Any, rule: str) -> None:
    shown = repr(value) if len(repr(value)) <= 100 else f"{repr(value)[:100]}..."
    message = f"preprocessing: {field}={shown}: expected {rule}"
    for make in (
        lambda: Preprocessing(**{field: value}),
        lambda: Preprocessing.from_dict(Preprocessing().to_dict() | {field: value}),
    ):
        with pytest.raises(InputError) as caught:
            make()
        assert str(caught.value) == message


@pytest.mark.parametrize("fraction", [1e-12, 5e-324, 0.0273])
def test_a_short_side_that_no_machine_resizes_to_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match=r"a short side of more than 8,192$"):
        Preprocessing(224, fraction)
    assert Preprocessing(224, 0.02735).resize_size == 8190


def test_what_makes_no_sense_is_told_at_once() -> None:
    with pytest.raises(InputError, match=r"image_size=0: .*; std=\[0, 0, 0\]: expected three"):
        Preprocessing(image_size=0, std=[0, 0, 0])  # type: ignore[arg-type]


def test_values_are_plain_numbers_and_tuples() -> None:
    given = Preprocessing(np.int64(32), 1, mean=[0, 0, 0], std=[np.float32(0.5)] * 3)  # type: ignore[arg-type]
    assert given == Preprocessing(32, 1.0, mean=(0.0, 0.0, 0.0), std=(0.5, 0.5, 0.5))
    assert json.loads(json.dumps(given.to_dict())) == given.to_dict()
    zeros = torch.tensor([0.0, 0.0, 0.0])
    assert Preprocessing(32.0, 1, mean=zeros, std=np.full(3, 0.5)) == given  # type: ignore[arg-type]
    assert given.normalise(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)).unique().item() == 2


@pytest.mark.parametrize(("height", "width"), [(300, 501), (401, 260), (30, 20), (256, 256)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_transform_is_resize_and_centre_crop(
    height: int, width: int, interpolation: str
) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    found = Preprocessing(interpolation=interpolation).transform()(image)
    short = min(height, width)
    size = (256 * width // short, 256 * height // short)
    resampling = Image.Resampling[interpolation.upper()]
    resized = TF.pil_to_tensor(image.resize(size, resampling))
    assert found.shape == (3, 224, 224) and found.dtype == torch.uint8
    assert torch.equal(found, TF.center_crop(resized, [224, 224]))


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = Image.linear_gradient("L").convert(mode)
    found = Preprocessing(32).transform()(image)
    assert torch.equal(found, Preprocessing(32).transform()(image.convert("RGB")))
    assert found.float().std() > 10


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_normalising_is_the_textbooks_and_keeps_the_memory_format(
    memory_format: torch.memory_format,
) -> None:
    described = Preprocessing(mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 1.0))
    images = torch.arange(256, dtype=torch.uint8).repeat(6).view(2, 3, 16, 16)
    images = images.contiguous(memory_format=memory_format)
    before = images.clone()
    found = described.normalise(images)
    expected = TF.normalize(images.double() / 255, list(described.mean), list(described.std))
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=memory_format)
    assert images.dtype == torch.uint8 and torch.equal(images, before)
