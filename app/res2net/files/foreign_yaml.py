"""YAML that somebody else may have written, read within bounds as `foreign` reads other files.

PyYAML's own `compose` and `load` call themselves once a level: in Python that ends in
RecursionError, in C in a crash; and they take what an alias stands for as often as it is named. Its
parser, whose events are put together here, does neither.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from res2net.errors import InputError
from res2net.files.foreign import DEEPEST, check, finite, integer, read_text, too_deep

MOST_BYTES = 2**18
"""A configuration with all its keys has 4,000."""
MOST_NODES = 10_000
"""What an alias stands for is counted again."""
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value as it was written."""

    line: int
    """Counted from 1."""
    text: str
    plain: bool
    """Whether it stands without quotes, as a number has to."""
    tag: str | None


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    line: int
    items: list[Node]
    tag: str | None


@dataclass(frozen=True, slots=True)
class Table:
    """Keys and values in their order; a key may be any node, and stand there twice."""

    line: int
    pairs: list[tuple[Node, Node]]
    tag: str | None


Node: TypeAlias = Scalar | Items | Table


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """What a YAML says: tables by texts, lists, texts, numbers, booleans and None.

    A time stays a text, and `<<` a key like others.

    Raises:
        InputError: it is no YAML or no UTF-8, too large, too deep, has a key twice, or a tag.
    """
    root = compose_yaml(path, quick=True)
    if root is None:
        return None
    name = os.fspath(path)
    value = _plain(root, name)
    check(value, name)
    return value


def compose_yaml(path: str | os.PathLike[str], *, quick: bool = False) -> Node | None:
    """The values of a YAML as they were written, and where; None: it says nothing.

    Args:
        quick: by the parser in C, whose messages tell less.

    Raises:
        InputError: it is no YAML or no UTF-8, too large or too deep.
    """
    import yaml

    name = os.fspath(path)
    text = read_text(path, most=MOST_BYTES)
    # names that are no UTF-8 are written as escapes, which the parser in C does not know
    in_c = quick and not _ESCAPED_SURROGATE.search(text)
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader) if in_c else yaml.BaseLoader
    try:
        return _composed(yaml.parse(text, Loader=loader), name)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _broken(name, mark, str(error.problem)) from error
    except yaml.YAMLError as error:
        raise InputError(f"{name}: broken YAML: {' '.join(str(error).split())}") from error
    except ValueError as error:  # an escape beyond Unicode
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}: broken YAML: {error}") from error


def _broken(name: str, mark: Any, what: str) -> InputError:
    place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return InputError(f"{name}{place}: broken YAML: {what}")


@dataclass
class _Begun:
    """A list or table whose end has not come yet."""

    line: int
    anchor: str | None
    tag: str | None
    inner: list[Node]
    count: int = 1
    """Nodes in it, itself included, and what aliases in it stand for."""
    height: int = 1
    """Levels of it, those that aliases bring included."""


def _composed(events: Iterator[Any], name: str) -> Node | None:
    import yaml

    root: Node | None = None
    above: list[_Begun] = []
    anchors: dict[str, tuple[Node, int, int]] = {}
    documents = 0
    for event in events:
        line = event.start_mark.line + 1
        made: Node
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            if len(above) >= DEEPEST:
                raise InputError(too_deep(name))
            above.append(_Begun(line, event.anchor, event.tag, []))
            continue
        if isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            begun = above.pop()
            anchor, inner = begun.anchor, begun.inner
            count, height = begun.count, begun.height
            if isinstance(event, yaml.SequenceEndEvent):
                made = Items(begun.line, inner, begun.tag)
            else:
                pairs = list(zip(inner[::2], inner[1::2], strict=True))
                made = Table(begun.line, pairs, begun.tag)
        elif isinstance(event, yaml.ScalarEvent):
            anchor, count, height = event.anchor, 1, 0
            made = Scalar(line, event.value, bool(event.implicit[0]), event.tag)
        elif isinstance(event, yaml.AliasEvent):
            called = event.anchor or ""
            if called not in anchors:
                raise _broken(name, event.start_mark, f"nothing before is called &{called[:80]}")
            anchor, (made, count, height) = None, anchors[called]
            if len(above) + height > DEEPEST:
                raise InputError(too_deep(name))
        else:
            documents += isinstance(event, yaml.DocumentStartEvent)
            if documents > 1:
                raise _broken(name, event.start_mark, "a second document begins")
            continue
        if anchor is not None:
            anchors[anchor] = made, count, height
        if not above:
            root = made
            continue
        above[-1].inner.append(made)
        above[-1].count += count
        above[-1].height = max(above[-1].height, height + 1)
        if sum(begun.count for begun in above) > MOST_NODES:
            raise InputError(f"{name}: holds more than {MOST_NODES:,} values")
    return root


def _plain(node: Node, name: str) -> Any:
    """The value of a node; calls itself once a level, of which there are no more than `DEEPEST`."""
    if node.tag not in (None, "!"):
        raise InputError(f"{name}, line {node.line}: has the tag {node.tag[:80]!r}")
    if isinstance(node, Scalar):
        return _typed(node)
    if isinstance(node, Items):
        return [_plain(inner, name) for inner in node.items]
    table: dict[str, Any] = {}
    for key, inner in node.pairs:
        if not isinstance(key, Scalar):
            raise InputError(
                f"{name}, line {key.line}: a list or mapping stands where a key should"
            )
        if key.text in table:
            raise InputError(f"{name}, line {key.line}: {key.text[:80]}: given twice")
        table[key.text] = _plain(inner, name)
    return table


def _typed(scalar: Scalar) -> Any:
    """As YAML 1.1 takes a plain scalar; what makes no decimal number is a text."""
    if not scalar.plain:
        return scalar.text
    kind = _kind(scalar.text)
    if kind == "null":
        return None
    if kind == "bool":
        return _WORDS[scalar.text.lower()]
    digits = scalar.text.replace("_", "")
    try:
        if kind == "int":
            return integer(digits)
        if kind == "float":
            return finite(digits)
    except ValueError:  # of another base, such as 0x1f or 12:30; or none that anybody means
        return scalar.text
    return scalar.text


@cache
def _resolver() -> Any:
    from yaml.resolver import Resolver

    return Resolver()


def _kind(text: str) -> str:
    """What YAML 1.1 takes a plain scalar for: int, float, bool, null, timestamp, str, ..."""
    from yaml import ScalarNode

    return _resolver().resolve(ScalarNode, text, (True, False)).rpartition(":")[2]


_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
