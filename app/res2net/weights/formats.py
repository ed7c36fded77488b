"""How other code names the same tensors: a table for each format, and one way to apply it.

A `KeyMap` is data and works in both directions: exactly one prefix is exchanged at the front of a
key, then each part inside it. Every pair is one to one, so that a map and its reverse lose nothing.

`official` are the keys of the authors' files; timm's ResNet-shaped Res2Nets have the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from res2net.errors import InputError

Format = Literal["res2net", "official"]
Value = TypeVar("Value")


@dataclass(frozen=True)
class KeyMap:
    """Pairs (theirs, ours)."""

    prefixes: tuple[tuple[str, str], ...]
    """Of a whole key; no prefix of one side begins with another of the same side."""
    parts: tuple[tuple[str, str], ...]
    """Inside a key."""


_STAGES = tuple((f"layer{number + 1}.", f"backbone.stages.{number}.") for number in range(4))
_HEAD = (("fc.", "head.fc."),)

OFFICIAL_V1 = KeyMap(
    prefixes=(
        ("conv1.", "backbone.stem.conv1."),
        ("bn1.", "backbone.stem.bn1."),
        *_STAGES,
        *_HEAD,
    ),
    parts=((".downsample.0.", ".shortcut.conv."), (".downsample.1.", ".shortcut.bn.")),
)
# v1b: three convolutions in the stem, and an average pool in front of the shortcut's convolution.
OFFICIAL_V1B = KeyMap(
    prefixes=(
        ("conv1.0.", "backbone.stem.conv1."),
        ("conv1.1.", "backbone.stem.bn1."),
        ("conv1.3.", "backbone.stem.conv2."),
        ("conv1.4.", "backbone.stem.bn2."),
        ("conv1.6.", "backbone.stem.conv3."),
        ("bn1.", "backbone.stem.bn3."),
        *_STAGES,
        *_HEAD,
    ),
    parts=((".downsample.1.", ".shortcut.conv."), (".downsample.2.", ".shortcut.bn.")),
)

# What wrapping a module puts in front of every key: DataParallel and DDP, Lightning.
_WRAPPERS = ("module.", "model.")
# torch.compile puts this where the compiled module stands, which may be inside.
_COMPILED = "_orig_mod."


def strip_wrappers(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Take off what DataParallel, DDP, torch.compile and Lightning put into the keys.

    A prefix goes only if every key has it.
    """
    stripped = {key.replace(_COMPILED, ""): value for key, value in tensors.items()}
    while stripped:
        for wrapper in _WRAPPERS:
            if all(key.startswith(wrapper) for key in stripped):
                stripped = {key.removeprefix(wrapper): value for key, value in stripped.items()}
                break
        else:
            break
    return stripped


def detect_format(keys: Iterable[str]) -> Format | None:
    """Whose keys these are, wrappers already off; None: nobody's that is known here."""
    present = set(keys)
    if {"backbone.stem.conv1.weight", "backbone.stages.0.0.convs.0.weight"} <= present:
        return "res2net"
    stems = {"conv1.weight", "conv1.0.weight"}
    if stems & present and "layer1.0.convs.0.weight" in present:
        return "official"
    return None


def from_official(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """The authors' or timm's keys -> ours, v1 or v1b by what the stem is.

    Raises:
        InputError: A key is not of that format.
    """
    key_map = OFFICIAL_V1B if "conv1.0.weight" in tensors else OFFICIAL_V1
    return _rename(tensors, key_map.prefixes, key_map.parts)


def to_official(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Our keys -> the authors' and timm's; the reverse of `from_official`.

    Raises:
        InputError: A key is not ours.
    """
    key_map = OFFICIAL_V1B if "backbone.stem.conv2.weight" in tensors else OFFICIAL_V1
    return _rename(tensors, _reverse(key_map.prefixes), _reverse(key_map.parts))


def _reverse(pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple((ours, theirs) for theirs, ours in pairs)


def _rename(
    tensors: Mapping[str, Value],
    prefixes: tuple[tuple[str, str], ...],
    parts: tuple[tuple[str, str], ...],
) -> dict[str, Value]:
    front = dict(prefixes)
    pattern = re.compile("|".join(re.escape(old) for old in front))
    renamed: dict[str, Value] = {}
    for key, value in tensors.items():
        match = pattern.match(key)
        if match is None:
            raise InputError(
                f"key {key!r} has no place in a Res2Net; keys begin with one of: {', '.join(front)}"
            )
        new = front[match.group()] + key[match.end() :]
        for old_part, new_part in parts:
            new = new.replace(old_part, new_part)
        renamed[new] = value
    return renamed
