"""What README.md says of the variants is what the table of variants says."""

import re
from pathlib import Path

import pytest

from res2net.models.variants import VARIANTS
from res2net.weights.catalog import CATALOG

README = (Path(__file__).parents[2] / "README.md").read_text()
ROWS = {
    cells[0].strip("`"): cells
    for line in README.splitlines()
    if re.match(r"\| `\w+` \| [\d.]+ M \|", line)
    for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
}


def test_every_variant_with_a_published_accuracy_or_of_imagenet_size_is_there() -> None:
    told = {v.name for v in VARIANTS.values() if v.top1 is not None or v.image_size == 224}
    assert set(ROWS) == told


@pytest.mark.parametrize("name", ROWS)
def test_rows_agree_with_the_tables(name: str) -> None:
    variant = VARIANTS[name]
    _, parameters, macs, accuracy, whose, weights = ROWS[name]
    assert parameters == f"{variant.parameters / 1e6:.2f} M"
    assert macs == f"{variant.macs / 1e9:.2f} G"
    numbers = [n for n in (variant.top1, variant.top5) if n is not None]
    expected = " / ".join(f"{number:.2f}" for number in numbers)
    assert accuracy.removesuffix("(CIFAR-100)").strip() == expected
    assert accuracy.endswith("(CIFAR-100)") == (variant.image_size == 32)
    assert whose == (variant.measured_by or "")
    published = [file for file in CATALOG.values() if file.variant == name]
    sources, _, licence = weights.partition(": ")
    assert [s for s in sources.split(", ") if s] == [file.source for file in published]
    for file in published:
        assert ("Apache-2.0" in file.licence) == (licence == "Apache-2.0")
