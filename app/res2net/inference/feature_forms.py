"""The forms of a file of features: each writes a stream of batches as it comes.

Of what comes only the sources are held, and the labels. Rows whose number a header tells first
wait in a file without a name, so that a kill leaves nothing of them.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from res2net.errors import InputError
from res2net.files.csv_table import CsvTable
from res2net.files.names import valid
from res2net.inference.labelled import Labels

Batches = Iterable[tuple[Sequence[str], np.ndarray]]
"""Sources and features float32 (N, C), as `FeatureExtractor.stream` gives them."""

_CHUNK = 1 << 20
_ROWS = 4096


@dataclass(frozen=True)
class Table:
    """What is to be written.

    Attributes:
        parts: The arrays that the columns of the features are, in order: name -> columns.
        labels: Of the sources, if there are any.
    """

    batches: Batches
    parts: Mapping[str, int]
    labels: Labels | None

    def split(self, features: np.ndarray) -> dict[str, np.ndarray]:
        """(N, C) -> each part's (N, columns)."""
        ends = np.cumsum(list(self.parts.values()))
        return dict(zip(self.parts, np.split(features, ends[:-1], axis=1), strict=True))


Write = Callable[[BinaryIO, Table, Path], int]
"""(where to, what, a folder for waiting rows) -> images written."""


def write_npz(stream: BinaryIO, table: Table, folder: Path) -> int:
    """One array a part; `sources` str (N,); `labels` int64 (N,) and `class_names` str."""
    with ExitStack() as stack:
        sources, rows = _spool(table, folder, stack)
        archive = stack.enter_context(zipfile.ZipFile(stream, "w"))
        for name, columns in table.parts.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                _npy_header(member, "<f4", (len(sources), columns))
                shutil.copyfileobj(rows[name], member, _CHUNK)
        _write_texts(archive, "sources", sources)
        if table.labels is not None:
            with archive.open("labels.npy", "w", force_zip64=True) as member:
                _npy_header(member, "<i8", (len(sources),))
                member.write(table.labels.of(sources).astype("<i8").tobytes())
            _write_texts(archive, "class_names", table.labels.class_names)
    return len(sources)


def write_safetensors(stream: BinaryIO, table: Table, folder: Path) -> int:
    """One tensor a part; `sources` uint8: the paths with a zero byte after each; `labels` int64.

    Names are a tensor because readers refuse headers of more than 100 MB, the names of about a
    million files. The header's metadata has `class_names`, a list in JSON.
    """
    with ExitStack() as stack:
        sources, rows = _spool(table, folder, stack)
        count = len(sources)
        tensors: list[tuple[str, str, tuple[int, ...], IO[bytes]]] = []
        metadata = {"format": "pt"}
        if table.labels is not None:  # first, where eight bytes each are in line
            held = table.labels.of(sources).astype("<i8").tobytes()
            tensors.append(("labels", "I64", (count,), io.BytesIO(held)))
            metadata["class_names"] = json.dumps(list(map(valid, table.labels.class_names)))
        for name, columns in table.parts.items():
            tensors.append((name, "F32", (count, columns), rows[name]))
        names = b"".join(os.fsencode(source) + b"\0" for source in sources)
        tensors.append(("sources", "U8", (len(names),), io.BytesIO(names)))

        header: dict[str, Any] = {"__metadata__": metadata}
        size = {"I64": 8, "F32": 4, "U8": 1}
        start = 0
        for name, kind, shape, _ in tensors:
            end = start + size[kind] * int(np.prod(shape))
            header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
            start = end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        stream.write(struct.pack("<Q", len(text)) + text)
        for _, _, _, content in tensors:
            shutil.copyfileobj(content, stream, _CHUNK)
    return count


def write_csv(stream: BinaryIO, table: Table, folder: Path) -> int:
    """A row an image: source, label, f0, f1, ...; nine digits give back every float32 exactly."""
    count = 0
    text = io.StringIO()
    written = CsvTable(text)
    columns = [
        f"{'f' if name == 'features' else f'{name}_'}{number}"
        for name, width in table.parts.items()
        for number in range(width)
    ]
    labels = table.labels
    written.row(["source", *(["label"] if labels else [])], columns)
    for sources, features in table.batches:
        for source, row in zip(sources, features.tolist(), strict=True):
            label = [labels.class_names[labels.by_source[source]]] if labels else []
            written.row([source, *label], [f"{value:.9g}" for value in row])
        stream.write(text.getvalue().encode())
        text.seek(0)
        text.truncate()
        count += len(sources)
    return count


def write_parquet(stream: BinaryIO, table: Table, folder: Path) -> int:
    """Columns `source`, `label` (text) and for each part a list of float32 of fixed length."""
    arrow, writer_class = _arrow()
    labels = table.labels
    fields = [("source", arrow.string())]
    if labels is not None:
        fields.append(("label", arrow.string()))
    fields += [(name, arrow.list_(arrow.float32(), width)) for name, width in table.parts.items()]
    schema = arrow.schema(fields)
    count = 0
    with writer_class(stream, schema) as writer:
        for sources, features in _in_groups(table.batches):
            columns = [arrow.array(map(valid, sources), arrow.string())]
            if labels is not None:
                named = [valid(labels.class_names[index]) for index in labels.of(sources)]
                columns.append(arrow.array(named, arrow.string()))
            for part in table.split(features).values():
                flat = arrow.array(np.ascontiguousarray(part, np.float32).ravel())
                columns.append(arrow.FixedSizeListArray.from_arrays(flat, part.shape[1]))
            writer.write_table(arrow.table(columns, schema=schema))
            count += len(sources)
    return count


def check_parquet() -> None:
    """Raises InputError without pyarrow."""
    _arrow()


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetWriter
    except ImportError as error:
        raise InputError(
            f".parquet is written by pyarrow ({error}): pip install 'res2net-lightning[parquet]'"
        ) from error
    return pyarrow, ParquetWriter


def _in_groups(batches: Batches) -> Iterator[tuple[list[str], np.ndarray]]:
    """Row groups of some thousand images: small ones cost their own headers."""
    sources: list[str] = []
    held: list[np.ndarray] = []
    for names, features in batches:
        sources += names
        held.append(features)
        if len(sources) >= _ROWS:
            yield sources, np.concatenate(held)
            sources, held = [], []
    if sources:
        yield sources, np.concatenate(held)


def _spool(table: Table, folder: Path, stack: ExitStack) -> tuple[list[str], dict[str, IO[bytes]]]:
    """All sources, and the rows of each part in a file at its beginning."""
    rows: dict[str, IO[bytes]] = {
        name: stack.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115
        for name in table.parts
    }
    sources: list[str] = []
    for names, features in table.batches:
        sources += names
        for name, part in table.split(features).items():
            rows[name].write(np.ascontiguousarray(part, "<f4").data)
    for file in rows.values():
        file.seek(0)
    return sources, rows


def _write_texts(archive: zipfile.ZipFile, name: str, texts: Sequence[str]) -> None:
    # Four bytes a character and padded to the longest: deflated, it is small again.
    deflated = zipfile.ZipInfo(f"{name}.npy")
    deflated.compress_type = zipfile.ZIP_DEFLATED
    kind = f"<U{max(1, *map(len, texts), 1)}"
    with archive.open(deflated, "w", force_zip64=True) as member:
        _npy_header(member, kind, (len(texts),))
        for start in range(0, len(texts), _ROWS):
            member.write(np.array(texts[start : start + _ROWS], kind).tobytes())


def _npy_header(stream: IO[bytes], kind: str, shape: tuple[int, ...]) -> None:
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
