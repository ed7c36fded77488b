"""ImageNet as users have it: flat validation folders with each kind of labels, Kaggle's, ReaL."""

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
import timm.data

from res2net import imagenet
from res2net.data.sources.folder import FolderSource, open_folder
from res2net.data.sources.imagenet import read_real_labels
from res2net.data.sources.opening import open_sources
from res2net.errors import InputError

WNIDS = tuple(imagenet.class_names())
DEVKIT = "ILSVRC2012_validation_ground_truth.txt"
TENSORFLOW = "imagenet_2012_validation_synset_labels.txt"
KAGGLE = "LOC_val_solution.csv"
# Classes of the first validation images, in three tongues.
IDS = [490, 361, 171, 822, 297]
INDICES = [65, 970, 230, 809, 516]
FIRST = [WNIDS[index] for index in INDICES]


def jpeg(number: int) -> str:
    return f"ILSVRC2012_val_{number:08}.JPEG"


def flat(folder: Path, names: Iterable[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


@pytest.fixture
def val(tmp_path: Path) -> Path:
    """The first five images."""
    return flat(tmp_path / "val", [jpeg(number) for number in range(1, 6)])


def write(path: Path, lines: Iterable[object]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def positional(words: list[object], rest: object) -> list[object]:
    """A file of all 50,000 lines."""
    return words + [rest] * (50_000 - len(words))


def classes(source: object) -> dict[str, str]:
    """Image -> the name of its class."""
    assert isinstance(source, FolderSource)
    assert all(os.path.isfile(source.path(index)) for index in range(len(source)))
    return {
        os.path.basename(source.path(index)): source.class_names[label]
        for index, label in enumerate(source.labels)
    }


def refusal(directory: Path, **arguments: object) -> str:
    with pytest.raises(InputError) as caught:
        open_folder(str(directory), **arguments)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


TRUTH = dict(zip(map(jpeg, range(1, 6)), FIRST, strict=True))

# Kinds of labels


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (DEVKIT, positional([*IDS], 1)),
        (DEVKIT, IDS),
        (TENSORFLOW, positional([*FIRST], WNIDS[0])),
        (TENSORFLOW, FIRST),
        ("val.txt", [f"{jpeg(n)} {index}" for n, index in enumerate(INDICES, 1)]),
        ("val.txt", [f"val/{jpeg(n)}\t{index}" for n, index in enumerate(INDICES, 1)]),
        ("val.txt", [f"{jpeg(n)} {wnid}" for n, wnid in enumerate(FIRST, 1)]),
        # found in the wild: Caffe's content, from a zip, under the devkit's name
        (DEVKIT, [f"val.zip@/{jpeg(n)} {index}" for n, index in enumerate(INDICES, 1)]),
        (
            KAGGLE,
            [
                "ImageId,PredictionString",
                *(
                    f"{jpeg(n)[:-5]},{wnid} 1 2 3 4 {wnid} 5 6 7 8 "
                    for n, wnid in enumerate(FIRST, 1)
                ),
            ],
        ),
        ("labels.csv", ["filename,label", *(f"{jpeg(n)},{c}" for n, c in enumerate(FIRST, 1))]),
    ],
)
@pytest.mark.parametrize("class_names", [None, WNIDS, tuple(reversed(WNIDS))])
def test_every_kind_of_labels_says_the_same(
    val: Path, name: str, lines: list[object], class_names: tuple[str, ...] | None
) -> None:
    write(val.parent / name, lines)
    source = open_folder(str(val), class_names=class_names)
    assert classes(source) == TRUTH
    assert source.class_names == (class_names or WNIDS)
    elsewhere = write(val.parent / "far" / "anything", lines)
    (val.parent / name).unlink()
    assert classes(open_folder(str(val), class_names=class_names, labels=elsewhere)) == TRUTH


def test_a_flat_folder_is_the_same_source_as_class_folders(val: Path, tmp_path: Path) -> None:
    write(val.parent / DEVKIT, IDS)
    for name, wnid in TRUTH.items():
        flat(tmp_path / "folders" / wnid, [name])
    one, other = (open_folder(str(f), class_names=WNIDS) for f in (val, tmp_path / "folders"))
    assert one.labels.tolist() == other.labels.tolist() == sorted(INDICES)
    assert list(classes(one)) == list(classes(other))


def test_lines_count_images_by_their_number(tmp_path: Path) -> None:
    lines: list[object] = [1] * 50_000
    lines[49_999], lines[122] = 490, 361
    val = flat(tmp_path / "val", [jpeg(50_000), jpeg(123), "x_val_00000009.jpg"])
    write(tmp_path / DEVKIT, lines)
    assert classes(open_folder(str(val))) == {
        jpeg(50_000): WNIDS[65],
        jpeg(123): WNIDS[970],
        "x_val_00000009.jpg": "n02119789",
    }


def test_a_part_of_the_images_is_tested_with_all_their_names(val: Path) -> None:
    write(val.parent / "val.txt", [f"{jpeg(n)} {n % 1000}" for n in range(1, 50_001)])
    assert sorted(classes(open_folder(str(val))).values()) == list(WNIDS[1:6])


def test_classes_in_the_names_of_the_images(tmp_path: Path) -> None:
    names = [f"ILSVRC2012_val_{n:08}_{wnid}.JPEG" for n, wnid in enumerate(FIRST, 1)]
    val = flat(tmp_path / "val", names)
    assert list(classes(open_folder(str(val))).values()) == sorted(FIRST)
    labels = write(tmp_path / "ids", [1, 1, 1, 1, 1])  # what is named comes first
    assert set(classes(open_folder(str(val), labels=labels)).values()) == {"n02119789"}


def test_a_list_of_ones_own(tmp_path: Path) -> None:
    folder = flat(tmp_path / "photos", ["1.jpg", "b c.png", "grün.webp"])
    write(tmp_path / "labels.csv", ["1.jpg;big cat", "b c.png;dog", "", '"grün.webp";"big cat"'])
    expected = {"1.jpg": "big cat", "grün.webp": "big cat", "b c.png": "dog"}
    source = open_folder(str(folder))
    assert classes(source) == expected and source.class_names == ("big cat", "dog")
    source = open_folder(str(folder), class_names=("dog", "ant", "big cat"))
    assert classes(source) == expected and source.labels.tolist() == [2, 2, 0]
    named = write(tmp_path / "named", ["\ufeffname,class", "b c,1", "1,2", "grün,2"])
    source = open_folder(str(folder), class_names=("ant", "dog", "big cat"), labels=named)
    assert classes(source) == expected


def test_a_class_may_have_a_comma_or_be_a_number(tmp_path: Path) -> None:
    folder = flat(tmp_path / "photos", ["1.jpg", "1.png"])
    labels = write(tmp_path / "list", ["1.png cat, tabby", "1.jpg 7"])
    assert classes(open_folder(str(folder), labels=labels)) == {"1.png": "cat, tabby", "1.jpg": "7"}
    digits = write(tmp_path / "digits", ["1.png 7", "1.jpg 1"])
    names = ("1", "7")
    source = open_folder(str(folder), labels=digits, class_names=names)
    assert classes(source) == {"1.png": "7", "1.jpg": "1"}
    message = refusal(
        folder, labels=write(tmp_path / "d", ["1.png 0", "1.jpg 1"]), class_names=names
    )
    assert "unknown class 0 (known: 1, 7)" in message


@pytest.mark.parametrize(
    "place",
    [
        *("val", ".", "ILSVRC2012_devkit_t12/data", "devkit/data", "devkit", "meta"),
    ],
)
def test_where_labels_are_found(val: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(val.parent / place / DEVKIT, IDS)
    assert classes(open_folder(str(val))) == TRUTH
    monkeypatch.chdir(val)
    assert classes(open_folder(".")) == TRUTH


# What is refused


def test_no_labels(val: Path) -> None:
    message = refusal(val, class_names=WNIDS)
    assert message.startswith(f"no class folders with images below {val}, and no file of labels")
    for said in (DEVKIT, KAGGLE, "val.txt", "ILSVRC2012_devkit_t12/data", str(val.parent)):
        assert said in message
    assert "data.val_labels=FILE" in message and "--labels FILE" in message
    assert refusal(val, labels="gone.txt").startswith("gone.txt: no such file of labels")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "empty"),
        (["\0\1"], "not a text file"),
        ([0, 1, 2, 3, 4], "0: expected ILSVRC2012_IDs from 1 to 1,000"),
        ([1, 2, 3, 4, 1001], "1001: expected ILSVRC2012_IDs"),
        ([1, 2, 3, 4], "4 lines for the 5 images of "),
        (["n01440764"] * 6, "6 lines for the 5 images of "),
        (["n01440764", "490"] * 2, "490, 490: expected on each line an image and its class"),
        (["a.jpg", "b.jpg"], "a.jpg, b.jpg: expected on each line an image and its class"),
        (
            [f"{jpeg(1)} 1", jpeg(2)],
            f"expected an image and its class on each line, not ['{jpeg(2)}']",
        ),
        ([f"{jpeg(n)} 1000" for n in range(1, 6)], "class 1000: expected 0 to 999 or a name"),
        # ImageNet's own ImageSets/CLS-LOC/val.txt numbers the images
        (
            [f"{jpeg(n)} {n + 997}" for n in range(1, 6)],
            "class 1000, 1001, 1002: expected 0 to 999",
        ),
        (
            [f"{jpeg(n)} cat" for n in range(1, 6)],
            "unknown class cat (known: n01440764, n01443537,",
        ),
        ([f"{jpeg(n)} 1" for n in (1, 3)], f"no class for {jpeg(2)}, {jpeg(4)}, {jpeg(5)} of "),
        ([f"{jpeg(n)} 1" for n in (1, 2, 3, 3, 4, 5)], f"more than one line for {jpeg(3)}"),
        ([f"{jpeg(n)} 1" for n in range(1, 6)] + ["y.jpg 1"], " has no y.jpg"),
    ],
)
def test_labels_that_do_not_fit(val: Path, lines: list[object], said: str) -> None:
    path = write(val.parent / "val.txt", lines)
    message = refusal(val, class_names=WNIDS)
    assert message.startswith(f"{path}: ") and said in message


