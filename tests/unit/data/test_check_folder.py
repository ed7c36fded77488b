"""Folders as `data check` opens them, and the picture of their images."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from broken_files import JPEG, ODD, folder
from res2net.data.checking.folder import find_strays, open_for_check
from res2net.data.checking.grid import draw_grid
from res2net.data.checking.report import figures, rows, write_csv
from res2net.data.checking.run import check
from res2net.errors import InputError
from res2net.plots.tiles import SIDE
from samples import encoded, photo


def problems(root: Path) -> dict[str, list[str]]:
    opened = open_for_check(str(root))
    return {
        one["problem"]: one["classes"]
        for one in figures(str(root), opened, check(opened.splits))["problems"]
    }


def test_classes_are_counted_and_compared(tmp_path: Path) -> None:
    files = {f"train/ant/{n}.png": encoded(photo(n)) for n in range(6)}
    files |= {f"train/bee/{n}.png": encoded(photo(10 + n)) for n in range(2)}
    files |= {"train/cat/0.png": encoded(photo(20)), "val/ant/0.png": encoded(photo(21))}
    files |= {"val/wasp/0.png": encoded(photo(22)), "train/stray.png": encoded(photo(23))}
    folder(tmp_path, files)
    (tmp_path / "train/dog").mkdir()
    (tmp_path / "val/cat").mkdir()
    opened = open_for_check(str(tmp_path))
    train = figures(str(tmp_path), opened, check(opened.splits))["splits"]["train"]
    assert train["images"] == 9 and train["classes"] == 3 and train["imbalance"] == 6
    assert train["smallest"] == {"class": "cat", "images": 1}
    assert train["largest"] == {"class": "ant", "images": 6}
    assert train["counts"] == {"ant": 6, "bee": 2, "cat": 1}
    refused, *_ = found = problems(tmp_path)
    assert refused == (
        f"training refuses this folder: {tmp_path}/train: no images in dog: put some there, or "
        f"remove it; {tmp_path}/val: unknown class wasp (known: ant, bee, cat and 1 more): rename "
        "or remove its folder"
    )
    del found[refused]
    assert found == {
        f"{tmp_path}/train: 1 image beside the class folders is not read (stray.png)": [],
        "class folders without images in train": ["dog"],
        "class folders without images in val": ["cat"],
        "classes of val that train lacks": ["wasp"],
        "classes of train that val lacks": ["bee"],
    }


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["a/1.png", "b/2.png"], {"all": 2}),
        (["train/a/1.png", "val/a/2.png"], {"train": 1, "val": 1}),
        (["train/a/1.png", "valid/a/2.png", "test/a/3.png"], {"train": 1, "valid": 1, "test": 1}),
        (["a/1.png", "b/2.png", "val/a/3.png"], {"train": 2, "val": 1}),
        (["1.png", "2.png"], {"all": 2}),
        (["train/a/1.png", "val/2.png"], {"train": 1, "val": 1}),
        (
            ["ILSVRC/Data/CLS-LOC/train/a/1.png", "ILSVRC/Data/CLS-LOC/val/a/2.png"],
            {"train": 1, "val": 1},
        ),
    ],
)
def test_layouts(tmp_path: Path, files: list[str], splits: dict[str, int]) -> None:
    folder(tmp_path, dict.fromkeys(files, JPEG))
    opened = open_for_check(str(tmp_path))
    assert {split.name: len(split.source) for split in opened.splits} == splits
    for split in opened.splits:
        assert all(os.path.isfile(split.source.name(n)) for n in range(len(split.source)))


def test_labels_of_a_flat_folder(tmp_path: Path) -> None:
    folder(tmp_path, {"train/ant/1.png": JPEG, "train/bee/2.png": JPEG, "val/3.png": JPEG})
    assert "no file of labels" in next(iter(problems(tmp_path)))
    flat_alone = tmp_path / "flat"
    folder(flat_alone, {"1.png": JPEG, "2.png": JPEG})
    opened = open_for_check(str(flat_alone))  # not meant for training, so not refused by it
    assert not opened.refused and "no file of labels" in opened.problems[0]
    (tmp_path / "val.csv").write_text("3.png,bee\n")
    with pytest.raises(InputError, match="takes no file of labels"):
        open_for_check(str(tmp_path / "train"), labels=str(tmp_path / "val.csv"))
    opened = open_for_check(str(tmp_path))
    assert find_strays(str(tmp_path)).not_images == [f"{tmp_path}/val.csv"]
    assert find_strays(str(tmp_path), opened.labels).not_images == []
    assert not opened.refused and opened.problems == []
    val = opened.splits[1]
    assert val.source.class_names[val.source.labels[0]] == "bee"


def test_what_is_not_read(tmp_path: Path) -> None:
    files = ["a/1.png", "a/notes.txt", "a/.2.png", ".cache/3.png", "a/folder.jpg/4.png"]
    folder(tmp_path, dict.fromkeys(files, JPEG))
    (tmp_path / "a/gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "a/round").symlink_to(tmp_path)
    strays = find_strays(str(tmp_path))
    assert {
        key: [os.path.relpath(path, tmp_path) for path in paths]
        for key, paths in vars(strays).items()
    } == {
        "not_images": ["a/notes.txt"],
        "hidden": [".cache", "a/.2.png"],
        "broken_links": ["a/gone.jpg"],
        "odd_folders": ["a/folder.jpg"],
    }
    assert len(open_for_check(str(tmp_path)).splits[0].source) == 2  # 1.png and 4.png


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_folder_without_images_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"{tmp_path}.*: no "):
        open_for_check(os.path.join(str(tmp_path), name))


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    name = os.path.join(os.fsencode(tmp_path), b"a", b"caf\xe9.jpg")
    with open(name, "wb") as file:
        file.write(b"?")
    findings = check(open_for_check(str(tmp_path)).splits)
    write_csv(tmp_path / "out.csv", rows(findings, find_strays(str(tmp_path))))
    header, line = (tmp_path / "out.csv").read_bytes().splitlines()
    assert header == b"kind,detail,split,class,file,group"
    assert line == b"broken,no image in a known format,all,a," + name + b","


# --- Picture -------------------------------------------------------------------------------------


def test_the_grid_shows_whole_images_of_all_classes(tmp_path: Path) -> None:
    colours = {"ant": (200, 0, 0), "bee": (0, 200, 0), "cat": (0, 0, 200)}
    plain = {key: encoded(Image.new("RGB", (90, 60), colour)) for key, colour in colours.items()}
    files = {f"{key}/{n}.png": plain[key] for key in colours for n in range(40)}
    folder(tmp_path, files | {"ant/0.png": b"?"})
    (split,) = open_for_check(str(tmp_path)).splits
    for seed in (0, 1):
        file = tmp_path / f"{seed}.png"
        assert draw_grid(split, [0], file, title="ants", seed=seed) == 48
        assert draw_grid(split, [0], tmp_path / "again.png", title="ants", seed=seed) == 48
        assert file.read_bytes() == (tmp_path / "again.png").read_bytes()
        pixels = np.asarray(Image.open(file).convert("RGB")).reshape(-1, 3)
        for colour in colours.values():
            assert (pixels == colour).all(axis=1).sum() == 16 * SIDE * SIDE


def test_the_grid_cuts_as_evaluation_does(tmp_path: Path) -> None:
    """Of 256 x 512 pixels the inner 224 x 224 are shown, not the red frame."""
    image = Image.new("RGB", (512, 256), (255, 0, 0))
    image.paste((0, 255, 0), (144, 16, 368, 240))
    (split,) = open_for_check(str(folder(tmp_path, {"a/1.png": encoded(image)}))).splits
    assert draw_grid(split, [], tmp_path / "g.png", title="t") == 1
    pixels = np.asarray(Image.open(tmp_path / "g.png").convert("RGB")).reshape(-1, 3)
    # the outermost pixels are mixed with the frame's
    assert (pixels == (0, 255, 0)).all(axis=1).sum() == (SIDE - 2) ** 2


def test_the_grid_takes_what_pillow_cannot_read_and_long_names(tmp_path: Path) -> None:
    name = "a class with a name that is much longer than its picture is wide"
    root = folder(tmp_path, {f"{name}/1.png": ODD["text-checksum.png"][0], "b/2.png": JPEG})
    (split,) = open_for_check(str(root)).splits
    assert draw_grid(split, [], tmp_path / "g.png", title="t" * 300) == 2
