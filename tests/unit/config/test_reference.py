"""`configs/REFERENCE.md` is what the dataclasses say, and says all that a user can set."""

import re
import runpy
from pathlib import Path

import pytest

from res2net.config.load import load_config, to_dict
from res2net.config.schema import Config
from res2net.config.values import typed_value

PAGE = Path(__file__).parents[3] / "configs/REFERENCE.md"
ROWS = {
    cells[0].strip("`"): cells[1:]
    for line in PAGE.read_text().splitlines()
    if line.startswith("| `")
    for cells in [re.split(r" (?<!\\)\| ", line.removeprefix("| ").removesuffix(" |"))]
}


def test_the_page_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_module("res2net.config.reference", run_name="__main__")
    made = capsys.readouterr().out
    assert made == PAGE.read_text(), "python -m res2net.config.reference > configs/REFERENCE.md"


def test_every_key_has_one_row() -> None:
    tree = to_dict(load_config("quickstart", []))
    assert list(ROWS) == [f"{group}.{leaf}" for group, leaves in tree.items() for leaf in leaves]
    for key, (value, _, meaning) in ROWS.items():
        assert value and len(meaning) > 10, key


@pytest.mark.parametrize("key", [key for key in ROWS if key != "run.name"])
def test_a_default_is_the_schemas_as_a_user_writes_it(key: str) -> None:
    written = ROWS[key][1]
    text = "" if written == "empty" else written.strip("`")
    group, leaf = key.split(".")
    assert typed_value(key, text) == getattr(getattr(Config(), group), leaf)


def test_choices_and_ranges_are_told() -> None:
    assert ROWS["optim.name"][:2] == ["`sgd`, `adamw`, `lamb`, `muon`", "`sgd`"]
    assert ROWS["data.global_batch_size"][:2] == ["integer, between 1 and 1,048,576", "`256`"]
    assert ROWS["data.mean"][:2] == ["three numbers between 0 and 1", "`[0.485, 0.456, 0.406]`"]
    assert ROWS["trainer.devices"][:2] == [
        "text, auto or an integer between 1 and 1,024",
        "`auto`",
    ]
    assert ROWS["checkpoint.every_minutes"][2] == "Minutes between two saves. 0: not by time."
