"""Parquet files of images as the Hugging Face Hub has them: `image` {bytes, path} and `label`.

Rows keep their order, as those of one class are scattered over all files. pyarrow comes with the
extra `parquet`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from res2net import imagenet
from res2net.errors import InputError
from res2net.files.foreign import parse_json

FIRST_NAME_OF_IMAGENET = "tench, Tinca tinca"
_WNID = re.compile(r"(?:^|[_/])(n\d{8})(?=[_./])")


@dataclass(frozen=True)
class ParquetImages:
    """The rows of some files, one after the other."""

    files: tuple[str, ...]
    class_names: tuple[str, ...]
    labels: np.ndarray = field(repr=False)
    """int64 (count,)."""
    groups: np.ndarray = field(repr=False)
    """int64 (groups, 3): each row group's file, its number there and its first row of all."""
    paths: Any = field(repr=False)
    """The column image.path, (count,) of pyarrow: an entry may be null."""
    kind: ClassVar[str] = "parquet"

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> str:
        """As the row states it, else the number of the row."""
        return self.paths[index].as_py() or f"{index:08}"

    def name(self, index: int) -> str:
        """File, row and path."""
        file, _, _ = self.groups[self._group(index)]
        first = self.groups[self.groups[:, 0] == file][0, 2]
        return f"{self.files[file]}, row {index - first}, {self.path(index)}"

    def read(self, index: int) -> bytes:
        """The image file; empty where the row has none."""
        file, number, first = self.groups[self._group(index)]
        column = _row_group(self.files[file], int(number), os.getpid())
        return column[index - int(first)].as_py() or b""

    def _group(self, index: int) -> int:
        return int(np.searchsorted(self.groups[:, 2], index, side="right")) - 1


@lru_cache(maxsize=1)
def _row_group(file: str, number: int, process: int) -> Any:
    """The images of a row group: some 100 rows of 10 MB, which are read in their order."""
    try:
        # Threads of its own would compete with the other workers.
        table = (
            _pyarrow()
            .ParquetFile(file)
            .read_row_group(number, columns=["image.bytes"], use_threads=False)
        )
    except _errors() as error:
        raise OSError(f"{file}: row group {number}: {error}") from error
    return table.column("image").combine_chunks().field("bytes")


def open_parquet(files: Sequence[str], class_names: Sequence[str] | None = None) -> ParquetImages:
    """The files of one split, in order; `class_names`: those of the training images.

    ImageNet's classes are known by their wnids, as everywhere, others by the names in the file.

    Raises InputError where pyarrow is missing, a file damaged or not of this form.
    """
    parquet = _pyarrow()
    import pyarrow

    labels, paths, groups, rows = [], [], [], 0
    for number, file in enumerate(files):
        try:
            opened = parquet.ParquetFile(file)
            _check_columns(file, opened.schema_arrow)
            table = opened.read(columns=["image.path", "label"], use_threads=False)
        except _errors() as error:
            raise InputError(f"{file}: damaged parquet file ({_first_line(error)})") from error
        names = _names_in(opened.schema_arrow)
        labels.append(table.column("label").to_numpy())
        paths += table.column("image").combine_chunks().field("path").to_pylist()
        for group in range(opened.metadata.num_row_groups):
            groups.append((number, group, rows))
            rows += opened.metadata.row_group(group).num_rows
    if not rows:
        raise InputError(f"{files[0]}: no rows in it")
    joined = np.concatenate(labels)
    if joined.dtype.kind == "f" or joined.min() < 0:  # null, or the -1 of hidden labels
        raise InputError(f"{files[0]}: rows without a label; only labelled images can be learned")
    joined = joined.astype(np.int64)
    if class_names is None:
        class_names = _class_names(joined, paths, names)
    if joined.max() >= len(class_names):
        raise InputError(
            f"{files[0]}: label {joined.max()}, but there are {len(class_names)} classes"
        )
    return ParquetImages(
        files=tuple(files),
        class_names=tuple(class_names),
        labels=joined,
        groups=np.array(groups, dtype=np.int64),
        paths=pyarrow.array(paths, pyarrow.string()),
    )


def _class_names(
    labels: np.ndarray, paths: Sequence[str | None], names: Sequence[str]
) -> tuple[str, ...]:
    wnids = tuple(imagenet.class_names())
    if names and len(names) == len(wnids) and names[0] in (FIRST_NAME_OF_IMAGENET, wnids[0]):
        return wnids
    found = [_WNID.search(path or "") for path in paths]
    if all(
        match is not None and label < len(wnids) and wnids[label] == match[1]
        for label, match in zip(labels.tolist(), found, strict=True)
    ):
        return wnids
    return tuple(names) or tuple(str(number) for number in range(int(labels.max()) + 1))


def _names_in(schema: Any) -> list[str]:
    """The names of the classes, which the `datasets` library stores as JSON; may be empty."""
    stored: bytes = (schema.metadata or {}).get(b"huggingface", b"")
    try:
        told = parse_json(stored, "metadata")["info"]["features"]["label"]["names"]
    except (InputError, TypeError, KeyError):
        return []
    return [str(name) for name in told] if isinstance(told, list) else []


def _check_columns(file: str, schema: Any) -> None:
    from pyarrow import types

    image = schema.field("image").type if "image" in schema.names else None
    fields = {inner.name for inner in image} if image and types.is_struct(image) else set()
    if not {"bytes", "path"} <= fields or "label" not in schema.names:
        raise InputError(
            f"{file}: expected the columns image {{bytes, path}} and label, "
            f"found {', '.join(schema.names)}"
        )


def _pyarrow() -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(
            "parquet files are read by pyarrow: pip install res2net-lightning[parquet]"
        ) from error
    return parquet


def _errors() -> tuple[type[Exception], ...]:
    import pyarrow

    return pyarrow.ArrowException, OSError


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
