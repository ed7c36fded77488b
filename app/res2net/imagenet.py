"""The 1,000 classes of ImageNet-1k (ILSVRC 2012), in the order of all published heads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources

NUM_CLASSES = 1000


@cache
def class_names() -> dict[str, str]:
    """WordNet id -> English name, both unique; the n-th of them is the n-th output of a head.

    Source of the names: torchvision's list of categories.
    """
    return {wnid: name for wnid, name, _ in _table()}


@cache
def ilsvrc2012_ids() -> dict[int, str]:
    """ILSVRC2012_ID -> WordNet id. The devkit's labels are these ids, which are not heads' order.

    Source: the devkit's map_clsloc.txt, which agrees with the order of darknet's labels.
    """
    return {int(number): wnid for wnid, _, number in _table()}


def _table() -> list[list[str]]:
    """Rows of WordNet id, name and ILSVRC2012_ID, in the order of heads."""
    table = resources.files("res2net").joinpath("imagenet_classes.tsv").read_text("utf-8")
    return [line.split("\t") for line in table.splitlines()]


def readable(names: Sequence[str]) -> tuple[str, ...]:
    """For people: English names in place of ImageNet's ids, all others as they are."""
    known = class_names()
    return tuple(known.get(name, name) for name in names)
