"""The evaluation crop on the CPU: what DALI makes of a file is what torchvision makes of it."""

import ctypes
import gc
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import torch
from matplotlib.cbook import get_sample_data
from PIL import Image

from res2net.data.dali.stream import Stream
from res2net.data.order import EvalOrder
from res2net.data.sources.folder import open_folder
from res2net.data.sources.in_memory import ArraySource
from res2net.data.sources.source import Source
from res2net.preprocessing import Preprocessing

# Photographs that installed packages ship: lying, lying, upright
SHIPPED = (
    *(
        Path(sklearn.datasets.__file__).parent / "images" / f"{name}.jpg"
        for name in ("china", "flower")
    ),
    Path(get_sample_data("grace_hopper.jpg", asfileobj=False)),
)
# (width, height): odd, upright and lying, larger and smaller than the crop, down to a few pixels
SIZES = [(500, 333), (375, 500), (255, 257), (301, 224), (90, 181), (640, 71), (53, 600), (41, 37)]

BILINEAR = [
    Preprocessing(size, fraction)
    for size in (160, 224, 288, 320)
    for fraction in (0.875, 0.95, 1.0)
] + [Preprocessing(96, 0.75), Preprocessing(33, 0.9), Preprocessing(32, 1.0)]
BICUBIC = [
    Preprocessing(size, fraction, "bicubic")
    for size, fraction in [(224, 0.875), (224, 0.95), (224, 1.0), (288, 0.95), (97, 0.95)]
]


def describe(preprocessing: Preprocessing) -> str:
    return f"{preprocessing.interpolation}-{preprocessing.image_size}-{preprocessing.crop_fraction}"


def photograph(index: int, size: tuple[int, int]) -> Image.Image:
    """The largest middle part of a shipped photograph with the ratio of `size`, in that size."""
    with Image.open(SHIPPED[index % len(SHIPPED)]) as file:
        width, height = min(file.width, file.height * size[0] / size[1]), float(file.height)
        height = min(height, width * size[1] / size[0])
        left, top = (file.width - width) / 2, (file.height - height) / 2
        box = (left, top, left + width, top + height)
        resized = file.resize(size, Image.Resampling.LANCZOS, box=box)
    resized.info.clear()  # a colour profile, of which the decoders warn
    return resized


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Source:
    root = tmp_path_factory.mktemp("photographs")
    for name in ("sizes", "kinds"):
        (root / name).mkdir()
    for path in SHIPPED:
        shutil.copy(path, root / "sizes")
    for index, size in enumerate(SIZES):
        photograph(index, size).save(root / "sizes" / f"{index}.jpg", quality=92)
    turned = Image.Exif()
    turned[0x0112] = 6  # "rotate by 90 degrees", which training sets' loaders do not
    lying, upright = photograph(0, (367, 243)), photograph(2, (243, 367))
    veiled = lying.copy()
    veiled.putalpha(lying.getchannel(0))
    for name, kind, options in [
        ("rgb.png", lying, {}),
        ("grey.png", lying.convert("L"), {}),
        ("palette.png", lying.convert("P"), {}),
        ("transparent.png", veiled, {}),
        ("grey.jpg", upright.convert("L"), {"quality": 92}),
        ("cmyk.jpg", upright.convert("CMYK"), {"quality": 95}),
        ("progressive.jpg", lying, {"quality": 90, "progressive": True}),
        ("not_subsampled.jpg", upright, {"quality": 95, "subsampling": 0}),
        ("half_subsampled.jpg", lying, {"quality": 95, "subsampling": 1}),
        ("turned.jpg", lying, {"quality": 92, "exif": turned}),
    ]:
        kind.save(root / "kinds" / name, **options)
    return open_folder(str(root))


@pytest.fixture(scope="module")
def imagenet_sample(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """100 files of ImageNet's, grey ones and some with EXIF among them."""
    folder = os.environ.get("RES2NET_IMAGENET_SAMPLE")
    if not folder:
        pytest.fail("RES2NET_IMAGENET_SAMPLE: set it to a folder of ImageNet's JPEG files")
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() == ".jpeg")
    assert len(files) >= 100, f"{folder}: {len(files)} JPEG files, not 100"
    root = tmp_path_factory.mktemp("imagenet")
    for index, file in enumerate(files):
        label = root / f"{index % 2}"
        label.mkdir(exist_ok=True)
        (label / file.name).symlink_to(file.resolve())
    return open_folder(str(root))


def crops(source: Source, preprocessing: Preprocessing) -> torch.Tensor:
    """DALI's, (len(source), 3, S, S)."""
    order = EvalOrder(len(source), batch_size=8)
    stream = Stream(source, order, preprocessing=preprocessing)
    batches = [next(stream)[0].clone() for _ in range(order.batches)]
    return torch.cat(batches)[: len(source)]