def test_images_without_number_need_a_line_each(tmp_path: Path) -> None:
    val = flat(tmp_path / "val", ["a.jpg", jpeg(2)])
    write(tmp_path / DEVKIT, positional([*IDS], 1))
    assert "50,000 lines for the 2 images" in refusal(val)


def test_problems_of_a_list_come_at_once(tmp_path: Path) -> None:
    folder = flat(tmp_path / "photos", ["1.jpg", "2.jpg"])
    path = write(tmp_path / "labels.csv", ["1.jpg,cat", "3.jpg,cat", "4.jpg,dog"])
    assert (
        refusal(folder)
        == f"{path}: no class for 2.jpg of {folder}; {path}: {folder} has no 3.jpg, 4.jpg"
    )


def test_numbers_need_names_to_count(tmp_path: Path) -> None:
    folder = flat(tmp_path / "photos", ["1.jpg", "2.jpg"])
    path = write(tmp_path / "labels.csv", ["1.jpg,0", "2.jpg,3"])
    assert f"{path}: numbers of classes (0, 3), but the weights name no classes" in refusal(folder)
    assert "class 3: expected 0 to 1 or a name" in refusal(folder, class_names=("a", "b"))


def test_classes_that_a_model_lacks(val: Path) -> None:
    write(val.parent / DEVKIT, IDS)
    assert "unknown class n02105855" in refusal(
        val, class_names=[w for w in FIRST if w != FIRST[2]]
    )


