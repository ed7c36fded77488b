"""How other code names the same tensors: whose keys these are, and one way to exchange them.

The tables stand in `keymaps`. A table works in both directions and is one to one, so that a file
that goes there and comes back has not changed by a bit. Two things have no room everywhere: the
counters of batch norms in PaddleClas's files, and tensors of the authors' DLA that nothing computes
with.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

import torch

from res2net.errors import InputError
from res2net.weights.keymaps import KEY_MAPS, Format, KeyMap, Pairs, Reshape

Value = TypeVar("Value")

NAMED = 8
"""How many keys an error names; the rest is counted."""

# What wrapping a module puts in front of every key: DataParallel and DDP, and the attributes that
# Lightning modules commonly have.
_WRAPPERS = ("module.", "model.", "net.", "backbone.")
# torch.compile puts this where the compiled module stands, which may be inside.
_COMPILED = "_orig_mod."
_BACKBONE = "backbone."
_FIRST_BLOCK = "backbone.stages.0.0"
_COUNTER = ".num_batches_tracked"
_OUR_MARKS = (
    {"backbone.stem.conv1.weight", "backbone.stages.0.0.conv1.weight"},
    {"backbone.base_layer.0.weight", "backbone.level2.tree1.conv1.weight"},
)


def strip_wrappers(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Take off what DataParallel, DDP, torch.compile and Lightning put into the keys.

    A prefix goes only if every key has it, and only if keys of a known format come out.
    """
    stripped = {key.replace(_COMPILED, ""): value for key, value in tensors.items()}
    while detect_format(stripped) is None:
        for wrapper in _WRAPPERS:
            if stripped and all(key.startswith(wrapper) for key in stripped):
                stripped = {key.removeprefix(wrapper): value for key, value in stripped.items()}
                break
        else:
            return dict(tensors)
    return stripped


def detect_format(keys: Iterable[str]) -> Format | None:
    """Whose keys these are, wrappers already off; None: nobody's that is known here."""
    present = set(keys)
    if any(marks <= present for marks in _OUR_MARKS):
        return "res2net"
    key_map = _recognise(_bare(dict.fromkeys(present)))
    return None if key_map is None else key_map.format


def to_ours(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], Format]:
    """Tensors by anybody's keys, wrappers already off -> (by our keys, whose keys they were).

    A backbone without its classifier, also one whose keys begin with `backbone.`, is taken too.

    Raises:
        InputError: The keys are nobody's that is known here, some have no place in a Res2Net, or
            the shape of a tensor is not that of its place.
    """
    if detect_format(tensors) == "res2net":
        return dict(tensors), "res2net"
    theirs = _bare(tensors)
    key_map = _recognise(theirs)
    if key_map is None:
        shown = ", ".join(list(tensors)[:3])
        raise InputError(f"its keys ({shown}, ...) are not those of a Res2Net")
    dead = {key for key, _, _ in key_map.dead}
    living = {key: value for key, value in theirs.items() if key not in dead}
    ours = _exchange(living, key_map.prefixes, key_map.parts, key_map.leaves)
    for key, reshape in key_map.reshapes:
        if key in ours:
            name, _ = as_there(key, (), format=key_map.format, ours=ours)
            ours[key] = _reshaped(name, ours[key], reshape)
    return ours, key_map.format


def from_ours(tensors: Mapping[str, torch.Tensor], target: Format) -> dict[str, torch.Tensor]:
    """Tensors by our keys -> by those of `target`; the reverse of `to_ours`.

    Raises:
        InputError: `target` has no network of this shape, or a key is not ours.
    """
    if target == "res2net":
        return dict(tensors)
    # timm's files are the authors' but for DLA and for plain ResNets.
    wanted = ("timm", "torchvision", "official") if target == "timm" else (target,)
    fitting = {
        key_map.format: key_map
        for key_map in reversed(KEY_MAPS)
        if key_map.format in wanted and _has_form(key_map, tensors)
    }
    if not fitting:
        choices = ", ".join(possible_targets(tensors))
        raise InputError(f"{target!r} has no form for this network (choices: {choices})")
    key_map = next(fitting[format] for format in wanted if format in fitting)
    given = dict(tensors)
    for key, reshape in key_map.reshapes:
        if key in given:
            tensor = given[key]
            given[key] = tensor.t() if reshape == "transpose" else tensor[:, :, None, None]
    if not key_map.counters:
        given = {key: value for key, value in given.items() if not key.endswith(_COUNTER)}
    theirs = _exchange(given, *_reversed_tables(key_map))
    for key, shape, value in key_map.dead:
        theirs[key] = torch.full(shape, value) if shape else torch.tensor(int(value))
    return theirs


