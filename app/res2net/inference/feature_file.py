"""Write the features of any number of images as one file, whole or not at all.

.npz           `features` float32 (N, C) and `sources` str (N,), for `numpy.load`
.safetensors   `features`, and `sources` uint8: UTF-8 with a zero byte after each name
.parquet       a row an image: source, features; by pyarrow
.csv           a row an image: source, f0, f1, ...; for few images

Images with labels have theirs as well: .npz and .safetensors as `labels` int64 (N,), indices of
`class_names`; .parquet and .csv in a column `label`, by name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from res2net.errors import WorkError
from res2net.files.atomic import atomic_write, new_file
from res2net.inference import feature_forms
from res2net.inference.feature_forms import Batches, Table, Write
from res2net.inference.labelled import Labels

_FORMS: dict[str, Write] = {
    ".npz": feature_forms.write_npz,
    ".safetensors": feature_forms.write_safetensors,
    ".parquet": feature_forms.write_parquet,
    ".csv": feature_forms.write_csv,
}
SUFFIXES = tuple(_FORMS)


def check_form(path: Path) -> None:
    """Whether what writes this form is installed; asked before long work. Raises InputError."""
    if path.suffix == ".parquet":
        feature_forms.check_parquet()


def write_features(
    path: str | os.PathLike[str],
    batches: Batches,
    *,
    parts: Mapping[str, int],
    labels: Labels | None = None,
) -> int:
    """Write what comes as it comes: of all that is written only sources and labels are held.

    Args:
        path: A new file.
        batches: See `Batches`.
        parts: The arrays that are written, see `FeatureExtractor.parts`.
        labels: Of all sources that may come.

    Returns:
        Images written, at least one.

    Raises:
        InputError: As `new_file`, for `SUFFIXES`; or pyarrow is missing.
        WorkError: There are no features, something else made the file meanwhile, or it cannot be
            written. There is no new file then, nor after an exception of `batches`.
    """
    target = new_file(path, SUFFIXES)
    check_form(target)
    try:
        with atomic_write(target) as stream:
            count = _FORMS[target.suffix](stream, Table(batches, parts, labels), target.parent)
            if count == 0:
                raise WorkError(f"{target}: not written, not one image could be read")
            if os.path.lexists(target):  # an hour may have passed since the check
                raise WorkError(f"{target}: not written, something else made it meanwhile")
    except OSError as error:
        reason = error.strerror or error
        raise WorkError(f"{target}: cannot be written ({reason}), nothing is kept") from error
    return count
