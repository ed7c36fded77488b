"""Read weights from files of many origins, never running their code, and put them into a network.

A file is read whole and checked before anything is loaded; what is wrong with it is said in one
line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from res2net import imagenet
from res2net.errors import InputError
from res2net.files.runs import SCHEMA, RunDirectory
from res2net.models.head import Res2NetClassifier
from res2net.models.variants import VARIANTS
from res2net.preprocessing import Preprocessing
from res2net.weights.formats import name_some, strip_wrappers, to_ours
from res2net.weights.infer import infer_variant
from res2net.weights.keymaps import Format
from res2net.weights.pickles import read_paddle, read_torch

METADATA_KEY = "res2net"
"""Where a checkpoint (an entry beside `state_dict`) or a safetensors file (its metadata, as JSON)
says what its weights are: `files.runs.identity`."""

ACCEPTED = (
    "a run directory, PyTorch files of tensors (.ckpt, .pth, .pt), .safetensors and .pdparams"
)

_CONTAINERS = ("state_dict", "model")
_EMA_CONTAINERS = ("ema_state_dict", "state_dict_ema")  # ours, timm's
_NO_AVERAGE = f"holds no averaged weights ({' or '.join(_EMA_CONTAINERS)})"
_FC_WEIGHT = "head.fc.weight"
_FC_BIAS = "head.fc.bias"


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
    """The file."""
    format: Format = "res2net"
    """Whose keys the file has."""


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
        ema: The averaged weights (`ema_state_dict`) rather than the raw ones.
        checkpoint: Which file of a run directory.
        backbone_only: Also take a backbone without a classifier (0 classes), as detectors save it.

    Raises:
        InputError: There is no such file, or it is damaged, carries code, or holds something else
            than one Res2Net classifier.
    """
    file = _resolve(Path(path), checkpoint)
    try:
        if file.suffix == ".safetensors":
            tensors, description = _read_safetensors(file, ema=ema)
        elif file.suffix == ".pdparams":
            if ema:
                raise InputError(_NO_AVERAGE)
            tensors, description = read_paddle(file), None
        else:
            tensors, description = _read_torch(file, ema=ema)
        state_dict, format = _our_keys(tensors)
        weights = _describe(state_dict, description, format=format, source=str(file))
        if weights.num_classes == 0 and not backbone_only:
            raise InputError("holds a backbone without a classifier")
        return weights
    except InputError as error:
        raise InputError(f"weights {str(file)!r}: {error}; accepted: {ACCEPTED}") from error


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
            another variant with the same shapes.
    """
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

    problems = [f"{key} is missing" for key in expected if key not in given]
    problems += [f"{key} is unexpected" for key in given if key not in expected]
    problems += [
        f"{key} is {tuple(given[key].shape)}, not {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in given and given[key].shape != tensor.shape
    ]
    if problems:
        name = model.variant or "the network"
        whose = ""
        if weights.model is not None and weights.model != model.variant:
            whose = f" (they are of {weights.model})"
        what = name_some(problems, between="; ")
        raise InputError(f"weights {weights.source!r} do not fit {name}{whose}: {what}")
    _check_meaning(weights, model.variant)
    return given, announcement


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


def _resolve(path: Path, checkpoint: Literal["last", "best"]) -> Path:
    if path.is_dir():
        run = RunDirectory(path)
        file = run.last if checkpoint == "last" else run.best
        if not file.is_file():
            present = sorted(found.name for found in path.glob("*.ckpt")) or ["no checkpoint"]
            raise InputError(
                f"weights {str(path)!r}: the directory has no {file.name}, it has "
                f"{', '.join(present)}; accepted: {ACCEPTED}"
            )
        return file
    if not path.is_file():
        raise InputError(f"weights {str(path)!r}: no such file; accepted: {ACCEPTED}")
    return path


def _read_torch(file: Path, *, ema: bool) -> tuple[Mapping[str, Any], Any]:
    """(tensors as named in the file, the description beside them or None)."""
    stored = read_torch(file)
    if not isinstance(stored, Mapping):
        raise InputError(f"holds a {type(stored).__name__}, not a table of weights")
    description = stored.get(METADATA_KEY)
    for container in _EMA_CONTAINERS if ema else _CONTAINERS:
        if isinstance(stored.get(container), Mapping):
            return stored[container], description
    if ema:
        raise InputError(_NO_AVERAGE)
    return stored, description


def _read_safetensors(file: Path, *, ema: bool) -> tuple[Mapping[str, Any], Any]:
    """As `_read_torch`."""
    from safetensors import SafetensorError, safe_open

    if ema:
        raise InputError(_NO_AVERAGE)
    if file.stat().st_size == 0:
        raise InputError("the file is empty")
    try:
        with safe_open(file, framework="pt", device="cpu") as stored:
            metadata = stored.metadata() or {}
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})") from error
    except SafetensorError as error:
        raise InputError("is damaged, cut short or no safetensors file") from error
    text = metadata.get(METADATA_KEY)
    if text is None:
        return tensors, None
    try:
        return tensors, json.loads(text)
    except ValueError as error:
        raise InputError(f"its metadata {METADATA_KEY!r} is no JSON") from error


def _our_keys(tensors: Mapping[Any, Any]) -> tuple[dict[str, torch.Tensor], Format]:
    if not tensors:
        raise InputError("holds no weights")
    for key, value in tensors.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise InputError(f"entry {key!r} is a {type(value).__name__}, not a tensor")
    return to_ours(strip_wrappers(tensors))


def _describe(
    state_dict: dict[str, torch.Tensor], description: Any, *, format: Format, source: str
) -> Weights:
    num_classes = 0
    if any(key.startswith("head.") for key in state_dict):
        if _FC_WEIGHT not in state_dict or state_dict[_FC_WEIGHT].ndim != 2:
            raise InputError(f"its classifier has no matrix {_FC_WEIGHT}")
        num_classes = state_dict[_FC_WEIGHT].shape[0]
    if description is None:
        foreign = format != "res2net" and num_classes == imagenet.NUM_CLASSES
        names = tuple(imagenet.class_names()) if foreign else None
        return Weights(state_dict, None, num_classes, names, None, None, source, format)
    if not isinstance(description, Mapping) or "schema" not in description:
        raise InputError(f"its description {METADATA_KEY!r} is not one of this project")
    if description["schema"] != SCHEMA:
        raise InputError(
            f"its description has schema {description['schema']!r}, this version reads {SCHEMA}"
        )
    try:
        names = description["class_names"] or None
        stored = description["preprocessing"]
        weights = Weights(
            state_dict=state_dict,
            model=str(description["model"]),
            num_classes=int(description["num_classes"]),
            class_names=None if names is None else tuple(str(name) for name in names),
            preprocessing=None if stored is None else Preprocessing.from_dict(stored),
            config=description.get("config"),
            source=source,
            format=format,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"its description {METADATA_KEY!r} is damaged: {error!r}") from error
    if weights.num_classes != num_classes:
        raise InputError(f"says {weights.num_classes} classes, its head has {num_classes}")
    if weights.class_names is not None and len(weights.class_names) != num_classes:
        raise InputError(f"names {len(weights.class_names)} classes, its head has {num_classes}")
    return weights
