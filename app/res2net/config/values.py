"""What a text means at a key: its type, its range, or one line that says what is wrong with it."""

import difflib
import math
import re
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from omegaconf import MISSING

from res2net.config.rules import RULES, Range, Ranges, Rule
from res2net.config.schema import Config
from res2net.errors import InputError

GROUPS: dict[str, type] = get_type_hints(Config)
HINTS: dict[str, Any] = {
    f"{group}.{leaf}": hint
    for group, schema in GROUPS.items()
    for leaf, hint in get_type_hints(schema).items()
}
_BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


_SHOWN = 60
"""Characters of a value that a message shows."""


def rule_of(key: str) -> Rule | Range | Ranges | None:
    """What the value of a key must hold to beside its type; None: choices, true and false."""
    return RULES.get(key)


def typed_value(key: str, text: str | list[str]) -> Any:
    """The value that `text` means at `key`. Raises InputError: unknown key, wrong type, range."""
    if key in GROUPS:
        names = ", ".join(field.name for field in fields(GROUPS[key]))
        raise InputError(f"{key}: {shown(text)} given to a group; its keys are {names}")
    if key not in HINTS:
        raise InputError(unknown_key(key))
    rule = rule_of(key)
    try:
        value = _converted(HINTS[key], text)
        if rule and not rule.holds(value):
            raise ValueError(rule.words)
    except ValueError as error:
        raise InputError(f"{key}: {shown(text)} is not {error}") from None
    return value


def stored_value(key: str, value: Any) -> Any:
    """The value at `key` of a stored configuration, held to the same rules as one that is written.

    Raises InputError: as `typed_value`; or what is stored is neither text nor number nor a list.
    """
    if isinstance(value, (list, tuple)):
        return typed_value(key, [_written(key, item) for item in value])
    return typed_value(key, _written(key, value))


def _written(key: str, value: Any) -> str:
    if isinstance(value, (bool, float, str)):
        return str(value)
    if isinstance(value, int) and abs(value) < 2**63:
        return str(value)
    what = "an integer beyond 64 bits" if isinstance(value, int) else f"a {type(value).__name__}"
    raise InputError(f"{key[:80]}: {what} is stored there")


def _converted(hint: Any, text: str | list[str]) -> Any:
    """Raises ValueError with the words that complete "'abc' is not ..."."""
    if get_origin(hint) is tuple:
        return _numbers(None if Ellipsis in get_args(hint) else len(get_args(hint)), text)
    if isinstance(text, list):
        raise ValueError("one value")
    if hint is str:
        # OmegaConf's own signs for a missing value and for a reference.
        if text == MISSING or "${" in text:
            raise ValueError(f"plain text: {MISSING} and ${{...}} are not filled in")
        return text
    if get_origin(hint) is Literal:
        if text not in get_args(hint):
            raise ValueError(f"one of {', '.join(get_args(hint))}")
        return text
    if hint is bool:
        if text.lower() not in _BOOLS:
            raise ValueError("true or false")
        return _BOOLS[text.lower()]
    return _number(hint, text)


def _numbers(count: int | None, text: str | list[str]) -> tuple[float, ...]:
    """`count` numbers, or as many as there are."""
    if isinstance(text, str):
        text = re.sub(r"^\s*[\[(]|[\])]\s*$", "", text).strip()
        text = text.split(",") if text else []
    try:
        numbers = tuple(float(_number(float, part)) for part in text)
    except ValueError:
        raise ValueError(
            "a list of numbers" if count is None else f"a list of {count} numbers"
        ) from None
    if count not in (None, len(numbers)):
        raise ValueError(f"a list of {count} numbers")
    return numbers


def _number(kind: type[int] | type[float], text: str) -> int | float:
    try:
        number = kind(text)
    except ValueError:
        raise ValueError("an integer" if kind is int else "a number") from None
    if isinstance(number, float) and not math.isfinite(number):
        raise ValueError("a finite number")
    return number


def shown(text: str | list[str]) -> str:
    """How a message shows what was written; of what is long the beginning."""
    if isinstance(text, str):
        return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}... ({len(text):,} long)"
    listed = ", ".join(text[:_SHOWN])
    return f"[{listed}]" if len(listed) <= _SHOWN else f"[{listed[:_SHOWN]}...] ({len(text):,})"


def unknown_key(key: str) -> str:
    """The line that says so, with the nearest known keys."""
    if len(key) > _SHOWN:
        return f"{shown(key)}: no such key; the groups are {', '.join(GROUPS)}"
    above = key.rpartition(".")[0]
    if above in HINTS:
        return f"{key}: no such key; {above} takes one value"
    if near := _nearest(key):
        return f"{key}: no such key; did you mean {' or '.join(near)}?"
    if above in GROUPS:
        names = ", ".join(field.name for field in fields(GROUPS[above]))
        return f"{key}: no such key; those of {above} are {names}"
    return f"{key}: no such key; the groups are {', '.join(GROUPS)}"


def _nearest(key: str) -> list[str]:
    """Known keys most like `key`, at most three; none if none is like it."""
    group, _, leaf = key.lower().rpartition(".")

    def likeness(known: str) -> float:
        known_group, _, known_leaf = known.partition(".")
        score = difflib.SequenceMatcher(None, leaf, known_leaf).ratio()
        if leaf in known_leaf.split("_") or f"_{known_leaf}".endswith(f"_{leaf}"):
            score = max(score, 0.85)
        if _initials(leaf) == known_leaf or _initials(known_leaf) == leaf:
            score = max(score, 0.85)
        return score + (0.15 if group == known_group else 0.0)

    scores = {known: likeness(known) for known in HINTS}
    best = max(scores.values())
    if best < 0.65:
        return []
    near = [known for known, score in scores.items() if score >= best - 0.05]
    return sorted(near, key=lambda known: -scores[known])[:3]


def _initials(leaf: str) -> str:
    """learning_rate -> lr: the field's usual abbreviations."""
    return "".join(word[:1] for word in leaf.split("_"))