def test_numbers_of_a_part_of_imagenet(val: Path) -> None:
    path = write(val.parent / "val.txt", [f"{jpeg(n)} 0" for n in range(1, 6)])
    assert refusal(val, class_names=WNIDS[5:9]) == (
        f"{path}: unknown class {WNIDS[0]} (known: {', '.join(WNIDS[5:8])} and 1 more): numbers of "
        "ILSVRC2012_val files are read as ImageNet's 1,000 classes; write WordNet ids instead"
    )


def test_class_folders_take_no_labels(tmp_path: Path) -> None:
    flat(tmp_path / "val" / "a", ["1.jpg"])
    labels = write(tmp_path / "val.txt", ["1.jpg a"])
    assert f"{tmp_path}/val has class folders" in refusal(tmp_path / "val", labels=labels)
    assert open_folder(str(tmp_path / "val")).class_names == ("a",)


# Training


@pytest.fixture
def root(val: Path) -> Path:
    for wnid in FIRST:
        flat(val.parent / "train" / wnid, [f"{wnid}_1.JPEG"])
    return val.parent


def test_training_folders_number_the_classes_of_a_flat_val(root: Path) -> None:
    write(root / "ILSVRC2012_devkit_t12/data" / DEVKIT, positional([*IDS], 1))
    train, val = open_sources("folder", str(root))
    assert train.class_names == val.class_names == tuple(sorted(FIRST))
    assert classes(val) == TRUTH
    train, val = open_sources("folder", str(root), class_names=WNIDS)
    assert train.class_names == val.class_names == WNIDS
    assert classes(val) == TRUTH and train.labels.tolist() == sorted(INDICES)


