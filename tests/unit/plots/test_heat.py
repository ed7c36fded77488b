"""Heat over images: cold places stay, hot ones glow."""

import numpy as np
from PIL import Image

from res2net.plots.heat import enlarged, overlay, save_side_by_side


def test_cold_places_stay_and_hot_ones_glow():
    pixels = np.full((224, 224, 3), 90, np.uint8)
    heat = np.zeros((224, 224), np.float32)
    np.testing.assert_array_equal(overlay(pixels, heat, 448), np.full((448, 448, 3), 90))
    heat[:, :100] = 1
    picture = np.asarray(overlay(pixels, heat, 448)).astype(int)
    assert (picture[:, 230:] == 90).all()
    red, green, blue = picture[:, :180].transpose(2, 0, 1)
    assert (red > green + 60).all()
    assert (red > blue + 60).all()


def test_small_images_show_their_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(
        enlarged(pixels, 448), pixels.repeat(56, axis=0).repeat(56, axis=1)
    )
    large = np.zeros((224, 224, 3), np.uint8)
    large[:, 112:] = 255
    assert len(np.unique(np.asarray(enlarged(large, 448)))) > 2  # smooth


def test_side_by_side(tmp_path):
    colors = ("red", "blue")
    pictures = [Image.new("RGB", (30, 20), color) for color in colors]
    save_side_by_side(pictures, tmp_path / "both.png")
    both = Image.open(tmp_path / "both.png")
    assert both.size == (72, 20)
    assert [both.getpixel((x, 5)) for x in (29, 35, 42)] == [
        (255, 0, 0),
        (255, 255, 255),
        (0, 0, 255),
    ]
