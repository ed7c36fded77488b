"""Figures by class and by other labels, counted by hand."""

import csv
from pathlib import Path

import numpy as np
import pytest

from res2net.plots.confusion import draw_confusion
from res2net.training.evaluation.report import Report

ALL = np.full(100, True)


@pytest.fixture
def report() -> Report:
    """Six classes; cat 4 images, dog 3, kit fox 1, the others none."""
    predicted = [
        [0, 1, 2, 3, 4], [1, 0, 2, 3, 4], [1, 2, 3, 4, 5], [0, 5, 4, 3, 2],  # cat
        [1, 2, 3, 4, 0], [2, 1, 3, 4, 0], [1, 0, 2, 3, 4],  # dog
        [0, 1, 2, 3, 4],  # kit fox
    ]  # fmt: skip
    names = ("cat", "dog", "n02119789", "ox", "pig", "rat")
    return Report(names, np.array([0, 0, 0, 0, 1, 1, 1, 2]), np.array(predicted), ALL[:8])


def test_each_class_with_images_has_its_accuracy(report: Report) -> None:
    rows = {row["class"]: row for row in report.per_class()}
    assert rows.keys() == {"cat", "dog", "n02119789"}
    assert rows["cat"] | {} == {
        "index": 0, "class": "cat", "name": "cat", "images": 4, "top1": 0.5, "top5": 0.75,
    }  # fmt: skip
    assert (rows["dog"]["images"], rows["dog"]["top1"]) == (3, pytest.approx(2 / 3))
    assert (rows["n02119789"]["name"], rows["n02119789"]["top5"]) == ("kit fox", 1.0)


def test_balanced_accuracy_is_the_mean_over_classes_with_images(report: Report) -> None:
    assert report.balanced() == pytest.approx((0.5 + 2 / 3 + 0) / 3)


def test_without_six_classes_there_is_no_top5() -> None:
    two = Report(("a", "b"), np.array([0, 1]), np.array([[0, 1], [0, 1]]), ALL[:2])
    assert [row["top5"] for row in two.per_class()] == [None, None]


def test_the_commonest_confusions_come_first(report: Report) -> None:
    pairs = report.confusions(2)
    assert pairs[0] == {"class": "cat", "taken_for": "dog", "images": 2, "share": 0.5}
    assert len(pairs) == 2
    assert pairs[1]["images"] == 1
    assert report.confusions(10)[-1]["class"] == "kit fox"


def test_the_matrix_counts_every_image_once(report: Report) -> None:
    matrix = report.matrix()
    assert matrix.sum() == 8
    assert matrix[0].tolist() == [2, 2, 0, 0, 0, 0]
    assert matrix[1].tolist() == [0, 2, 1, 0, 0, 0]


def test_an_image_may_have_several_labels_or_none(report: Report) -> None:
    valid = [(0, 1), (1,), (0,), (), (1,), (), (), (2,)]
    assert report.against(valid) == (3 / 5, 5)
    assert report.against([()] * 8) == (0.0, 0)


def test_csv_has_the_worst_class_first(report: Report, tmp_path: Path) -> None:
    report.write_per_class(tmp_path / "classes.csv")
    with (tmp_path / "classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["n02119789", "cat", "dog"]
    assert float(rows[1]["top1"]) == 0.5


def test_the_picture_is_of_the_matrix(report: Report, tmp_path: Path) -> None:
    report.draw_confusion(tmp_path / "picture.png", "six classes")
    names = ["cat", "dog", "kit fox", "ox", "pig", "rat"]
    draw_confusion(report.matrix(), names, tmp_path / "again.png", "six classes")
    assert (tmp_path / "picture.png").read_bytes() == (tmp_path / "again.png").read_bytes()
