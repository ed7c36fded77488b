"""Read weights from files of many origins, never running their code, and put them into a network.

A file is read whole and checked before anything is loaded; what is wrong with it is said in one
line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from res2net import imagenet
from res2net.errors import DamagedFileError, InputError
from res2net.files.inert import Inert
from res2net.models.head import Res2NetClassifier
from res2net.models.variants import VARIANTS
from res2net.preprocessing import Preprocessing
from res2net.weights.description import read_description
from res2net.weights.formats import as_there, name_some, strip_wrappers, to_ours
from res2net.weights.infer import infer_variant, is_folded
from res2net.weights.keymaps import Format
from res2net.weights.stored import (
    ACCEPTED,
    Stored,
    find_file,
    find_tensors,
    read_stored,
)

_FC_WEIGHT = "head.fc.weight"
_FC_BIAS = "head.fc.bias"
_LONGEST_KEY = 300
"""Characters; the longest that are known have 90."""


@dataclass(frozen=True, eq=False)
class Weights:
    """The tensors of one classifier and what its file says of them."""

    state_dict: dict[str, torch.Tensor] = field(repr=False)
    """By this project's keys, on the CPU."""
    model: str | None
    """Name of the variant; None: the file does not say, see `infer.only_variant`."""
    num_classes: int
    """Rows of the head; 0: there is no head."""
    class_names: tuple[str, ...] | None
    """One for each class. Files of other code name none: 1,000 classes are taken as ImageNet's."""
    preprocessing: Preprocessing | None
    """What was done to the images these weights were trained on."""
    config: Mapping[str, Any] | None
    """Configuration of the run that made them: group -> key -> value."""
    source: str
    """The file; or which tensors, if they came from none."""
    format: Format = "res2net"
    """Whose keys the file has."""
    has_ema: bool = False
    """These are the raw weights, and the file has averaged ones too."""
    licence: str | None = None
    """Of the weights; None: the file does not say."""

    @property
    def is_folded(self) -> bool:
        """Whether the batch norms are in the convolutions, see `models.folding`."""
        return is_folded(self.state_dict)


def read_weights(
    path: str | os.PathLike[str],
    *,
    ema: bool = False,
    checkpoint: Literal["last", "best"] = "last",
    backbone_only: bool = False,
) -> Weights:
    """Read a checkpoint of this project or a file of any origin in `keymaps`, as their code does.

    Args:
        path: A file, or a run directory.
        ema: The averaged weights (`ema_state_dict`, timm's `state_dict_ema`) rather than the raw
            ones.
        checkpoint: Which file of a run directory.
        backbone_only: Also take a backbone without a classifier (0 classes), as detectors save it.

    Raises:
        InputError: There is no such file, or it is damaged, carries code, or holds something else
            than one Res2Net classifier.
    """
    file = find_file(path, checkpoint)
    return _read(lambda: read_stored(file, ema=ema), str(file), backbone_only=backbone_only)


def read_state_dict(
    tensors: Mapping[str, Any], *, ema: bool = False, backbone_only: bool = False
) -> Weights:
    """As `read_weights`, of what `torch.load` or a network's `state_dict` gave, by any keys.

    Raises:
        InputError: It is something else than one Res2Net classifier.
    """
    return _read(
        lambda: find_tensors(tensors, ema=ema), "the given state_dict", backbone_only=backbone_only
    )


def _read(read: Callable[[], Stored], source: str, *, backbone_only: bool) -> Weights:
    try:
        stored = read()
        state_dict, format = _our_keys(stored.tensors)
        weights = _describe(state_dict, stored.description, format=format, source=source)
        if weights.num_classes == 0 and not backbone_only:
            raise InputError("holds a backbone without a classifier")
        return replace(weights, has_ema=stored.has_ema)
    except InputError as error:
        accepted = f"; accepted: {ACCEPTED}" if isinstance(error, DamagedFileError) else ""
        raise InputError(f"weights {source!r}: {error}{accepted}") from error


def apply_weights(model: Res2NetClassifier, weights: Weights) -> str | None:
    """Load weights into a network of the same architecture: all of them, or none and an error.

    Returns:
        None, or one line for the user: the number of classes differs, and the head keeps the
        numbers it has.

    Raises:
        InputError: A tensor is missing, unexpected or of another shape. The network is as it was.
    """
    given, announcement = fit_weights(model, weights)
    model.load_state_dict(given, strict=True)
    return announcement


def fit_weights(
    model: Res2NetClassifier, weights: Weights
) -> tuple[dict[str, torch.Tensor], str | None]:
    """The tensors for `load_state_dict(strict=True)`, and what `apply_weights` announces.

    A head of another number of classes, or none, is replaced by the network's; batch counters that
    the file lacks are too.

    Raises:
        InputError: A tensor is missing, unexpected or of another shape; or the weights are of
            another variant with the same shapes; or their batch norms are folded, the network's
            not.
    """
    if weights.is_folded and not is_folded(model.state_dict()):
        raise InputError(
            f"weights {weights.source!r}: their batch norms are folded into the convolutions, for "
            "inference alone; take the weights that they were exported from"
        )
    given, announcement, problems = _compare(model, weights)
    if problems:
        name = model.variant or "the network"
        raise InputError(
            f"weights {weights.source!r} do not fit {name}{_why(model.variant, weights, problems)}"
        )
    _check_meaning(weights, model.variant)
    return given, announcement


def misfits(model: Res2NetClassifier, weights: Weights) -> list[str]:
    """What is missing, unexpected or of another shape, by the names that the file has for it."""
    return _compare(model, weights)[2]