def test_named_labels_lie_below_root(root: Path) -> None:
    write(root / DEVKIT, [1, 1, 1, 1, 1])
    own = write(root / "own" / "list", FIRST)
    for name in ("own/list", own):
        assert classes(open_sources("folder", str(root), val_labels=name)[1]) == TRUTH


def test_keys_of_labels_that_do_not_fit(root: Path) -> None:
    def refused(**keys: str) -> str:
        with pytest.raises(InputError) as caught:
            open_sources("folder", str(root), **keys)  # type: ignore[arg-type]
        return str(caught.value)

    assert refused().startswith(f"no class folders with images below {root}/val, and no file of")
    assert refused(val_labels="x") == f"{root}/x: no such file (data.val_labels)"
    write(root / "list", FIRST)
    assert f"{root}/train has class folders" in refused(
        val_labels="list", val_dir="train", train_dir="../" + root.name + "/val"
    )
    write(root / DEVKIT, [1, 1, 1, 1, 1])
    assert "unknown class n02119789" in refused()
    with pytest.raises(InputError, match=r"data.val_labels='list': only data.source=folder"):
        open_sources("digits", "", val_labels="list")
    for name in TRUTH:
        (root / "val" / name).unlink()
    (root / "val").rmdir()
    assert f"data.val_labels=list: no validation folder in {root}" in refused(val_labels="list")


def test_kaggles_download(tmp_path: Path) -> None:
    inner = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    for wnid in FIRST:
        flat(inner / "train" / wnid, ["1.JPEG"])
    flat(inner / "val", TRUTH)
    flat(inner / "test", ["ILSVRC2012_test_00000001.JPEG"])
    rows = [f"{name[:-5]},{wnid} 85 1 499 272" for name, wnid in TRUTH.items()]
    write(tmp_path / KAGGLE, ["ImageId,PredictionString", *reversed(rows)])
    train, val = open_sources("folder", str(tmp_path))
    assert isinstance(train, FolderSource) and train.root == str(inner / "train")
    assert train.class_names == tuple(sorted(FIRST)) and classes(val) == TRUTH
    for directory in (tmp_path, inner / "val"):
        assert classes(open_folder(str(directory), class_names=WNIDS)) == TRUTH
    named = open_sources("folder", str(tmp_path), val_labels=KAGGLE)[1]
    assert classes(named) == TRUTH


def test_a_whole_validation_set_opens_in_seconds(tmp_path: Path) -> None:
    val = flat(tmp_path / "val", [jpeg(number) for number in range(1, 50_001)])
    words = list(imagenet.ilsvrc2012_ids())
    write(tmp_path / DEVKIT, [words[number % 1000] for number in range(50_000)])
    started = time.process_time()  # other tests run at the same time
    source = open_folder(str(val), class_names=WNIDS)
    assert time.process_time() - started < 3
    assert len(source) == 50_000
    assert source.labels.tolist() == [label for label in range(1000) for _ in range(50)]


