"""What an evaluation says beyond one number: by class, what is taken for what, by other labels."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from res2net import imagenet
from res2net.files.atomic import atomic_write_text
from res2net.files.csv_table import CsvTable
from res2net.plots.confusion import count_confusions, draw_confusion


@dataclass(frozen=True, eq=False)
class Report:
    """The labels of a data set and what a network said of its images."""

    class_names: tuple[str, ...]
    labels: np.ndarray
    """int64 (images,)."""
    predicted: np.ndarray
    """int64 (images, k), likeliest first."""
    seen: np.ndarray
    """bool (all images of the data set,): these are the ones above, the others were left out."""

    def per_class(self) -> list[dict[str, Any]]:
        """One row for each class that has images: how many, and which share of them was right."""
        hits = self.predicted == self.labels[:, None]
        count = len(self.class_names)
        images = np.bincount(self.labels, minlength=count)
        top1 = np.bincount(self.labels[hits[:, 0]], minlength=count)
        top5 = np.bincount(self.labels[hits.any(axis=1)], minlength=count)
        readable = imagenet.readable(self.class_names)
        return [
            {
                "index": index,
                "class": self.class_names[index],
                "name": readable[index],
                "images": int(images[index]),
                "top1": top1[index] / images[index],
                "top5": top5[index] / images[index] if count > self.predicted.shape[1] else None,
            }
            for index in np.flatnonzero(images).tolist()
        ]

    def balanced(self) -> float:
        """The mean of the classes' top-1: what top-1 would be, were all equally large."""
        return float(np.mean([row["top1"] for row in self.per_class()]))

    def confusions(self, most: int) -> list[dict[str, Any]]:
        """The pairs (class, what it was taken for) that occur most often, at most `most`."""
        wrong = self.predicted[:, 0] != self.labels
        pairs = np.stack([self.labels[wrong], self.predicted[wrong, 0]], axis=1)
        found, counts = np.unique(pairs, axis=0, return_counts=True)
        images = np.bincount(self.labels, minlength=len(self.class_names))
        names = imagenet.readable(self.class_names)
        return [
            {
                "class": names[true],
                "taken_for": names[said],
                "images": int(counts[place]),
                "share": counts[place] / images[true],
            }
            for place in np.argsort(-counts, kind="stable")[:most]
            for true, said in [found[place]]
        ]

    def matrix(self) -> np.ndarray:
        """int64 (classes, classes): images of the row's class taken for the column's."""
        return count_confusions(self.labels, self.predicted[:, 0], len(self.class_names))

    def against(self, valid: Sequence[Sequence[int]]) -> tuple[float, int]:
        """Top-1 by labels of which an image may have several, and how many images have any.

        Source: Beyer et al., Are we done with ImageNet?, arXiv 2006.07159, section 4.
        """
        valid = [labels for labels, seen in zip(valid, self.seen, strict=True) if seen]
        right = [said in labels for said, labels in zip(self.predicted[:, 0], valid, strict=True)]
        counted = [bool(labels) for labels in valid]
        images = sum(counted)
        return (sum(right) / images if images else 0.0), images

    def write_per_class(self, path: Path) -> None:
        """CSV, worst class first; accuracies as fractions. Raises OSError."""
        rows = sorted(self.per_class(), key=lambda row: row["top1"])
        stream = io.StringIO()
        table = CsvTable(stream)
        columns = ["index", "class", "name", "images", "top1", "top5"]
        table.row(columns)
        for row in rows:
            table.row(row[column] for column in columns)
        atomic_write_text(path, stream.getvalue())

    def draw_confusion(self, path: Path, title: str) -> None:
        """PNG of `matrix` (`plots.confusion.draw_confusion`). Raises OSError."""
        draw_confusion(self.matrix(), imagenet.readable(self.class_names), path, title)
