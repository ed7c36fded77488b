"""The linear probe, on scikit-learn's digits and on features that tell nothing."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from res2net.errors import InputError
from res2net.inference.labelled import labels_of_folders
from res2net.inference.probe import check_probe, probe


def test_digits_are_nearly_linear():
    pixels, labels = load_digits(return_X_y=True)
    found = probe(pixels.astype(np.float32), labels)
    assert (found.train, found.held_out, found.classes) == (1437, 360, 10)
    assert 0.94 < found.top1 < found.train_top1
    assert found.chance == pytest.approx(0.1, abs=0.01)
    assert probe(pixels.astype(np.float32), labels) == found
    other = probe(pixels.astype(np.float32), labels, seed=1)
    assert other != found
    assert other.held_out == 360
    assert other.top1 == pytest.approx(found.top1, abs=0.03)


def test_noise_is_learned_by_heart_and_tells_nothing():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 200)
    found = probe(rng.normal(size=(400, 300)).astype(np.float32), labels)
    assert found.train_top1 == 1
    assert found.top1 == pytest.approx(0.5, abs=0.15)
    constant = probe(np.ones((400, 3), np.float32), labels)  # no spread to divide by
    assert constant.top1 == constant.chance == 0.5


def test_each_class_is_on_both_sides():
    labels = np.array([0] * 50 + [1] * 2)
    found = probe(np.eye(52, dtype=np.float32), labels)
    assert (found.train, found.held_out) == (41, 11)
    check_probe(labels, ("a", "b"))
    with pytest.raises(InputError, match=r"^--probe: class 'b' has one image"):
        check_probe(labels[:-1], ("a", "b"))
    with pytest.raises(InputError, match=r"^--probe: images of 1 class"):
        check_probe(labels[:9], ("a", "b"))


def found_labels(tmp_path, roots, files):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    return labels_of_folders(
        [str(tmp_path / root) for root in roots], [str(tmp_path / file) for file in files]
    )


def test_labels_are_folders(tmp_path):
    files = ["set/b/1.png", "set/a b/deep/2.png", "set/b/3.png"]
    labels = found_labels(tmp_path, ["set/"], files)
    assert labels.class_names == ("a b", "b")
    assert labels.of(str(tmp_path / file) for file in files).tolist() == [1, 0, 1]
    both = found_labels(tmp_path, ["set", "more"], [*files, "more/c/4.png"])
    assert both.class_names == ("a b", "b", "c")


@pytest.mark.parametrize(
    ("roots", "files"),
    [
        (["set"], ["set/a/1.png", "set/b/2.png", "set/loose.png"]),
        (["set"], ["set/a/1.png", "set/a/2.png"]),
        (["set", "set2/b/2.png"], ["set/a/1.png", "set2/b/2.png"]),
        (["set"], ["set/a/1.png", "settings/b/2.png"]),
        (["set"], ["set/train/a/1.png", "set/val/b/2.png"]),
        (["set"], []),
    ],
)
def test_no_labels(tmp_path, roots, files):
    assert found_labels(tmp_path, roots, files) is None