# ImageNet-ReaL


def source_of(tmp_path: Path, numbers: list[int], class_names: tuple[str, ...]) -> FolderSource:
    folder = tmp_path / class_names[0]
    return open_folder(str(flat(folder, map(jpeg, numbers)).parent), class_names=class_names)


def test_real_labels_as_published(tmp_path: Path) -> None:
    published = Path(timm.data.__file__).parent / "_info" / "imagenet_real_labels.json"
    real = json.loads(published.read_text())
    source = source_of(tmp_path, [1, 2, 3, 50_000], WNIDS)
    labels = read_real_labels(str(published), source)
    assert labels == [tuple(real[index]) for index in (0, 1, 2, 49_999)]
    assert labels[:3] == [(), (970, 795), (230, 231)]


def test_real_labels_are_renumbered(tmp_path: Path) -> None:
    lists: list[list[int]] = [[] for _ in range(50_000)]
    lists[6], lists[7], lists[8] = [999, 0], [5], [5, 999]
    path = tmp_path / "real.json"
    path.write_text(json.dumps(lists))
    source = source_of(tmp_path, [6, 7, 8, 9], (WNIDS[999], "other", WNIDS[0]))
    assert read_real_labels(str(path), source) == [(), (0, 2), (), (0,)]
    path.write_text(json.dumps({jpeg(number + 1): lists[number] for number in range(5, 9)}))
    assert read_real_labels(str(path), source) == [(), (0, 2), (), (0,)]


def test_real_labels_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "real.json"
    source = source_of(tmp_path, [1], WNIDS)

    def refused(content: object, source: FolderSource = source) -> str:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(InputError) as caught:
            read_real_labels(str(path), source)
        message = str(caught.value)
        assert message.startswith(f"{path}: ") and "\n" not in message
        return message

    good = [[1]] * 50_000
    assert "not JSON" in refused("{")
    shapes: list[object] = [7, {}, good[:-1], [*good[:-1], [1000]], [*good[:-1], 3], {"a.jpg": [1]}]
    for content in shapes:
        assert "expected ImageNet-ReaL's labels: 50,000 lists of numbers from 0 to 999" in refused(
            content
        )
    assert f"no labels for {tmp_path}" in refused({jpeg(2): [1]})
    others = source_of(tmp_path / "others", [1], ("cat", "dog"))
    assert "its ids (as n01440764) name none of the classes cat, dog" in refused(good, others)
    flat(tmp_path / "renamed" / WNIDS[0], ["me.jpg"])
    renamed = open_folder(str(tmp_path / "renamed"), class_names=WNIDS)
    assert "no such name is" in refused(good, renamed) and "me.jpg" in refused(good, renamed)
    path.unlink()
    with pytest.raises(InputError, match="no such file of ReaL labels"):
        read_real_labels(str(path), source)


def test_a_list_that_counts_from_one_is_refused_even_for_a_part_of_the_images(
    tmp_path: Path,
) -> None:
    val = tmp_path / "val"
    val.mkdir()
    (val / "ILSVRC2012_val_00000007.JPEG").touch()
    lines = [f"ILSVRC2012_val_{n:08d}.JPEG {n % 1000 + 1}\n" for n in range(1, 50_001)]
    (tmp_path / "val.txt").write_text("".join(lines))
    with pytest.raises(InputError, match=r"class 1000: expected 0 to 999 .* count from 1$"):
        open_folder(str(val), class_names=tuple(imagenet.class_names()))


def test_the_folder_above_is_told_to_be_that(tmp_path: Path) -> None:
    (tmp_path / "val" / "cat").mkdir(parents=True)
    (tmp_path / "val" / "cat" / "1.jpg").touch()
    with pytest.raises(InputError, match=r"unknown class val .*; did you mean .*/val\?$"):
        open_folder(str(tmp_path), class_names=("cat", "dog"))
