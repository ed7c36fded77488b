"""Read weights from files of many origins, never running their code, and put them into a network.

A file is read whole and checked before anything is loaded; what is wrong with it is said in one
line.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from res2net.errors import InputError
from res2net.files.runs import SCHEMA, RunDirectory, is_sound
from res2net.models.head import Res2NetClassifier
from res2net.preprocessing import Preprocessing
from res2net.weights.formats import detect_format, from_official, strip_wrappers

METADATA_KEY = "res2net"
"""Where a checkpoint (an entry beside `state_dict`) or a safetensors file (its metadata, as JSON)
says what its weights are: `files.runs.identity`."""

ACCEPTED = "a run directory, PyTorch files of tensors (.ckpt, .pth, .pt) and .safetensors"

_CONTAINERS = ("state_dict", "model")
_EMA_CONTAINER = "ema_state_dict"
_FC_WEIGHT = "head.fc.weight"
_FC_BIAS = "head.fc.bias"


@dataclass(frozen=True, eq=False)
class Weights:
    """The tensors of one classifier and what its file says of them."""

    state_dict: dict[str, torch.Tensor] = field(repr=False)
    """By this project's keys, on the CPU."""
    model: str | None
    """Name of the variant; None: the file does not say."""
    num_classes: int
    """Rows of the head."""
    class_names: tuple[str, ...] | None
    """One for each class."""
    preprocessing: Preprocessing | None
    """What was done to the images these weights were trained on."""
    config: Mapping[str, Any] | None
    """Configuration of the run that made them: group -> key -> value."""
    source: str
    """The file."""


def read_weights(
    path: str | os.PathLike[str],
    *,
    ema: bool = False,
    checkpoint: Literal["last", "best"] = "last",
) -> Weights:
    """Read a checkpoint of this project, an official or timm file, or the like in safetensors.

    Args:
        path: A file, or a run directory.
        ema: The averaged weights (`ema_state_dict`) rather than the raw ones.
        checkpoint: Which file of a run directory.

    Raises:
        InputError: There is no such file, or it is damaged, carries code, or holds something else
            than one Res2Net classifier.
    """
    file = _resolve(Path(path), checkpoint)
    try:
        if file.suffix == ".safetensors":
            tensors, description = _read_safetensors(file, ema=ema)
        else:
            tensors, description = _read_torch(file, ema=ema)
        state_dict = _our_keys(tensors)
        return _describe(state_dict, description, source=str(file))
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
    expected = model.state_dict()
    given = dict(weights.state_dict)
    announcement = None
    if weights.num_classes != model.num_classes:
        for key in (_FC_WEIGHT, _FC_BIAS):
            if key in given and given[key].shape[1:] == expected[key].shape[1:]:
                given[key] = expected[key]
        announcement = (
            f"weights {weights.source!r} are for {weights.num_classes} classes, the network has "
            f"{model.num_classes}: the head starts fresh"
        )
    for key, tensor in expected.items():
        # Files of before 2018 have no such counters; they matter to no published network.
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
        raise InputError(_misfit(model, weights, problems))
    model.load_state_dict(given, strict=True)
    return announcement


def _misfit(model: Res2NetClassifier, weights: Weights, problems: list[str]) -> str:
    shown = "; ".join(problems[:3])
    more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
    name = model.variant or "the network"
    whose = ""
    if weights.model is not None and weights.model != model.variant:
        whose = f" (they are of {weights.model})"
    return f"weights {weights.source!r} do not fit {name}{whose}: {shown}{more}"


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
    try:
        with file.open("rb") as stream:
            magic = stream.read(4)
        if not magic:
            raise InputError("the file is empty")
        is_zip = magic == b"PK\x03\x04"
        # torch.load checks no sums: a flipped bit would become a quietly different network.
        if is_zip and not is_sound(file):
            raise InputError("the file is damaged or cut short")
        with warnings.catch_warnings():
            # About pickle protocols: what comes of it is said in the error's one line.
            warnings.simplefilter("ignore", UserWarning)
            # Files of before PyTorch 1.6 are no zip archives and cannot be mapped.
            stored = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})") from error
    # Foreign bytes make the reader fail in any way it can: struct, index, key, memory errors.
    except Exception as error:
        raise InputError(_why_refused(error)) from error

    if not isinstance(stored, Mapping):
        raise InputError(f"holds a {type(stored).__name__}, not a table of weights")
    description = stored.get(METADATA_KEY)
    if ema:
        if not isinstance(stored.get(_EMA_CONTAINER), Mapping):
            raise InputError(f"holds no averaged weights ({_EMA_CONTAINER})")
        return stored[_EMA_CONTAINER], description
    for container in _CONTAINERS:
        if isinstance(stored.get(container), Mapping):
            return stored[container], description
    return stored, description


def _why_refused(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named is not None:
            return f"carries the Python object {named.group(1)}, which could run code: refused"
    return "is damaged, cut short or no PyTorch file of weights"


def _read_safetensors(file: Path, *, ema: bool) -> tuple[Mapping[str, Any], Any]:
    """As `_read_torch`."""
    from safetensors import SafetensorError, safe_open

    if ema:
        raise InputError(f"holds no averaged weights ({_EMA_CONTAINER})")
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


def _our_keys(tensors: Mapping[Any, Any]) -> dict[str, torch.Tensor]:
    if not tensors:
        raise InputError("holds no weights")
    for key, value in tensors.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise InputError(f"entry {key!r} is a {type(value).__name__}, not a tensor")
    stripped = strip_wrappers(tensors)
    match detect_format(stripped):
        case "res2net":
            return stripped
        case "official":
            return from_official(stripped)
        case None:
            keys = ", ".join(list(stripped)[:3])
            raise InputError(f"its keys ({keys}, ...) are not those of a Res2Net")


def _describe(state_dict: dict[str, torch.Tensor], description: Any, *, source: str) -> Weights:
    if _FC_WEIGHT not in state_dict or state_dict[_FC_WEIGHT].ndim != 2:
        raise InputError("holds a backbone without a classifier")
    num_classes = state_dict[_FC_WEIGHT].shape[0]
    if description is None:
        return Weights(state_dict, None, num_classes, None, None, None, source)
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
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"its description {METADATA_KEY!r} is damaged: {error!r}") from error
    if weights.num_classes != num_classes:
        raise InputError(f"says {weights.num_classes} classes, its head has {num_classes}")
    if weights.class_names is not None and len(weights.class_names) != num_classes:
        raise InputError(f"names {len(weights.class_names)} classes, its head has {num_classes}")
    return weights