def compare(source: Source, preprocessing: Preprocessing) -> None:
    """Hold DALI's crop of each file to that of torchvision on the PIL image."""
    transform = preprocessing.transform()
    for index, ours in enumerate(crops(source, preprocessing)):
        path = source.path(index)
        with Image.open(path) as file:
            theirs = transform(file)
        assert ours.shape == theirs.shape
        off = (ours.int() - theirs.int()).abs()
        with_rim = preprocessing.crop_fraction == 1
        if preprocessing.interpolation == "bilinear":
            # Pillow leaves out what lies beyond the rim of the picture, DALI repeats the last pixel
            off = off[:, 1:-1, 1:-1] if with_rim else off
            assert off.max() <= 1, path
        else:
            assert (off <= 2).float().mean() >= 0.999, path
            assert with_rim or off.max() <= 3, path
        assert off.float().mean() <= 0.3, path


@pytest.mark.parametrize("preprocessing", BILINEAR + BICUBIC, ids=describe)
def test_the_pixels_are_those_of_torchvision(
    photographs: Source, preprocessing: Preprocessing
) -> None:
    compare(photographs, preprocessing)


@pytest.mark.parametrize(
    "preprocessing",
    [Preprocessing(), Preprocessing(224, 1.0), Preprocessing(224, 0.95, "bicubic")],
    ids=describe,
)
def test_the_pixels_of_strips_are_those_of_torchvision(
    tmp_path: Path, preprocessing: Preprocessing
) -> None:
    """Longer than `graph.LONG`, smaller and larger than the crop."""
    (tmp_path / "strips").mkdir()
    sizes = [(20_000, 100), (100, 20_000), (3_001, 283), (301, 3_333), (9_000, 700)]
    for index, (width, height) in enumerate(sizes):
        small = photograph(index, (max(width // 10, 1), max(height // 10, 1)))
        strip = small.resize((width, height), Image.Resampling.BICUBIC)
        strip.save(tmp_path / "strips" / f"{index}.png")
    compare(open_folder(str(tmp_path)), preprocessing)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_strip_is_not_resized_whole(tmp_path: Path, interpolation: str) -> None:
    """20,000 x 8 pixels with a short side of 256 are 640,000 x 256: 0.5 GB."""
    (tmp_path / "a").mkdir()
    photograph(0, (256, 256)).save(tmp_path / "a/0.png")
    photograph(0, (20_000, 8)).save(tmp_path / "a/1.png")
    source = open_folder(str(tmp_path))
    preprocessing = Preprocessing(interpolation=interpolation)
    square, strip = (source.subset(np.array([index])) for index in (0, 1))
    crops(square, preprocessing)  # what DALI takes once
    release_free_memory()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    before = memory("VmRSS")
    crops(strip, preprocessing)
    assert memory("VmHWM") - before < 100


def release_free_memory() -> None:
    """Give back what earlier tests took: taken again it would not count."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def memory(what: str) -> float:
    """MB of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{what}:")[2].split()[0]) / 1000


@pytest.mark.soak
@pytest.mark.parametrize("preprocessing", BILINEAR + BICUBIC, ids=describe)
def test_the_pixels_of_imagenet_are_those_of_torchvision(
    imagenet_sample: Source, preprocessing: Preprocessing
) -> None:
    compare(imagenet_sample, preprocessing)


@pytest.mark.parametrize("size", [16, 28])
def test_the_pixels_of_arrays_are_those_of_torchvision(size: int) -> None:
    arrays = np.stack([np.asarray(photograph(index, (24, 24))) for index in range(3)])
    source = ArraySource("test/train", tuple("abc"), np.arange(3), arrays)
    preprocessing = Preprocessing(size, 0.875)
    for ours, pixels in zip(crops(source, preprocessing), arrays, strict=True):
        theirs = preprocessing.transform()(Image.fromarray(pixels))
        assert (ours.int() - theirs.int()).abs().max() <= 1


def test_decoded_pixels_are_pillow_s_to_the_bit(photographs: Source) -> None:
    """A crop of the size that a file has already is the file, decoded."""
    assert len(photographs) == len(SHIPPED) + len(SIZES) + 10
    for index in range(len(photographs)):
        with Image.open(photographs.path(index)) as file:
            preprocessing = Preprocessing(min(file.size), 1.0)
            theirs = preprocessing.transform()(file)
        alone = photographs.subset(np.array([index]))
        (ours,), _ = next(Stream(alone, EvalOrder(1, 1), preprocessing=preprocessing))
        assert torch.equal(ours, theirs), photographs.path(index)
