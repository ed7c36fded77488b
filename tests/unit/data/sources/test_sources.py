"""Folders, splits and digits: what is found, how it is numbered, what is refused and how."""

import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from res2net.data.sources.folder import FolderSource, open_folder
from res2net.data.sources.in_memory import ArraySource
from res2net.data.sources.opening import open_sources
from res2net.data.sources.split import stratified_split
from res2net.errors import InputError
from res2net.imagenet import class_names


def make(root: Path, tree: dict[str, int]) -> Path:
    """Class folder -> number of (empty) images in it."""
    for folder, count in tree.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / folder / f"{number}.jpg").touch()
    return root


def files_of(source: object) -> list[str]:
    assert isinstance(source, FolderSource)
    paths = [source.path(index) for index in range(len(source))]
    assert all(os.path.isfile(path) for path in paths)
    return [os.path.relpath(path, source.root) for path in paths]


def refusal(root: Path | str, **keys: object) -> str:
    with pytest.raises(InputError) as caught:
        open_sources("folder", str(root), **keys)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


# Folders


def test_classes_and_files_are_sorted_by_name(tmp_path: Path) -> None:
    make(tmp_path, {"train/cow": 1, "train/Bee": 2, "train/ant": 1, "val/ant": 1, "val/cow": 2})
    train, val = open_sources("folder", str(tmp_path))
    assert train.class_names == val.class_names == ("Bee", "ant", "cow")
    assert files_of(train) == ["Bee/0.jpg", "Bee/1.jpg", "ant/0.jpg", "cow/0.jpg"]
    assert train.labels.tolist() == [0, 0, 1, 2] and train.labels.dtype == np.int64
    assert files_of(val) == ["ant/0.jpg", "cow/0.jpg", "cow/1.jpg"]
    assert val.labels.tolist() == [1, 2, 2]
    assert train.name(3) == str(tmp_path / "train/cow/0.jpg")
    assert len(train) == 4


def test_images_are_found_at_any_depth_by_their_extension(tmp_path: Path) -> None:
    make(tmp_path, {"a/deep/er": 1, "b": 1, ".hidden": 2, "b/.hidden": 1})
    wanted = ["1.JPG", "2.jpeg", "3.PNG", "4.bmp", "5.ppm", "6.tif", "7.TIFF", "8.webp", "9.jp2"]
    for name in [*wanted, "n.pnm", "notes.txt", ".x.jpg", "jpg", "Thumbs.db"]:
        (tmp_path / "b" / name).touch()
    (tmp_path / "b" / "folder.jpg").mkdir()
    (tmp_path / "b" / "folder.jpg" / "x.png").touch()
    (tmp_path / "readme.jpg").touch()
    source = open_folder(str(tmp_path))
    assert source.class_names == ("a", "b")
    assert files_of(source) == ["a/deep/er/0.jpg"] + [
        f"b/{name}" for name in sorted(["0.jpg", *wanted, "n.pnm", "folder.jpg/x.png"])
    ]


def test_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    make(tmp_path, {"grün": 1, "日本": 1})
    odd = os.fsencode(tmp_path) + b"/gr\xc3\xbcn/\xff\xfe.jpg"
    open(odd, "w").close()
    source = open_folder(str(tmp_path))
    assert len(files_of(source)) == 3
    assert odd in [os.fsencode(source.path(index)) for index in range(3)]


def test_symbolic_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    make(tmp_path / "elsewhere", {"cats": 2, "more": 1})
    root = make(tmp_path / "root", {"dogs": 1, "dogs/pack": 1})
    (root / "cats").symlink_to(tmp_path / "elsewhere" / "cats")
    (root / "dogs" / "more").symlink_to(tmp_path / "elsewhere" / "more")
    (root / "dogs" / "pack" / "up").symlink_to(root / "dogs")
    (root / "dogs" / "top").symlink_to(root)
    (root / "dogs" / "again").symlink_to(root / "dogs" / "pack")
    (root / "dogs" / "gone.jpg").symlink_to(root / "nothing.jpg")
    assert files_of(open_folder(str(root))) == [
        *("cats/0.jpg", "cats/1.jpg"),
        *("dogs/0.jpg", "dogs/again/0.jpg", "dogs/more/0.jpg"),  # again and pack are one folder
    ]