def _compare(
    model: Res2NetClassifier, weights: Weights
) -> tuple[dict[str, torch.Tensor], str | None, list[str]]:
    """What `fit_weights` returns, and `misfits`."""
    expected = model.state_dict()
    given = dict(weights.state_dict)
    announcement = None
    if weights.num_classes != model.num_classes:
        for key in (_FC_WEIGHT, _FC_BIAS):
            # A head of another width belongs to another network: that stays a misfit.
            fits = key in given and given[key].shape[1:] == expected[key].shape[1:]
            if fits or (key not in given and weights.num_classes == 0):
                given[key] = expected[key]
        announcement = (
            f"weights {weights.source!r} are for {weights.num_classes or 'no'} classes, the "
            f"network has {model.num_classes}: the head starts fresh"
        )
    for key, tensor in expected.items():
        # Files of before 2018 and PaddleClas's have no such counters; no published network uses
        # them.
        if key.endswith(".num_batches_tracked"):
            given.setdefault(key, tensor)

    def there(key: str, tensor: torch.Tensor) -> tuple[str, tuple[int, ...]]:
        return as_there(key, tuple(tensor.shape), format=weights.format, ours=weights.state_dict)

    problems = [
        f"{there(key, tensor)[0]} is missing"
        for key, tensor in expected.items()
        if key not in given
    ]
    problems += [
        f"{there(key, tensor)[0]} is unexpected"
        for key, tensor in given.items()
        if key not in expected
    ]
    for key, tensor in expected.items():
        if key in given and given[key].shape != tensor.shape:
            (name, shape), (_, wanted) = there(key, given[key]), there(key, tensor)
            problems.append(f"{name} is {shape}, not {wanted}")
    return given, announcement, problems


def _why(variant: str, weights: Weights, problems: list[str]) -> str:
    """The rest of the sentence: whose weights they are, or what is wrong with them."""
    fitting = infer_variant(weights.state_dict, format=weights.format)
    if variant in VARIANTS and fitting and variant not in fitting:
        meant = [weights.model] if weights.model in fitting else fitting
        which = "that" if len(meant) == 1 else "one of them"
        return (
            f": these are weights of {' or '.join(meant)}; name {which} as the model (in a "
            f"configuration model.name={meant[0]}), or take other weights"
        )
    said = weights.model not in (None, variant)
    whose = f" (they are of {weights.model})" if said else ""
    return f"{whose}: {name_some(problems, between='; ')}"


def _check_meaning(weights: Weights, variant: str) -> None:
    """Refuse weights whose own blocks have these shapes and compute something else."""
    meant = [weights.model]
    if weights.model not in VARIANTS:
        meant = [*infer_variant(weights.state_dict, format=weights.format)]
    if variant in VARIANTS and meant and variant not in meant:
        raise InputError(
            f"weights {weights.source!r} do not fit {variant}: they are of {meant[0]}, whose "
            "blocks have the same shapes, but pool and add in another way"
        )


def _short(key: object) -> str:
    # an integer may have more digits than Python writes
    plain = isinstance(key, str | float | bytes | None) or (
        isinstance(key, int) and abs(key) < 2**63
    )
    shown = repr(key) if plain else type(key).__name__
    return shown if len(shown) <= 100 else f"{shown[:100]}..."


def _our_keys(tensors: Mapping[Any, Any]) -> tuple[dict[str, torch.Tensor], Format]:
    if not tensors:
        raise InputError("holds no weights")
    for key, value in tensors.items():
        if isinstance(key, str) and len(key) > _LONGEST_KEY:
            raise InputError(f"entry {_short(key)}: a name of {len(key):,} characters")
        name = value.name if isinstance(value, Inert) else type(value).__name__
        if isinstance(value, torch.Tensor) and value.is_complex():
            name = "tensor of complex numbers"
        elif isinstance(key, str) and isinstance(value, torch.Tensor):
            continue
        raise InputError(f"entry {_short(key)} is a {name}, not a tensor of numbers")
    return to_ours(strip_wrappers(tensors))


def _describe(
    state_dict: dict[str, torch.Tensor], description: Any, *, format: Format, source: str
) -> Weights:
    num_classes = 0
    if any(key.startswith("head.") for key in state_dict):
        if _FC_WEIGHT not in state_dict or state_dict[_FC_WEIGHT].ndim != 2:
            name, _ = as_there(_FC_WEIGHT, (), format=format, ours=state_dict)
            raise InputError(f"its classifier has no matrix {name}")
        if not state_dict[_FC_WEIGHT].numel():
            raise InputError("its classifier has no numbers")
        num_classes = state_dict[_FC_WEIGHT].shape[0]
    if description is None:
        foreign = format != "res2net" and num_classes == imagenet.NUM_CLASSES
        names = tuple(imagenet.class_names()) if foreign else None
        return Weights(state_dict, None, num_classes, names, None, None, source, format)
    said = read_description(description)
    if said.num_classes != num_classes:
        raise InputError(f"says {said.num_classes} classes, its head has {num_classes}")
    names = said.class_names
    if names is not None and len(names) != num_classes:
        raise InputError(f"names {len(names)} classes, its head has {num_classes}")
    return Weights(
        state_dict=state_dict,
        model=said.model,
        num_classes=num_classes,
        class_names=names,
        preprocessing=said.preprocessing,
        config=said.config,
        source=source,
        format=format,
        licence=said.licence,
    )
