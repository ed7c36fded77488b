"""Whether a resumed run has the images that it began with, and what it keeps to tell.

What is compared, and what goes unnoticed: `data.fingerprint`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from res2net.callbacks.exact_resume import gather
from res2net.data import fingerprint
from res2net.data.datamodule import ImageDataModule
from res2net.data.sources.scan import counted
from res2net.data.sources.source import Source
from res2net.errors import InputError
from res2net.files.atomic import atomic_write_json
from res2net.files.foreign import read_json
from res2net.files.runs import RunDirectory, global_rank

UNKNOWN = (
    "the state of version 0.1.0 tells of its images only how many there were to train on, and the "
    "class of each: these are as they were"
)


def recognise(data: ImageDataModule, checkpoint: Path | None, run: RunDirectory) -> list[str]:
    """Note in `data` what the images are, or compare them with those that the checkpoint is of.

    Asks the disk for each file, so that one rank does it for all. Returns lines to say.

    Raises:
        InputError: the images are others, or cannot be read.
    """
    stored = _stored(checkpoint) if checkpoint is not None else None
    record = None if stored is None else stored["images"]
    if stored is not None and stored["fingerprint"] != data.fingerprint:
        assert data.train is not None
        then = f", then {record['training']['count']:,}" if record else ""
        raise fingerprint.changed(
            "training",
            f"now {counted(len(data.train), 'image')}{then}, or in other classes",
        )
    if record is None:
        data.record = {what: fingerprint.take(source) for what, source in _splits(data).items()}
        return [] if stored is None else [UNKNOWN]
    mended = _undecodable(run)
    data.record, lines = {}, []
    for what, source in _splits(data).items():
        data.record[what], line = fingerprint.compare(
            source, record[what], what, mended=mended.get(what)
        )
        lines += [line] if line else []
    return lines


def check_ranks(data: ImageDataModule, root: str) -> None:
    """Compare names and classes of the images of all ranks: each may have a disk of its own.

    Raises:
        InputError: on all ranks alike.
    """
    images = gather(fingerprint.digest_all(*_splits(data).values()))
    if len(set(images)) > 1:
        other = next(rank for rank, each in enumerate(images) if each != images[0])
        raise InputError(
            f"ranks 0 and {other} see different images (names or classes) in data.root={root}: "
            "the same must lie there on all nodes"
        )


def keep_undecodable(data: ImageDataModule, run: RunDirectory) -> None:
    """Keep what the files are at which this rank has ended, so that they can be mended."""
    rows = {what: fingerprint.rows(source, indices) for what, source, indices in data.refused()}
    if rows and run.last.is_file():  # else there is nothing to go on from
        with suppress(OSError):  # then the mended file is refused, and that is said
            atomic_write_json(run.undecodable(global_rank()), rows)


def _splits(data: ImageDataModule) -> dict[str, Source]:
    assert data.train is not None
    return {"training": data.train, "validation": data.val}


def _stored(checkpoint: Path) -> Mapping[str, Any]:
    """What rank 0 has stored of the images. Raises InputError."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    try:
        stored = state["ranks"][0]["data"]
        record = stored.get("images")
        known = record is None or all(map(fingerprint.is_record, record.values()))
        if known and (record is None or set(record) == {"training", "validation"}):
            return {"fingerprint": stored["fingerprint"], "images": record}
    except (AttributeError, LookupError, TypeError):
        pass
    raise InputError(
        f"{checkpoint} does not tell which images it was trained on as this version reads it; "
        "give a checkpoint of this version or an older one"
    )


def _undecodable(run: RunDirectory) -> dict[str, dict[int, fingerprint.Row]]:
    """By split and index."""
    found: dict[str, dict[int, fingerprint.Row]] = {}
    for path in run.undecodable_files():
        # a damaged one excuses nothing
        with suppress(OSError, ArithmeticError, ValueError, TypeError, AttributeError):
            for what, rows in read_json(path).items():
                for index, row in rows.items():
                    size, time, content = np.array(row, dtype=np.int64).tolist()
                    found.setdefault(str(what), {})[int(index)] = (size, time, content)
    return found