def test_a_million_paths_are_cheap() -> None:
    files = {
        f"n{number:08}": [f"n{number:08}/n{number:08}_{image:05}.JPEG" for image in range(200)]
        for number in range(100)
    }
    source = FolderSource.of_files("/data/imagenet/train", tuple(files), files)
    assert source.path(12_345) == "/data/imagenet/train/n00000061/n00000061_00145.JPEG"
    arrays = (source.labels, source._starts, source._ends)
    held = sys.getsizeof(source._paths) + sum(array.nbytes for array in arrays)
    assert held / len(source) * 1.3e6 < 100e6


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (["train", "val", "valid", "test"], ("train", "val")),
        (["train", "test", "valid"], ("train", "valid")),
        (["train", "test"], ("train", "test")),
        (["", "val", "test"], ("", "val")),
        (["", "test"], ("", "test")),
    ],
)
def test_where_the_splits_lie(tmp_path: Path, tree: list[str], expected: tuple[str, str]) -> None:
    for split in tree:
        make(tmp_path / split, {"a": 1, "b": 1})
    train, val = open_sources("folder", str(tmp_path))
    assert isinstance(train, FolderSource) and isinstance(val, FolderSource)
    assert Path(train.root) == tmp_path / expected[0]
    assert Path(val.root) == tmp_path / expected[1]
    assert train.class_names == ("a", "b")
    assert len(train) == len(val) == 2


def test_named_splits(tmp_path: Path) -> None:
    root = make(tmp_path / "root", {"part1/a": 2, "part1/b": 1, "held/a": 1, "val/c": 1})
    make(tmp_path / "far", {"b": 3})
    train, val = open_sources("folder", str(root), train_dir="part1", val_dir="held")
    assert (len(train), len(val)) == (3, 1)
    train, val = open_sources("folder", str(root), train_dir="part1", val_dir=str(tmp_path / "far"))
    assert (len(train), val.labels.tolist()) == (3, [1, 1, 1])


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    make(tmp_path, {"train": 3, "bus": 3})
    assert "no class folders with images below" in (message := refusal(tmp_path))
    assert "data.train_dir=. takes data.root itself" in message
    train, _ = open_sources("folder", str(tmp_path), train_dir=".")
    assert train.class_names == ("bus", "train")


def test_the_validation_folder_is_no_class(tmp_path: Path) -> None:
    make(tmp_path, {"a": 1, "b": 1, "held/a": 1})
    train, _ = open_sources("folder", str(tmp_path), val_dir="held")
    assert train.class_names == ("a", "b")


def test_the_default_root_lies_below_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "data" / "folder", {"a": 2, "b": 2})
    monkeypatch.chdir(tmp_path)
    train, _ = open_sources("folder", "")
    assert files_of(train) and train.name(0).startswith("data/folder/a/")


# Validation put aside


def test_a_share_of_each_class_is_put_aside(tmp_path: Path) -> None:
    make(tmp_path, {"a": 30, "b": 10, "c": 2})
    train, val = open_sources("folder", str(tmp_path), val_fraction=0.2, split_seed=3)
    assert np.bincount(val.labels).tolist() == [6, 2, 1]
    assert sorted(files_of(train) + files_of(val)) == sorted(files_of(open_folder(str(tmp_path))))
    assert files_of(train) == sorted(files_of(train))
    again = open_sources("folder", str(tmp_path), val_fraction=0.2, split_seed=3)[1]
    other = open_sources("folder", str(tmp_path), val_fraction=0.2, split_seed=4)[1]
    assert files_of(again) == files_of(val) != files_of(other)


def test_how_classes_are_numbered_does_not_move_the_split(tmp_path: Path) -> None:
    make(tmp_path, dict.fromkeys("abcde", 7))
    names = ("d", "b", "e", "c", "a", "unseen")
    default, named = (
        open_sources("folder", str(tmp_path), val_fraction=0.2, class_names=class_names)[1]
        for class_names in (None, names)
    )
    assert files_of(default) == files_of(named)
    assert [named.class_names[label] for label in named.labels] == [
        default.class_names[label] for label in default.labels
    ]


def test_the_split_is_the_same_for_good() -> None:
    labels = np.repeat(np.arange(10), np.arange(20, 40, 2))
    _, aside = stratified_split(labels, 0.1, 0)
    assert aside.tolist() == [
        3,
        11,
        20,
        21,
        53,
        59,
        66,
        69,
        88,
        92,
        111,
        113,
        128,
        143,
        146,
        150,
        152,
        159,
        196,
        207,
        212,
        222,
        223,
        234,
        248,
        257,
        267,
        269,
        289,
    ]


