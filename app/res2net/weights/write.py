"""Write weights as one file, whole or not at all, with what they are."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from res2net.errors import InputError
from res2net.files.atomic import atomic_write, new_file
from res2net.files.runs import SCHEMA
from res2net.weights.description import METADATA_KEY
from res2net.weights.read import Weights

SUFFIXES = (".pth", ".safetensors")


def describe_weights(weights: Weights, variant: str) -> dict[str, Any]:
    """What a file says of its weights, in the form of `files.runs.identity`, and their licence."""
    preprocessing = weights.preprocessing
    licence = {} if weights.licence is None else {"licence": weights.licence}
    return licence | {
        "schema": SCHEMA,
        "model": variant,
        "num_classes": weights.num_classes,
        "class_names": list(weights.class_names or ()),
        "preprocessing": None if preprocessing is None else preprocessing.to_dict(),
        "config": dict(weights.config or {}),
    }


def write_weights(
    path: str | os.PathLike[str],
    state_dict: Mapping[str, torch.Tensor],
    *,
    description: Mapping[str, Any] | None,
    check: Callable[[Path], None] = lambda written: None,
) -> None:
    """Write `.safetensors` (description: JSON in the metadata, key `res2net`) or `.pth`.

    A `.pth` holds `state_dict` and, under `res2net`, the description; without one it holds the bare
    table of tensors, as other code expects it. `check` is given the file before it gets its name:
    what it raises leaves none.

    Raises:
        InputError: Another suffix, something stands there already, or it cannot be written.
    """
    target = new_file(path, SUFFIXES)
    # Views share memory with what is not written, and safetensors refuses them.
    tensors = {key: value.detach().contiguous() for key, value in state_dict.items()}
    try:
        with atomic_write(target) as stream:
            if target.suffix == ".safetensors":
                from safetensors.torch import save

                metadata = None if description is None else {METADATA_KEY: json.dumps(description)}
                stream.write(save(tensors, metadata))
            elif description is None:
                torch.save(tensors, stream)
            else:
                torch.save({"state_dict": tensors, METADATA_KEY: dict(description)}, stream)
            stream.flush()
            check(Path(stream.name))
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"destination {str(target)!r}: cannot be written ({reason})") from error
