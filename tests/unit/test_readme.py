"""What README.md says of variants and exit codes is what the tables and the command say."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from res2net import stopping
from res2net.cli import main as cli
from res2net.errors import InputError, Stopped, WorkError
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


def test_exit_codes_are_those_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(error: BaseException | None) -> int:
        def run(arguments: object) -> int:
            if error is not None:
                raise error
            return 0

        verb = SimpleNamespace(add_arguments=lambda parser: None, run=run)
        monkeypatch.setitem(sys.modules, "res2net.cli.doctor", verb)
        return cli.main(["doctor"])

    endings = [None, WorkError(), InputError(), Stopped("", number=15), KeyboardInterrupt()]
    codes = {*map(ends, [*endings, stopping.Ended(1), stopping.Ended(15)]), cli.NOBODY_READS}
    _, _, table = README.partition("| exit code |")
    told = re.findall(r"^\| ([\d, ]+) \|", table.partition("\n\n")[0], re.MULTILINE)
    assert {int(code) for cell in told for code in cell.split(",")} == codes
    first = str(cli.__doc__).partition("\n\n")[2].partition("\n\n")[0]
    named = re.findall(r"(?<![\w.])\d{1,3}(?=\s\s|:)", first)
    assert {int(code) for code in named} == codes