@given(
    counts=st.lists(st.integers(2, 50), min_size=1, max_size=20),
    fraction=st.floats(0.001, 0.999),
    seed=st.integers(0, 2**64),
    order=st.randoms(use_true_random=False),
)
def test_every_image_is_on_one_side_and_every_class_on_both(
    counts: list[int], fraction: float, seed: int, order: random.Random
) -> None:
    shuffled = [label for label, count in enumerate(counts) for _ in range(count)]
    order.shuffle(shuffled)
    labels = np.array(shuffled)
    stay, aside = stratified_split(labels, fraction, seed)
    assert sorted([*stay, *aside]) == list(range(len(labels)))
    assert (np.diff(stay) > 0).all() and (np.diff(aside) > 0).all()
    kept = np.bincount(labels[stay], minlength=len(counts))
    taken = np.bincount(labels[aside], minlength=len(counts))
    assert kept.min() >= 1 and taken.min() >= 1
    forced = (taken == 1) | (kept == 1)
    assert (forced | (abs(taken - np.array(counts) * fraction) < 1 + 1e-6)).all()


def test_the_draw_is_fair() -> None:
    labels = np.repeat([0, 1], [20, 40])
    times = np.zeros(60)
    for seed in range(2000):
        times[stratified_split(labels, 0.25, seed)[1]] += 1
    assert abs(times / 2000 - 0.25).max() < 0.05  # five standard deviations


# What is refused


def test_a_missing_data_folder(tmp_path: Path) -> None:
    message = refusal(tmp_path / "none")
    assert str(tmp_path / "none") in message and "data.root" in message


def test_missing_split_folders_are_listed_together(tmp_path: Path) -> None:
    message = refusal(tmp_path, train_dir="tr", val_dir="va")
    assert message == (
        f"{tmp_path}/tr: no such folder (data.train_dir); "
        f"{tmp_path}/va: no such folder (data.val_dir)"
    )


