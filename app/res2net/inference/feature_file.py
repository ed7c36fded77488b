"""Write the features of any number of images as one file, whole or not at all.

.npz   `features` float32 (N, C) and `sources` str (N,), for `numpy.load`
.csv   a table: source, f0, f1, ...; nine digits, which give back every float32 exactly
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from res2net.errors import WorkError
from res2net.files.atomic import atomic_write, new_file

SUFFIXES = (".npz", ".csv")

Batches = Iterable[tuple[Sequence[str], np.ndarray]]
"""Sources and features float32 (N, C), as `FeatureExtractor.stream` gives them."""

_CHUNK = 1 << 20
_ROWS = 4096


def write_features(path: str | os.PathLike[str], batches: Batches, *, num_features: int) -> int:
    """Write what comes as it comes: only the sources are held, and those only for `.npz`.

    Args:
        path: A new file.
        batches: See `Batches`.
        num_features: C.

    Returns:
        Images written, at least one.

    Raises:
        InputError: As `new_file`, for `SUFFIXES`.
        WorkError: There are no features, something else made the file meanwhile, or it cannot be
            written. There is no new file then, nor after an exception of `batches`.
    """
    target = new_file(path, SUFFIXES)
    write = _write_npz if target.suffix == ".npz" else _write_csv
    try:
        with atomic_write(target) as stream:
            count = write(stream, batches, num_features, target.parent)
            if count == 0:
                raise WorkError(f"{target}: not written, not one image could be read")
            if os.path.lexists(target):  # an hour may have passed since the check
                raise WorkError(f"{target}: not written, something else made it meanwhile")
    except OSError as error:
        reason = error.strerror or error
        raise WorkError(f"{target}: cannot be written ({reason}), nothing is kept") from error
    return count


def _write_npz(stream: BinaryIO, batches: Batches, num_features: int, folder: Path) -> int:
    sources: list[str] = []
    # The header of an array tells its rows, known only at the end. This file has no name, so that
    # a kill leaves nothing of it.
    with tempfile.TemporaryFile(dir=folder) as rows:
        for names, features in batches:
            sources += names
            rows.write(np.ascontiguousarray(features, "<f4").data)
        rows.seek(0)
        with zipfile.ZipFile(stream, "w") as archive:
            with archive.open("features.npy", "w", force_zip64=True) as member:
                _write_header(member, "<f4", (len(sources), num_features))
                shutil.copyfileobj(rows, member, _CHUNK)
            # Four bytes a character and padded to the longest: deflated, it is small again.
            deflated = zipfile.ZipInfo("sources.npy")
            deflated.compress_type = zipfile.ZIP_DEFLATED
            kind = f"<U{max(map(len, sources), default=1)}"
            with archive.open(deflated, "w", force_zip64=True) as member:
                _write_header(member, kind, (len(sources),))
                for start in range(0, len(sources), _ROWS):
                    member.write(np.array(sources[start : start + _ROWS], kind).tobytes())
    return len(sources)


def _write_header(stream: IO[bytes], kind: str, shape: tuple[int, ...]) -> None:
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)


def _write_csv(stream: BinaryIO, batches: Batches, num_features: int, folder: Path) -> int:
    count = 0
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["source", *(f"f{number}" for number in range(num_features))])
    for names, features in batches:
        for name, row in zip(names, features.tolist(), strict=True):
            # File names need not be text, the table must be.
            text = os.fsencode(name).decode(errors="backslashreplace")
            writer.writerow([text, *(f"{value:.9g}" for value in row)])
        stream.write(table.getvalue().encode())
        table.seek(0)
        table.truncate()
        count += len(names)
    return count