def possible_targets(tensors: Mapping[str, torch.Tensor]) -> list[Format]:
    """The formats that have a form for a network with these tensors by our keys."""
    fitting = [key_map.format for key_map in KEY_MAPS if _has_form(key_map, tensors)]
    if "official" in fitting:
        fitting.append("timm")
    return ["res2net", *dict.fromkeys(fitting)]


def as_there(
    key: str, shape: tuple[int, ...], *, format: Format, ours: Collection[str]
) -> tuple[str, tuple[int, ...]]:
    """Name and shape of one of our tensors in a file of that format, to tell people of it.

    Args:
        key: By our name; one that has no place there keeps it.
        shape: Of ours.
        format: Whose names.
        ours: Our keys of the file's tensors.
    """
    for key_map in KEY_MAPS:
        if key_map.format == format and all(mark in ours for mark in key_map.our_marks):
            try:
                (name,) = _exchange({key: shape}, *_reversed_tables(key_map))
            except InputError:
                break
            reshape = dict(key_map.reshapes).get(key)
            if reshape == "transpose":
                return name, shape[::-1]
            return name, (*shape, 1, 1) if reshape == "conv_1x1" and len(shape) == 2 else shape
    return key, shape


def name_some(items: Iterable[str], *, between: str = ", ") -> str:
    """The first few, and how many more there are."""
    every = list(items)
    more = f" (and {len(every) - NAMED} more)" if len(every) > NAMED else ""
    return between.join(every[:NAMED]) + more


def _recognise(keys: Mapping[str, object]) -> KeyMap | None:
    return next((known for known in KEY_MAPS if all(mark in keys for mark in known.marks)), None)


def _bare(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Without `backbone.` where that is only a wrapper: some formats have it in their names."""
    # mmpretrain's classifier stands beside its backbone, not in it.
    wrapped = _recognise(tensors) is None or f"{_BACKBONE}fc.weight" in tensors
    if wrapped and all(key.startswith(_BACKBONE) for key in tensors):
        return {key.removeprefix(_BACKBONE): value for key, value in tensors.items()}
    return dict(tensors)


def _has_form(key_map: KeyMap, tensors: Mapping[str, torch.Tensor]) -> bool:
    if not all(mark in tensors for mark in key_map.our_marks):
        return False
    return not key_map.plain or _is_plain(tensors)


def _is_plain(tensors: Mapping[str, torch.Tensor]) -> bool:
    """See `KeyMap.plain`. The only convolution of scale 2 has half of the width."""
    conv1, conv2 = (tensors.get(f"{_FIRST_BLOCK}.{name}.weight") for name in ("conv1", "convs.0"))
    if conv1 is None or conv2 is None or conv1.shape[0] != conv2.shape[0]:
        return False
    return not {"backbone.stem.conv2.weight", f"{_FIRST_BLOCK}.se.fc1.weight"} & tensors.keys()


def _reversed_tables(key_map: KeyMap) -> tuple[Pairs, Pairs, Pairs]:
    return _reverse(key_map.prefixes), _reverse(key_map.parts), _reverse(key_map.leaves)


def _reverse(pairs: Pairs) -> Pairs:
    return tuple((ours, theirs) for theirs, ours in pairs)


def _exchange(
    tensors: Mapping[str, Value], prefixes: Pairs, parts: Pairs, leaves: Pairs
) -> dict[str, Value]:
    front, end = dict(prefixes), dict(leaves)
    exchanged: dict[str, Value] = {}
    homeless: list[str] = []
    for key, value in tensors.items():
        cut = key.rfind(".")
        module, leaf = key[:cut], key[cut + 1 :]
        new = f"{module}.{end.get(leaf, leaf)}"
        while cut >= 0 and new[: cut + 1] not in front:
            cut = new.rfind(".", 0, cut)
        if cut < 0:
            homeless.append(key)
            continue
        rest = new[cut:]  # with the dot, by which the first part of it is found
        for old_part, new_part in parts:
            rest = rest.replace(old_part, new_part)
        renamed = front[new[: cut + 1]] + rest[1:]
        if renamed in exchanged:
            homeless.append(key)
        exchanged[renamed] = value
    if homeless:
        raise InputError(f"keys that have no place in a Res2Net: {name_some(homeless)}")
    return exchanged


def _reshaped(key: str, tensor: torch.Tensor, reshape: Reshape) -> torch.Tensor:
    if reshape == "transpose" and tensor.ndim == 2:
        return tensor.t().contiguous()
    if reshape == "conv_1x1" and tensor.ndim == 4 and tensor.shape[2:] == (1, 1):
        return tensor[:, :, 0, 0].contiguous()
    expected = "(C, N)" if reshape == "transpose" else "(N, C, 1, 1)"
    raise InputError(f"{key} is {tuple(tensor.shape)}, not {expected}")
