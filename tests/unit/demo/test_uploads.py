"""Uploads: what is kept, how much of it and for how long; and what a decoder may cost."""

import asyncio
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from broken_files import jpeg_of_size, png_of_size
from images_that_cost import many_scans
from res2net.demo import decoding, uploads
from res2net.demo.decoding import FORMATS, decode, main
from res2net.demo.uploads import Uploads
from res2net.inference.images import read_image
from res2net.weights.shipped import SAMPLE
from samples import encoded, photo

Clock = list[float]


@pytest.fixture
def clock() -> Clock:
    return [0.0]


@pytest.fixture
def kept(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Uploads:
    """Uploads whose images are decoded by nobody: two bytes each, and the same again as pixels."""

    async def two_bytes(file: Path, pixels: Path, seconds: int) -> tuple[str, str]:
        pixels.write_bytes(file.read_bytes())
        return "image/png", ""

    monkeypatch.setattr(uploads, "decode", two_bytes)
    return Uploads(tmp_path, lambda: clock[0])


def add(kept: Uploads, *names: str) -> list[str]:
    async def all_of_them() -> list[str]:
        return [await kept.add(name, io.BytesIO(b"ab")) for name in names]

    return asyncio.run(all_of_them())


def test_images_are_gone_after_an_hour(kept: Uploads, clock: Clock, tmp_path: Path) -> None:
    first, second = add(kept, "a.png", "b.png")
    clock[0] = 3599
    (third,) = add(kept, "c.png")
    assert all(kept.get(each) for each in (first, second, third))
    clock[0] = 3600
    kept.forget()
    assert [kept.get(each) is None for each in (first, second, third)] == [True, True, False]
    assert sorted(each.name for each in tmp_path.iterdir()) == [third, f"{third}.ppm"]


@pytest.mark.parametrize(("limit", "most"), [("_KEPT_FILES", 3), ("_KEPT_BYTES", 12)])
def test_of_too_many_the_oldest_go(
    kept: Uploads, tmp_path: Path, limit: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, limit, most)
    given = add(kept, *(f"{number}.png" for number in range(8)))
    assert [kept.get(each) is not None for each in given] == [False] * 5 + [True] * 3
    assert len(list(tmp_path.iterdir())) == 6


def test_names_lead_nowhere_and_are_text(kept: Uploads, tmp_path: Path) -> None:
    given = add(kept, "../../a\x1b.png", "C:\\x\\b.png", "", "/", "x" * 999)
    shown = [upload.name for each in given if (upload := kept.get(each))]
    assert shown == ["a\\x1b.png", "b.png", "the image", "the image", "x" * 100]
    for name in ("", ".", "..", "../x", str(tmp_path / given[0]), f"{given[0]}.ppm", "sample.png"):
        assert kept.get(name) is None
    assert len(set(given)) == 5 and all(len(each) == 22 for each in given)
    sample = kept.get(Uploads.SAMPLE)
    assert sample is not None and sample.file == SAMPLE


def test_the_pixels_are_those_that_every_use_sees(tmp_path: Path) -> None:
    file, pixels = tmp_path / "file", tmp_path / "pixels"
    image = photo(3, (64, 48))
    for kind in FORMATS:
        file.write_bytes(encoded(image, kind))
        assert asyncio.run(uploads.decode(file, pixels, 10)) == (f"image/{kind.lower()}", "")
        expected = read_image(file, source="")
        assert np.array_equal(np.asarray(read_image(pixels, source="")), np.asarray(expected))


def test_a_decoder_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    file, pixels = tmp_path / "file", tmp_path / "pixels"
    file.write_bytes(many_scans(6000, 6000, 10_000))
    assert file.stat().st_size < 2_000_000
    told = asyncio.run(uploads.decode(file, pixels, 1))
    assert told == ("", "takes longer than 1 seconds to decode")


def told(content: bytes, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What the decoder says of a file, in this process."""
    (folder / "file").write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "_spend_little", lambda seconds: None)
        patch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        patch.setattr("sys.argv", ["", str(folder / "file"), str(folder / "pixels"), "9"])
        code = main()
    line = capsys.readouterr().out.rstrip("\n")
    assert code == (0 if line.startswith("image/") else 1) and "\n" not in line
    return line


def test_what_is_refused_is_refused_by_its_header(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "to_rgb", lambda image: pytest.fail("was decoded"))
    many = "has 169,000,000 pixels, more than 64,000,000"
    for content in (png_of_size(13_000, 13_000), jpeg_of_size(13_000, 13_000)):
        assert told(content, tmp_path, capsys) == many
    header = bytearray(encoded(photo(3, (8, 8)), "BMP"))
    header[18:26] = (13_000).to_bytes(4, "little") * 2
    assert told(bytes(header), tmp_path, capsys) == many
    gif = bytearray(encoded(photo(3, (8, 8)), "GIF"))
    gif[6:10] = (65_535).to_bytes(2, "little") * 2
    assert told(bytes(gif), tmp_path, capsys) == "has 4,294,836,225 pixels, more than 64,000,000"
    # kinds whose decoders run other programs, or that no browser shows
    for kind in ("EPS", "TIFF", "JPEG2000", "PPM", "ICO", "PCX"):
        line = told(encoded(photo(3, (64, 64)), kind), tmp_path, capsys)
        assert line == "is no image in a known format: JPEG, PNG, WebP, GIF, BMP, AVIF", kind


def test_large_images_are_reduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "KEPT_PIXELS", 1000)
    (tmp_path / "file").write_bytes(encoded(photo(3, (96, 64)), "PNG"))
    small, _ = decode(str(tmp_path / "file"))
    assert small.size == (32, 22) and small.mode == "RGB"
