"""Which images are meant."""

from pathlib import Path

import pytest

from res2net.cli.images import find_images
from res2net.errors import InputError


def test_folders_are_searched_as_data_sets_are(tmp_path):
    kept = ["a.png", "b.tiff", "c/d.JPEG", "c/e/f.webp", "linked/h.png"]
    other = tmp_path / "elsewhere"
    root = tmp_path / "root"
    for name in [*kept, "c/notes.txt", ".hidden.png", ".git/g.png"]:
        path = other / "h.png" if name.startswith("linked") else root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (root / "linked").symlink_to(other)
    (root / "c/circle").symlink_to(root)
    assert find_images([str(root)]) == [str(root / name) for name in kept]


def test_files_are_taken_as_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("z.unknown", "a.png"):
        Path(name).touch()
    assert find_images(["z.unknown", "a.png", "z.unknown"]) == [
        "z.unknown",
        "a.png",
        "z.unknown",
    ]


@pytest.mark.parametrize(
    ("path", "message"),
    [("none.png", "no such image or folder"), ("empty", r"no images in this folder \(known: .jpg")],
)
def test_paths_without_images(tmp_path, path, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=f"{path}: {message}"):
        find_images([str(tmp_path / path)])
