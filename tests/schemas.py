"""What `--json` prints, held against the schemas that come with the package."""

import json
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

import res2net

FOLDER = Path(res2net.__file__).with_name("schemas")
SCHEMAS = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def fits(name: str, printed: str) -> Any:
    """The value of `printed`, which is JSON and fits the schema `name`; else AssertionError."""
    value = json.loads(printed, parse_constant=_refuse)
    wrong = [f"{error.json_path}: {error.message}" for error in _validator(name).iter_errors(value)]
    assert not wrong, f"{name}.json: {'; '.join(wrong)}"
    return value


@cache
def _validator(name: str) -> Draft202012Validator:
    registry = Registry().with_resources(
        (schema["$id"], Resource.from_contents(schema)) for schema in SCHEMAS.values()
    )
    return Draft202012Validator(SCHEMAS[name], registry=registry)


def _refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant}: is no JSON")
