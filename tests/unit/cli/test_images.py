"""Which images are meant."""

import io
import os
import sys
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


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/1.png", "a/b/2.png", "a/b/3.txt", "c [d]/4.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a/*.png", ["a/1.png"]),
        ("a/**/*.png", ["a/1.png", "a/b/2.png"]),
        ("a/b/?.*", ["a/b/2.png", "a/b/3.txt"]),  # named one by one: taken as given
        ("[ac]*", ["a/1.png", "a/b/2.png", "c [d]/4.png"]),  # folders
        ("c [d]/4.png", ["c [d]/4.png"]),  # a path before a pattern
    ],
)
def test_patterns(photos, pattern, expected):
    assert find_images([pattern]) == expected


@pytest.mark.parametrize("between", ["\n", "\r\n", "\0"])
def test_a_list_on_stdin(photos, between, monkeypatch):
    strange = os.fsencode("a/") + b"\xff.png"
    Path(os.fsdecode(strange)).touch()
    lines = [b"a/1.png", b"", b"c [d]", strange, b"a/b/*.png"]
    stdin = io.TextIOWrapper(io.BytesIO(between.encode().join([*lines, b""])))
    monkeypatch.setattr(sys, "stdin", stdin)
    expected = ["x.png", "a/1.png", "c [d]/4.png", os.fsdecode(strange), "a/b/2.png"]
    Path("x.png").touch()
    assert find_images(["x.png", "-"]) == expected


def test_paths_without_images_are_told_and_the_rest_is_taken(photos):
    told = []
    given = ["a/1.png", "none.png", "no*thing", "a/b/2.png"]
    assert find_images(given, told.append) == ["a/1.png", "a/b/2.png"]
    assert [str(error) for error in told] == [
        "none.png: no such image or folder",
        "no*thing: this pattern matches no file",
    ]
    with pytest.raises(InputError, match=r"none\.png: no such .*; no\*thing: this pattern"):
        find_images(given[1:3], told.append)
    with pytest.raises(InputError, match="no images: name files, folders or patterns, or - for"):
        find_images([], told.append)
