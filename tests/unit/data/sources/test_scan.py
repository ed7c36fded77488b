"""Words for lists and counts of files."""

import pytest

from res2net.data.sources.scan import counted


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, "image"), "0 images"),
        ((1, "image"), "1 image"),
        ((2, "image"), "2 images"),
        ((50_000, "image"), "50,000 images"),
        ((1, "class", "classes"), "1 class"),
        ((3, "class", "classes"), "3 classes"),
    ],
)
def test_one_and_many(arguments, words):
    assert counted(*arguments) == words
