"""The lines that `res2net test` prints."""

from res2net.cli.test import _lines


def test_one_image_is_not_images():
    result = {
        "model": "net",
        "checkpoint": "last",
        "split": "val",
        "top1": 1.0,
        "top5": 1.0,
        "loss": 0.5,
        "images": 1,
        "images_per_second": 3.0,
        "preprocessing": {"image_size": 32, "crop_fraction": 1.0, "interpolation": "bilinear"},
        "flip": False,
        "ema": False,
        "recalibrated_on": 0,
        "balanced": 1.0,
        "published": None,
        "excluded": 1,
        "real": {"top1": 1.0, "images": 1},
        "confusions": [],
    }
    first, _, left_out, real = _lines(result)
    assert first.endswith("  1 image, 3 images/s")
    assert left_out == "left out: 1 image that cannot be decoded"
    assert real.endswith(" of 1 image with labels")
    *_, left_out, real = _lines(result | {"excluded": 1000, "real": {"top1": 1.0, "images": 2}})
    assert left_out == "left out: 1,000 images that cannot be decoded"
    assert real.endswith(" of 2 images with labels")
