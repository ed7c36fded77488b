"""`configs/REFERENCE.md`: every key of a configuration, as the typed tree has it.

python -m res2net.config.reference > configs/REFERENCE.md
"""

import ast
import inspect
import json
from collections.abc import Iterator
from dataclasses import Field, fields
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin

from omegaconf import MISSING

from res2net.config.values import GROUPS, HINTS, rule_of

_TYPES = {str: "text", int: "integer", float: "number", bool: "`true` or `false`"}

_HEAD = """\
# All settings

Made by `python -m res2net.config.reference > configs/REFERENCE.md` of the dataclasses in
`res2net/config/` (`schema.py`, `schema_data.py`, `schema_learning.py`); a test holds it current.

A YAML names them as `group: {key: value}`, the command line as `group.key=value`. The defaults
are those of the schema; a recipe of this folder changes some, the command line any.
"""


def reference() -> str:
    """The whole page, Markdown."""
    return "\n".join([_HEAD, *(line for group in GROUPS for line in _section(group))])


def descriptions(schema: type) -> dict[str, str]:
    """Field -> the docstring below it, in one line.

    Args:
        schema: A dataclass whose source can be read.

    Raises:
        OSError: It cannot.
    """
    (definition,) = ast.parse(inspect.getsource(schema)).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for statement, after in pairwise(definition.body):
        match statement, after:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = " ".join(text.split())
    return found


def _section(group: str) -> Iterator[str]:
    schema = GROUPS[group]
    words = descriptions(schema)
    yield f"## {group}\n"
    yield f"{inspect.getdoc(schema)}\n"
    yield "| key | value | default | meaning |"
    yield "|---|---|---|---|"
    for field in fields(schema):
        key = f"{group}.{field.name}"
        yield f"| `{key}` | {_value(key)} | {_default(field)} | {_cell(words[field.name])} |"
    yield ""


def _value(key: str) -> str:
    """What may stand there: the type or the choices, and the range."""
    hint, rule = HINTS[key], rule_of(key)
    words = rule.words if rule else ""
    if get_origin(hint) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(hint))
    if get_origin(hint) is tuple:
        return words
    return ", ".join(filter(None, [_TYPES[hint], words]))


def _default(field: Field[Any]) -> str:
    """As it is written in a YAML or after `=`."""
    default = field.default
    if default in ("", MISSING):
        return "empty" if default == "" else ""
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def _cell(text: str) -> str:
    """Words of a docstring, whose `code` is Markdown's already."""
    parts = text.replace("|", "\\|").split("`")
    parts[::2] = [words.replace("<", "\\<") for words in parts[::2]]
    return "`".join(parts)


if __name__ == "__main__":
    print(reference(), end="")
