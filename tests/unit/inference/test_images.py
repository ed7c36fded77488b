"""Images of every kind as the same pixels, in order, and those that cannot be read."""

import io
import itertools
import os
import socket
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from res2net.errors import InputError
from res2net.inference.images import is_one_image, name_images, read_batches, read_image
from samples import PREPROCESSING, encoded, photo

# --- Images of all kinds -------------------------------------------------------------------------


def test_modes_become_rgb():
    image = photo(3)
    grey = np.asarray(image.convert("L"))
    transparent = image.convert("RGBA")
    transparent.putalpha(Image.fromarray(grey))
    for name, given, expected in [
        ("RGBA keeps the colours under transparency", transparent, image),
        ("LA", transparent.convert("LA"), image.convert("L")),
        ("L", image.convert("L"), image.convert("L")),
        ("P", image.quantize(16), image.quantize(16)),
        ("CMYK", image.convert("CMYK"), image.convert("CMYK")),
        ("1", image.convert("1"), image.convert("1")),
        ("grey array", grey, image.convert("L")),
        ("PNG", encoded(transparent), image),
        ("open file", io.BytesIO(encoded(image)), image),
        ("bytearray", bytearray(encoded(image)), image),
        ("memoryview", memoryview(encoded(image)), image),
        ("tensor", torch.tensor(np.asarray(image)).permute(2, 0, 1), image),
        ("grey tensor", torch.tensor(grey)[None], image.convert("L")),
    ]:
        found = read_image(given, source="it")
        assert found.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected.convert("RGB")), name)


@pytest.mark.filterwarnings("error")
def test_a_transparent_palette_does_not_warn():
    image = photo(3).quantize(16)
    image_file = encoded(image, transparency=bytes([0, 128]))
    found = read_image(image_file, source="it")
    np.testing.assert_array_equal(np.asarray(found), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PGM"])
def test_16_bits_are_scaled(form):
    grey = np.linspace(0, 65535, 48 * 40).astype(np.uint16).reshape(40, 48)
    if form == "PGM":
        file = b"P5\n48 40\n65535\n" + grey.astype(">u2").tobytes()
    else:
        file = encoded(Image.fromarray(grey), form)
    found = np.asarray(read_image(file, source="it"))
    np.testing.assert_array_equal(found[..., 0], np.round(grey / 257).astype(np.uint8))
    np.testing.assert_array_equal(found[..., 1], found[..., 2])


def test_exif_rotation_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    found = read_image(encoded(photo(4, (48, 40)), "JPEG", exif=exif), source="it")
    assert found.size == (48, 40)


def test_an_open_file_can_be_read_again():
    file = io.BytesIO(encoded(photo(3)))
    sizes = [read_image(file, source="it").size for _ in range(2)]
    assert sizes == [photo(3).size] * 2


# --- What cannot be read -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"no image", "is no image in a known format"),
        (encoded(photo(0), "JPEG")[:400], "Truncated"),
        (encoded(photo(0))[:200], "truncated"),
        (encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "floating-point"),
        (np.zeros((3, 8, 8), np.uint8), r"an array of uint8 \(3, 8, 8\); expected uint8 \(H, W"),
        (np.zeros((8, 8, 3)), "an array of float64"),
        (torch.zeros(3, 8, 8), r"a tensor of float32 \(3, 8, 8\); expected uint8 \(3, H, W\)"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), "a tensor of uint8"),
        (io.StringIO("text"), "opened as text; open it with mode 'rb'"),
        (np.zeros((2, 8, 8, 3), np.uint8), "an array of uint8"),
        (np.full((8, 8), 70000, np.int32), "an array of int32"),
        (Image.fromarray(np.full((8, 8), 70000, np.int32)), "32 bits"),
        (np.zeros((0, 8, 3), np.uint8), r"has no pixels \(8 x 0\)"),
        (np.zeros((8, 0), np.uint8), r"has no pixels \(0 x 8\)"),
        (torch.zeros(3, 8, 0, dtype=torch.uint8), r"has no pixels \(0 x 8\)"),
        (Image.new("RGB", (0, 8)), r"has no pixels \(0 x 8\)"),
        (
            None,
            "None is of type NoneType; expected a path, the bytes of a file, an open file, a PIL",
        ),
        (3.5, "3.5 is of type float; expected"),
        ({"image": 1}, "{'image': 1} is of type dict; expected"),
        (["a.png"], r"\['a.png'\] is of type list; expected"),
        ("/dev/zero", "is no regular file"),
    ],
)
def test_unreadable_images_are_named(image, reason):
    with pytest.raises(InputError, match=f"^the third: .*{reason}"):
        read_image(image, source="the third")


@pytest.mark.parametrize("images", [None, 3, 2.5, {"a.png": 1}])
def test_what_is_no_image_and_no_list_of_them(images):
    with pytest.raises(InputError, match=rf"images: {images} is of type .*; expected .*or a list"):
        list(name_images(images))


def test_nobody_waits_for_a_pipe_or_a_socket(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.png"))
        for name in ("pipe.png", "socket.png"):
            with pytest.raises(InputError, match=rf"{name}: is no regular file"):
                read_image(tmp_path / name, source=name)


# --- Batches -------------------------------------------------------------------------------------


def batches(images, batch_size=4, on_unreadable=None):
    return read_batches(
        name_images(images),
        PREPROCESSING.transform(),
        batch_size=batch_size,
        on_unreadable=on_unreadable,
    )


def test_batches_in_order_and_full_but_the_last():
    images = [photo(seed) for seed in range(10)]
    found = list(batches([*images[:3], b"bad", *images[3:]], on_unreadable=lambda error: None))
    assert [len(names) for names, _ in found] == [4, 4, 2]
    assert [name for names, _ in found for name in names] == [
        f"image {number} of the list" for number in (1, 2, 3, 5, 6, 7, 8, 9, 10, 11)
    ]
    transform = PREPROCESSING.transform()
    expected = torch.stack([transform(image) for image in images])
    assert torch.equal(torch.cat([pixels for _, pixels in found]), expected)
    assert expected.dtype == torch.uint8


def test_two_batches_are_read_ahead_and_no_more():
    taken = []
    endless = (taken.append(number) or photo(0) for number in itertools.count())
    stream = batches(endless)
    next(stream)
    assert 4 + 4 < len(taken) <= 4 + 2 * 4
    stream.close()


def test_who_stops_does_not_wait_for_what_was_read_ahead():
    held, read = threading.Event(), []

    def transform(image):  # the images' widths count them
        if image.width > 40:
            held.wait()
        read.append(image)
        return torch.zeros(3, 2, 2, dtype=torch.uint8)

    images = name_images(Image.new("RGB", (number, 1)) for number in range(1, 1000))
    stream = read_batches(images, transform, batch_size=40, on_unreadable=None)
    next(stream)
    threading.Timer(0.1, held.set).start()
    stream.close()
    assert len(read) <= 40 + 8  # what the threads were at, not all 120 that were to be read


def test_names(tmp_path):
    assert list(name_images(tmp_path)) == [(str(tmp_path), tmp_path)]
    assert next(name_images(b"x")) == ("the image", b"x")
    assert [name for name, _ in name_images([b"x", "a.png"])] == ["image 1 of the list", "a.png"]
    assert is_one_image(io.BytesIO()) and is_one_image(torch.zeros(1))
    with (tmp_path / "b.png").open("wb+") as file:
        assert next(name_images([file]))[0] == str(tmp_path / "b.png")
    assert is_one_image("a.png") and is_one_image(np.zeros(1)) and not is_one_image(["a.png"])