def test_no_classes(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").touch()
    assert refusal(tmp_path) == f"no class folders with images below {tmp_path}"
    make(tmp_path, {"a": 0})
    assert refusal(tmp_path) == f"no class folders with images below {tmp_path}"
    with pytest.raises(InputError, match="no class folders with images below"):
        open_folder(str(tmp_path), class_names=("a", "b"))


def test_one_class(tmp_path: Path) -> None:
    make(tmp_path, {"cats": 5})
    assert "one class (cats), but training needs two or more: a folder for each" in refusal(
        tmp_path
    )
    assert open_folder(str(tmp_path)).class_names == ("cats",)


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    empty = {f"train/e{number}": 0 for number in range(5)}
    make(tmp_path, {"train/a": 1, "train/b": 1, "val/a": 1, "val/x": 1, "val/y": 1} | empty)
    assert refusal(tmp_path) == (
        f"{tmp_path}/train: no images in e0, e1, e2 and 2 more: put some there, or remove it; "
        f"{tmp_path}/val: unknown class x, y (known: a, b, e0 and 4 more): rename or remove its "
        "folder"
    )


def test_a_class_with_one_image_cannot_be_split(tmp_path: Path) -> None:
    make(tmp_path, {"a": 3, "lonely": 1})
    message = refusal(tmp_path)
    assert "only one image in lonely" in message and "data.val_dir" in message
    make(tmp_path, {"val/a": 1})
    open_sources("folder", str(tmp_path))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_fractions_are_between_nothing_and_all(tmp_path: Path, fraction: float) -> None:
    make(tmp_path, {"a": 2, "b": 2})
    assert f"data.val_fraction={fraction}" in refusal(tmp_path, val_fraction=fraction)


def test_keys_that_say_nonsense(tmp_path: Path) -> None:
    make(tmp_path, {"train/a": 2, "train/b": 2})
    assert "data.split_seed=-1" in refusal(tmp_path, split_seed=-1)
    assert "different folders (data.val_dir)" in refusal(tmp_path, val_dir="train")
    with pytest.raises(
        InputError, match=r"data\.source=imagenet: expected one of folder, shards, cifar10"
    ):
        open_sources("imagenet", str(tmp_path))
    with pytest.raises(InputError, match=r"only data\.source=folder"):
        open_sources("digits", "", val_dir="val")


def test_a_folder_that_fails_to_be_read_is_named(tmp_path: Path) -> None:
    make(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "b" / "self").symlink_to(tmp_path / "b" / "self")
    assert f"{tmp_path}/b/self: cannot be read" in refusal(tmp_path)


# Known classes


def test_labels_are_given_by_the_names_a_model_knows(tmp_path: Path) -> None:
    make(tmp_path, {"bee": 1, "ant": 2, "dog": 0})
    source = open_folder(str(tmp_path), class_names=("cow", "bee", "ant"))
    assert source.class_names == ("cow", "bee", "ant")
    assert source.labels.tolist() == [2, 2, 1]
    assert files_of(source) == ["ant/0.jpg", "ant/1.jpg", "bee/0.jpg"]


def test_unknown_classes_are_named_beside_known_ones(tmp_path: Path) -> None:
    make(tmp_path, {"bee": 1, "wasp": 2})
    with pytest.raises(InputError) as caught:
        open_folder(str(tmp_path), class_names=("ant", "bee", "cow", "dog"))
    assert str(caught.value) == (
        f"{tmp_path}: unknown class wasp (known: ant, bee, cow and 1 more): rename or remove its "
        "folder"
    )


@pytest.mark.parametrize("known", [tuple(class_names()), ("n01440764", "n01494475")])
def test_folders_of_imagenet_are_said_to_be_named_by_its_ids(
    tmp_path: Path, known: tuple[str, ...]
) -> None:
    make(tmp_path, {"hammerhead": 1, "n01440764": 1})
    with pytest.raises(InputError, match="unknown class hammerhead ") as caught:
        open_folder(str(tmp_path), class_names=known)
    told = "rename or remove its folder; ImageNet's folders are named by WordNet ids"
    assert str(caught.value).endswith(told)


def test_training_takes_the_names_a_model_knows(tmp_path: Path) -> None:
    make(tmp_path, {"train/b": 2, "train/a": 2, "val/c": 1})
    train, val = open_sources("folder", str(tmp_path), class_names=("c", "b", "a"))
    assert train.labels.tolist() == [2, 2, 1, 1]
    assert val.labels.tolist() == [0]
    assert "unknown class c (known: a, b)" in refusal(tmp_path)


# Digits


def test_digits() -> None:
    train, val = open_sources("digits", "")
    assert isinstance(train, ArraySource) and isinstance(val, ArraySource)
    assert (len(train), len(val)) == (1437, 360)
    assert train.class_names == tuple("0123456789")
    pixels = train.read(np.array([5, 3, 3]))
    assert pixels.shape == (3, 8, 8, 3) and pixels.dtype == np.uint8
    assert (pixels[1] == pixels[2]).all() and (pixels[..., 0] == pixels[..., 2]).all()
    assert train.images.min() == 0 and train.images.max() == 255
    assert train.labels.dtype == np.int64
    assert np.bincount(val.labels).min() >= 34
    assert train.name(17) == "digits/train/17" and val.name(0) == "digits/val/0"


def test_digits_keep_their_images_and_labels_together() -> None:
    from sklearn.datasets import load_digits

    train, val = open_sources("digits", "", split_seed=7)
    assert isinstance(train, ArraySource) and isinstance(val, ArraySource)
    published = load_digits()
    expected = sorted(
        (np.rint(image * 255 / 16).astype(np.uint8).tobytes(), int(label))
        for image, label in zip(published.images, published.target, strict=True)
    )
    found = sorted(
        (image[..., 1].tobytes(), int(label))
        for source in (train, val)
        for image, label in zip(source.images, source.labels, strict=True)
    )
    assert found == expected


def test_digits_with_the_names_a_model_knows() -> None:
    names = tuple("9876543210")
    default, _ = open_sources("digits", "")
    train, _ = open_sources("digits", "", class_names=names)
    assert train.class_names == names
    assert (train.labels == 9 - default.labels).all()
    with pytest.raises(InputError, match="digits/train: unknown class 2, 3, 4 and 5 more"):
        open_sources("digits", "", class_names=("0", "1"))


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InputError, match=r"pip install res2net-lightning\[quickstart\]"):
        open_sources("digits", "")
