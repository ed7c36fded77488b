"""Every `--json` has a schema, every schema is held against what a verb really prints.

Those of most verbs in the tests of the verb: search for `fits(`.
"""

import ast
import json
from argparse import ArgumentParser
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator

from res2net.cli.export import SUFFIXES
from res2net.cli.main import VERBS, main
from res2net.cluster.status import State
from res2net.weights.shipped import SAMPLE, SHIPPED
from samples import photo
from schemas import SCHEMAS, fits

MODEL = "res2net_digits"
REHEARSALS = ("train_dry_run", "train_find_lr", "train_plot_schedule", "train_preview")


def verbs_with_json() -> Iterator[str]:
    """Their files in cli/, as `data_check`; one writes it to a file."""
    for verb in VERBS:
        for inner in getattr(import_module(f"res2net.cli.{verb}"), "VERBS", [""]):
            file = "_".join(filter(None, (verb, inner)))
            usage = parser_of(file).format_usage()
            if "--json" in usage or "--out JSON" in usage:
                yield file


def parser_of(file: str) -> ArgumentParser:
    parser = ArgumentParser()
    import_module(f"res2net.cli.{file}").add_arguments(parser)
    return parser


def objects(schema: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema inside of one, and its place."""
    if isinstance(schema, list):
        for number, each in enumerate(schema):
            yield from objects(each, f"{where}[{number}]")
    elif isinstance(schema, dict):
        yield where, schema
        for key, value in schema.get("properties", {}).items():
            yield from objects(value, f"{where}.{key}")
        for key in ("items", "additionalProperties", "anyOf"):
            yield from objects(schema.get(key), f"{where}.{key}")


def test_every_verb_with_json_has_one() -> None:
    assert {*SCHEMAS} == {*verbs_with_json(), *REHEARSALS, "summary"}


def test_every_schema_is_held_against_an_output() -> None:
    calls = [
        node
        for path in Path(__file__).parents[2].rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "fits"
    ]
    names = [arg.value for call in calls for arg in call.args[:1] if isinstance(arg, ast.Constant)]
    assert {*names} == {*SCHEMAS}


@pytest.mark.parametrize("name", SCHEMAS)
def test_all_is_told_and_nothing_else_let_in(name: str) -> None:
    schema = SCHEMAS[name]
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"].endswith("/2020-12/schema") and schema["$id"] == f"{name}.json"
    for where, each in objects(schema, name):
        if "properties" in each:
            assert each["additionalProperties"] is False, where
            assert {*each["required"]} <= {*each["properties"]}, where
            for key, value in each["properties"].items():
                assert value.get("description"), f"{where}.{key}"
        elif each.get("type") == "object":
            assert each["description"], where


@pytest.mark.parametrize(
    ("file", "option", "place"),
    [
        ("export", "to", "to"),
        ("convert", "to", "to"),
        ("bench_model", "precision", "work.properties.precision"),
        ("test", "interpolation", "preprocessing.properties.interpolation"),
    ],
)
def test_choices_are_those_of_the_option(file: str, option: str, place: str) -> None:
    (action,) = [action for action in parser_of(file)._actions if action.dest == option]
    found = SCHEMAS[file]["properties"]
    for key in place.split("."):
        found = found[key]
    assert action.choices and found["enum"] == [*action.choices]


def test_states_are_those_of_a_run() -> None:
    runs = SCHEMAS["status"]["properties"]["runs"]["items"]["properties"]
    assert runs["state"]["enum"] == [*get_args(State)]


def test_a_rehearsal_is_held_against_its_own_schema() -> None:
    words = {"log": "a.out", "script": "a.sbatch", "text": "", "command": ["sbatch"]}
    for rehearsal in ({}, {"run": "a"}):
        with pytest.raises(AssertionError, match="rehearsal"):
            fits("submit", json.dumps({"job": None, **words, "rehearsal": rehearsal}))
    assert fits("submit", json.dumps({"job": None, **words, "rehearsal": None}))


# --- Verbs on images -----------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_predict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", MODEL, "--sample", "--json"]) == 0
    printed = capsys.readouterr().out
    (one,) = fits("predict", printed)
    assert one["label"] == "3"
    # and what does not fit is seen
    for wrong in (
        json.dumps([one | {"more": 1}]),
        json.dumps([{key: value for key, value in one.items() if key != "score"}]),
        json.dumps([one | {"score": 1.5}]),
        json.dumps([one | {"score": float("nan")}]),
        json.dumps(one),
    ):
        with pytest.raises(AssertionError):
            fits("predict", wrong)
    assert main(["predict", MODEL, "--sample", "--jsonl"]) == 0
    assert fits("predict", f"[{capsys.readouterr().out}]") == [one]


def test_features(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(10):
        path = Path("photos", "ab"[number % 2], f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(number).save(path)
    for options in (["--out=a.npz"], ["--probe"]):
        assert main(["features", MODEL, "photos", *options, "--json"]) == 0
        assert fits("features", capsys.readouterr().out)["images"] == 10


def test_cam(capsys: pytest.CaptureFixture[str]) -> None:
    other = str(SHIPPED[MODEL].path)
    for options in (["--out=one"], ["--out=two", f"--against={other}"]):
        assert main(["cam", MODEL, str(SAMPLE), *options, "--json"]) == 0
        (picture,) = fits("cam", capsys.readouterr().out)["pictures"]
        assert ("against" in picture) == (len(options) == 2)


def test_export(capsys: pytest.CaptureFixture[str]) -> None:
    compared = []
    for options in (["safetensors", "--out=a.safetensors", "--fold-bn"], ["folder", "--out=b"]):
        assert main(["export", MODEL, "--to", *options, "--json"]) == 0
        compared.append(fits("export", capsys.readouterr().out)["images"])
    assert compared[0] and compared[1] is None


def test_forms_of_export_are_those_of_its_schema() -> None:
    assert SCHEMAS["export"]["properties"]["to"]["enum"] == list(SUFFIXES)
