"""An image of any source as people see it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from res2net.data.sources.in_memory import ArraySource
from res2net.data.tile import tile
from res2net.plots.tiles import SIDE
from samples import encoded, photo


def pixels(images: np.ndarray) -> ArraySource:
    labels = np.zeros(len(images), dtype=np.int64)
    return ArraySource(origin="x", class_names=("a",), labels=labels, images=images)


def test_small_pixels_are_to_be_seen() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    shown = np.asarray(tile(pixels(images), 2))
    assert np.array_equal(shown, images[2].repeat(SIDE // 8, axis=0).repeat(SIDE // 8, axis=1))


def test_large_images_in_memory_are_made_smaller() -> None:
    image = np.asarray(photo(size=(400, 400)))
    shown = np.asarray(tile(pixels(image[None]), 0), dtype=int)
    expected = np.asarray(photo(size=(SIDE, SIDE)), dtype=int)
    assert shown.shape == (SIDE, SIDE, 3)
    assert np.abs(shown - expected).mean() < 4


def test_files_are_cut_as_for_evaluation_and_paths_are_read(tmp_path: Path) -> None:
    image = photo(size=(400, 300))
    held = np.frombuffer(encoded(image), dtype=np.uint8)
    (tmp_path / "image.png").write_bytes(held.tobytes())
    name = np.frombuffer(str(tmp_path / "image.png").encode(), dtype=np.uint8)
    files: Any = SimpleNamespace(holds="files", read=lambda indices: [held])
    paths: Any = SimpleNamespace(holds="paths", read=lambda indices: [name])
    shown = np.asarray(tile(files, 0), dtype=int)
    side = 300 * 0.875
    box = (200 - side / 2, 150 - side / 2, 200 + side / 2, 150 + side / 2)
    cut = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box)
    assert np.abs(shown - np.asarray(cut, dtype=int)).max() <= 2
    assert np.array_equal(shown, np.asarray(tile(paths, 0)))


def test_what_cannot_be_read_is_an_empty_tile() -> None:
    broken: Any = SimpleNamespace(holds="files", read=lambda indices: [np.zeros(9, np.uint8)])
    assert np.unique(tile(broken, 0)).tolist() == [0xDD]
