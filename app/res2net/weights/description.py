"""What a file says of its weights (`files.runs.identity`), which anybody may have written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from res2net.errors import InputError
from res2net.files.runs import SCHEMA
from res2net.preprocessing import Preprocessing

METADATA_KEY = "res2net"
"""Where a checkpoint (an entry beside `state_dict`) or a safetensors file (its metadata, as JSON)
says what its weights are: `files.runs.identity`."""

_LONGEST = 1000
"""Characters of a name, or of a value of the configuration."""
_LONGEST_LICENCE = 20_000
_LONGEST_LIST = 1000
"""Values of a key of the configuration."""


@dataclass(frozen=True)
class Description:
    """Of one classifier."""

    model: str
    num_classes: int
    class_names: tuple[str, ...] | None
    preprocessing: Preprocessing | None
    config: dict[str, dict[str, Any]] | None
    """Group -> key -> text, number, boolean or list of these; nothing says that there is such a
    key, or that the value is one of it."""
    licence: str | None


def read_description(stored: Any) -> Description:
    """Take what is stored for data: plain values of the kinds that they have to be.

    Raises:
        InputError: it is no description, or of another version, or damaged.
    """
    if not isinstance(stored, Mapping) or "schema" not in stored:
        raise InputError(f"its description {METADATA_KEY!r} is not one of this project")
    schema = stored["schema"]
    if type(schema) is not int or schema != SCHEMA:
        shown = repr(schema)[:20] if type(schema) in (int, float) else type(schema).__name__
        raise InputError(f"its description has schema {shown}, this version reads {SCHEMA}")
    try:
        return Description(
            model=_text(stored, "model"),
            num_classes=_count(stored, "num_classes"),
            class_names=_names(stored),
            preprocessing=_preprocessing(stored),
            config=_config(stored),
            licence=None
            if stored.get("licence") is None
            else _text(stored, "licence", longest=_LONGEST_LICENCE),
        )
    except KeyError as error:
        raise InputError(f"its description {METADATA_KEY!r} is damaged: lacks {error}") from error
    except InputError as error:
        raise InputError(f"its description {METADATA_KEY!r} is damaged: {error}") from error


def _text(stored: Mapping[Any, Any], key: str, *, longest: int = _LONGEST) -> str:
    if not _is_text(stored[key], longest):
        raise InputError(f"{key} is no text of at most {longest:,} characters")
    return str(stored[key])


def _count(stored: Mapping[Any, Any], key: str) -> int:
    value = stored[key]
    if type(value) is not int or not 0 <= value < 2**31:
        raise InputError(f"{key} is no number of classes")
    return value


def _names(stored: Mapping[Any, Any]) -> tuple[str, ...] | None:
    names = stored["class_names"]
    if not isinstance(names, (list, tuple, type(None))):
        raise InputError(f"class_names is a {type(names).__name__}, not a list")
    if not all(_is_text(name) for name in names or ()):
        raise InputError(f"class_names holds what is no text of at most {_LONGEST:,} characters")
    return tuple(names) if names else None


def _preprocessing(stored: Mapping[Any, Any]) -> Preprocessing | None:
    told = stored["preprocessing"]
    if told is None:
        return None
    if not isinstance(told, Mapping) or not all(map(_is_leaf, told.values())):
        raise InputError("preprocessing is no table of plain values")
    try:
        return Preprocessing.from_dict(told)
    except KeyError as error:
        raise InputError(f"preprocessing lacks {error}") from error


def _config(stored: Mapping[Any, Any]) -> dict[str, dict[str, Any]] | None:
    told = stored.get("config")
    if told is None:
        return None
    if not isinstance(told, Mapping) or not all(map(_is_group, told.items())):
        raise InputError("config is no table of groups of plain values")
    return {group: dict(leaves) for group, leaves in told.items()}


def _is_group(item: tuple[Any, Any]) -> bool:
    group, leaves = item
    return (
        _is_text(group)
        and isinstance(leaves, Mapping)
        and all(_is_text(key) and _is_leaf(value) for key, value in leaves.items())
    )


def _is_leaf(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) <= _LONGEST_LIST and all(map(_is_plain, value))
    return _is_plain(value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return _is_text(value)
    # of exactly these types: what is derived from them may print what it likes
    return type(value) in (bool, float) or (type(value) is int and abs(value) < 2**63)


def _is_text(value: Any, longest: int = _LONGEST) -> bool:
    if type(value) is not str or len(value) > longest:
        return False
    try:
        os.fsencode(value)
    except UnicodeEncodeError:  # half a pair of surrogates, which can be written nowhere
        return False
    return True
