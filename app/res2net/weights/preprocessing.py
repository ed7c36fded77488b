"""What is done to images for weights: as their file says, as is known of them, or assumed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from res2net.errors import InputError
from res2net.preprocessing import Preprocessing
from res2net.weights.catalog import identify
from res2net.weights.read import Weights

Wanted = Preprocessing | Mapping[str, Any] | None
"""All of it, or some of its fields by name; None: as the weights say."""


class AssumedPreprocessing(UserWarning):
    """Nothing says how the images of these weights are to be prepared."""


def preprocessing_of(weights: Weights, wanted: Wanted = None) -> Preprocessing:
    """As wanted, else as the file says, else as of published files: 256, 224, bilinear.

    Warns (`AssumedPreprocessing`) where the last is a guess: the file says nothing and is none that
    is known to be published, and not all is given.

    Raises:
        InputError: There is no such field, or its value makes no sense.
    """
    if isinstance(wanted, Preprocessing):
        return wanted
    changes = {} if wanted is None else wanted
    names = [field.name for field in fields(Preprocessing)]
    if not isinstance(changes, Mapping) or not set(changes) <= set(names):
        raise InputError(
            f"preprocessing={wanted!r}: expected a Preprocessing or some of its fields, a dict of "
            f"{', '.join(names)}"
        )
    taken = replace(weights.preprocessing or Preprocessing(), **changes)
    assumed = [name for name in names if name not in changes]
    if assumed and weights.preprocessing is None and identify(weights.source) is None:
        which = f"what was not given ({', '.join(assumed)}) " if changes else ""
        warnings.warn(
            f"{weights.source}: does not say how its images were prepared; taken: short side "
            f"{taken.resize_size}, crop {taken.image_size}, {taken.interpolation}, {which}as of "
            "published Res2Nets (other: --image-size, --crop-fraction, --interpolation; in Python "
            "preprocessing=)",
            AssumedPreprocessing,
            stacklevel=4,
        )
    return taken
