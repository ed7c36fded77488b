"""A data set -> a folder of shards: planned, written by workers, gone on with after a kill."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from res2net.data.sharding.destination import check_destination
from res2net.data.sharding.inputs import open_inputs
from res2net.data.sharding.keys import key_of, renamed
from res2net.data.sharding.plan import Plan, check_space, find_plan, plan_path
from res2net.data.sharding.shard_file import CorruptImage, Part, Recipe, read_part
from res2net.data.sharding.workers import Job, run
from res2net.data.sources.scan import counted
from res2net.data.sources.shards import (
    DESCRIPTION,
    UNFINISHED,
    index_name,
    read_description,
    shard_name,
)
from res2net.errors import InputError, WorkError
from res2net.files.atomic import atomic_write, atomic_write_text, remove_stale_temporaries
from res2net.files.quarantine import QUARANTINE, write_quarantine

SHARD_BYTES = 256_000_000

Progress = Callable[[int, int], None]
"""Told how many images are done, of how many in all; first, how many an earlier call has done."""


@dataclass(frozen=True)
class Written:
    """A complete folder of shards."""

    images: int
    shards: int
    bytes: int
    """Of the tar files."""
    left_out: int
    """Images that cannot be decoded; quarantine.txt names them."""
    images_now: int
    """Written by this call; 0: the shards were complete before."""


def write_shards(
    source: str,
    destination: str,
    *,
    labels: str | None = None,
    resize: int | None = None,
    quality: int = Recipe.quality,
    shard_bytes: int = SHARD_BYTES,
    workers: int = 1,
    skip_corrupt: bool = False,
    expect: Sequence[int] | None = None,
    progress: Progress = lambda done, total: None,
) -> Written:
    """Write the shards of a data set; the bytes do not depend on `workers` or on interruptions.

    Called again after a kill or an error, it goes on with the shards that are missing.

    Args:
        source, labels, expect: see `inputs.open_inputs`.
        resize: pixels of the short side of larger images, which become JPEG; None: no image is
            changed. Images are decoded only with it.
        quality: of those JPEG, 1 to 100.
        shard_bytes: about how large a tar file becomes.
        workers: processes.
        skip_corrupt: leave out images that cannot be decoded, or are empty.
        progress: see `Progress`.

    Raises:
        InputError: the source, see `open_inputs`; the destination, see `check_destination`, or it
            is in use, too small, or holds shards of other images or options.
        WorkError: an image cannot be read or decoded, or the disk is full. Finished shards stay.
    """
    directory = Path(os.path.abspath(destination))
    check_destination(destination, source)
    inputs = open_inputs(source, labels=labels, expect=expect)
    recipe = Recipe(resize, quality, skip_corrupt)
    plan, is_complete = find_plan(os.path.abspath(source), directory, inputs, recipe, shard_bytes)
    if is_complete:
        with suppress(OSError):  # a kill may have left it; a folder of others cannot be changed
            shutil.rmtree(directory / UNFINISHED)
        return _as_described(destination, images_now=0)

    check_space(directory, plan, shard_bytes, len(_missing(directory, plan)))
    try:
        (directory / UNFINISHED).mkdir(parents=True, exist_ok=True)
        with _alone(directory):
            if (directory / DESCRIPTION).is_file():  # of another process, since it was looked for
                shutil.rmtree(directory / UNFINISHED, ignore_errors=True)
                find_plan(os.path.abspath(source), directory, inputs, recipe, shard_bytes)
                return _as_described(destination, images_now=0)
            missing = _missing(directory, plan)
            for folder in (directory, directory / UNFINISHED):
                remove_stale_temporaries(folder)
            atomic_write_text(plan_path(directory), _json(plan.to_dict()))
            keys = {
                split: renamed(key_of(images.path(index)) for index in range(len(images)))
                for split, images in inputs.items()
            }
            job = Job(directory, plan, inputs, keys, recipe)
            total = sum(split.images for split in plan.splits.values())
            todo = sum(len(plan.splits[split].range_of(number)) for split, number in missing)
            progress(total - todo, total)
            run(job, missing, workers, lambda done: progress(total - todo + done, total))
            _finish(directory, plan)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(
            f"with {_kept(directory, plan)}: the same command goes on"
        ) from error
    except CorruptImage as error:
        raise WorkError(
            f"{error}; {_kept(directory, plan)}: mend the file, or leave such images out with "
            "--on-corrupt skip, and the same command goes on"
        ) from error
    except WorkError as error:
        raise WorkError(f"{error}; {_kept(directory, plan)}: the same command goes on") from error
    except OSError as error:
        raise WorkError(
            f"{error.filename or destination}: {error.strerror}; {_kept(directory, plan)}: the "
            "same command goes on"
        ) from error
    return _as_described(destination, images_now=todo)


def _missing(directory: Path, plan: Plan) -> list[tuple[str, int]]:
    return [shard for shard in plan.shards if read_part(directory, *shard) is None]


def _finish(directory: Path, plan: Plan) -> None:
    """Indexes, quarantine.txt, and last of all the description, which makes the shards complete."""
    splits: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    stated = plan.to_dict()
    for name, split in plan.splits.items():
        parts: list[Part] = []
        for number in range(split.shards):
            part = read_part(directory, name, number)
            assert part is not None  # all are written
            parts.append(part)
            left_out |= dict(part.left_out)
        records = np.concatenate([part.records for part in parts])
        if not len(records):
            raise WorkError(f"{name}: not one image could be decoded")
        stream = io.BytesIO()
        np.save(stream, records)
        with atomic_write(directory / index_name(name)) as file:
            file.write(stream.getbuffer())
        splits[name] = stated["splits"][name] | {
            "images": len(records),
            "left_out": sum(len(part.left_out) for part in parts),
            "index": {"file": index_name(name), "crc32": zlib.crc32(records.data)},
            "shards": [
                {
                    "file": shard_name(name, number),
                    "images": len(part.records),
                    "bytes": part.bytes,
                    "sha256": part.sha256,
                }
                for number, part in enumerate(parts)
            ],
        }
    if left_out:
        write_quarantine(directory / QUARANTINE, left_out)
    written_by = {"written_by": f"res2net-lightning {version('res2net-lightning')}"}
    atomic_write_text(directory / DESCRIPTION, _json(stated | written_by | {"splits": splits}))
    shutil.rmtree(directory / UNFINISHED)


def _as_described(directory: str, *, images_now: int) -> Written:
    splits = read_description(directory)["splits"].values()
    return Written(
        images=sum(split["images"] for split in splits),
        shards=sum(len(split["shards"]) for split in splits),
        bytes=sum(shard["bytes"] for split in splits for shard in split["shards"]),
        left_out=sum(split["left_out"] for split in splits),
        images_now=images_now,
    )


def _kept(directory: Path, plan: Plan) -> str:
    there = sum(read_part(directory, *shard) is not None for shard in plan.shards)
    return f"{there:,} of {counted(len(plan.shards), 'shard')} finished and kept"


def _json(value: Any) -> str:
    # ASCII: names of folders that are no UTF-8 come back as they were
    return json.dumps(value, indent=1) + "\n"


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Hold the folder: two writers would remove each other's temporary files."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{directory}: another process writes shards there now") from error
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)
