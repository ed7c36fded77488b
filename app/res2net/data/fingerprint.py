"""Whether the images of a resumed run are those that it began with.

A checkpoint keeps digests, not lists: the images of a split are cut into at most `PARTS` parts in
their order, and of each part there is a digest of

    names      where each image lies in the data set, and its class
    sizes      the bytes of each file
    times      when each file was changed or given its name (ctime, which nobody can set back)
    contents   what is in the files, of all or of some

On resume the first three are asked for: by one `stat` a file, which reads none. Files are read
only where times differ, as after a copy: those on record. These are all of a data set of up to
`ALL_FILES` files and `ALL_BYTES` together; of a larger one `SOME` in each part, chosen once and for
all. Of a file of more than `MOST` bytes the first and the last half of so many are read. Of images
in memory every pixel is on record.

So what goes unnoticed is a file of a large data set that was replaced by another of exactly as many
bytes and is not on record, and a change in the middle of a large file that keeps its size.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from res2net.data.sources.scan import counted
from res2net.data.sources.source import Source
from res2net.errors import InputError
from res2net.files.names import printable

PARTS = 1024
"""Up to so many images each is a part, and can be named."""
ALL_FILES, ALL_BYTES = 1 << 14, 1 << 28
SOME = 2
MOST = 1 << 20
THREADS = 16
"""That ask for files: over a network an answer takes a millisecond."""

Record = dict[str, Any]
"""`count`, `classes`, `everything` (whether the content of each image is on record); and int64
tensors (parts,) `names`, `sizes`, `times`, `contents`; of images in memory `sizes` and `times` are
empty."""

Row = tuple[int, int, int]
"""Size, time and digest of the content of one image."""


def digest_names(source: Source) -> torch.Tensor:
    """Digests (parts,) of where images lie and of their classes. Asks the disk for nothing."""
    digests = [
        _digest(source.places(part), source.labels[part].tobytes()) for part in _parts(len(source))
    ]
    return torch.tensor(digests, dtype=torch.int64)


def digest_classes(source: Source) -> str:
    """A digest of the names of the classes."""
    return hashlib.sha256("/".join(source.class_names).encode("utf-8", "replace")).hexdigest()


def digest_all(*sources: Source) -> str:
    """One digest of names, places and classes of all images: of what is known without the disk."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(digest_classes(source).encode())
        digest.update(digest_names(source).numpy().tobytes())
    return digest.hexdigest()


def take(source: Source) -> Record:
    """What a run keeps of its images, when it begins.

    Raises InputError where a file cannot be read.
    """
    sizes, times, total = _states(source, {})
    everything = not len(sizes) or (len(source) <= ALL_FILES and total <= ALL_BYTES)
    numbers = range(min(PARTS, len(source)))
    return {
        "count": len(source),
        "classes": digest_classes(source),
        "names": digest_names(source),
        "sizes": sizes,
        "times": times,
        "everything": everything,
        "contents": _contents(source, {}, numbers, everything=everything),
    }


def is_record(value: Any) -> bool:
    """Whether it has the form of what `take` gives."""
    if not isinstance(value, dict):
        return False
    tensors = [value.get(name) for name in ("names", "sizes", "times", "contents")]
    kinds = (("count", int), ("classes", str), ("everything", bool))
    if not all(isinstance(value.get(name), kind) for name, kind in kinds):
        return False
    parts = min(PARTS, value["count"])
    return all(
        isinstance(tensor, torch.Tensor)
        and tensor.dtype == torch.int64
        and (tensor.shape == (parts,) or (optional and not tensor.numel()))
        for tensor, optional in zip(tensors, (False, True, True, False), strict=True)
    )


def compare(
    source: Source, stored: Record, what: str, *, mended: Mapping[int, Row] | None = None
) -> tuple[Record, str]:
    """The record of the images as they are now, and a line to say, if there is one.

    Args:
        stored: of the run, when it was saved.
        what: `training` or `validation`.
        mended: what images were that a run could not decode; these may have become others.

    Raises:
        InputError: the images are others, or cannot be read.
    """
    try:
        return _compare(source, stored, what, {})
    except InputError:
        if not mended:
            raise
    _, said = _compare(source, stored, what, mended)
    return take(source), said


def rows(source: Source, indices: Iterable[int]) -> dict[int, Row]:
    """What images are now; images that cannot be asked for are left out."""
    found = {}
    for index in indices:
        one = np.array([index])
        try:
            states = source.states(one)
            if states is not None:
                found[index] = (*states[0].tolist(), _content(source, index))
        except (OSError, InputError):
            continue
    return found


def changed(what: str, why: str) -> InputError:
    """What to say of images that are others than they were."""
    return InputError(
        f"the {what} images have changed since the run began: {why}; what comes would be another "
        "experiment: restore them, or start another run with run.name=NAME"
    )


def _compare(
    source: Source, stored: Record, what: str, instead: Mapping[int, Row]
) -> tuple[Record, str]:
    def refuse(differ: torch.Tensor, why: str) -> InputError:
        return changed(what, f"{_where(source, differ)} {why}")

    if len(source) != stored["count"]:
        raise changed(what, f"now {counted(len(source), 'image')}, then {stored['count']:,}")
    if digest_classes(source) != stored["classes"]:
        raise changed(what, "their classes have other names")
    if len(differ := _differ(digest_names(source), stored["names"])):
        raise refuse(differ, "has another name or class")
    sizes, times, _ = _states(source, instead)
    if len(differ := _differ(sizes, stored["sizes"])):
        raise refuse(differ, "has another size")
    numbers = list(range(len(stored["contents"])))
    if len(sizes):
        numbers = _differ(times, stored["times"]).tolist()
    now = stored["contents"].clone()
    now[numbers] = _contents(source, instead, numbers, everything=stored["everything"])
    if len(differ := _differ(now, stored["contents"])):
        raise refuse(differ, "has another content")
    said = ""
    if len(sizes) and numbers:
        parts = _parts(len(source))
        images = sum(len(parts[number]) for number in numbers)
        read = sum(len(_on_record(parts[n], n, stored["everything"])) for n in numbers)
        said = (
            f"{what} images were copied or touched since the run began ({images:,} of "
            f"{len(source):,} by their times): names and sizes of all are the same, and so is the "
            f"content of the {read:,} of these that is on record"
        )
    return stored | {"times": times}, said


def _parts(count: int) -> list[np.ndarray]:
    """Indices of the images of each part."""
    parts = min(PARTS, count)
    bounds = [number * count // parts for number in range(parts + 1)] if parts else [0]
    return [np.arange(*pair) for pair in pairwise(bounds)]


def _states(source: Source, instead: Mapping[int, Row]) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Digests (parts,) of sizes and of times, and how many bytes there are together."""

    def ask(part: np.ndarray) -> tuple[int, int, int] | None:
        states = source.states(part)
        if states is None:
            return None
        for index in instead.keys() & set(part.tolist()) if instead else ():
            states[index - part[0]] = instead[index][:2]
        sizes, times = np.ascontiguousarray(states.T)
        return _digest(sizes.tobytes()), _digest(times.tobytes()), int(sizes.sum())

    found = _by_threads(ask, _parts(len(source)))
    asked = [each for each in found if each is not None]
    sizes, times, bytes_ = zip(*asked, strict=True) if asked else ((), (), ())
    return (
        torch.tensor(sizes, dtype=torch.int64),
        torch.tensor(times, dtype=torch.int64),
        sum(bytes_),
    )


def _contents(
    source: Source, instead: Mapping[int, Row], numbers: Sequence[int], *, everything: bool
) -> torch.Tensor:
    """Digests of the contents on record, of these parts."""
    parts = _parts(len(source))

    def read(number: int) -> int:
        indices = _on_record(parts[number], number, everything)
        if source.holds == "pixels":
            return _digest(np.ascontiguousarray(source.read(indices)))
        each = (instead[i][2] if i in instead else _content(source, i) for i in indices.tolist())
        return _digest(np.array(list(each), dtype=np.int64).tobytes())

    return torch.tensor(_by_threads(read, numbers), dtype=torch.int64)


def _on_record(part: np.ndarray, number: int, everything: bool) -> np.ndarray:
    """Which images of a part: the same for ever."""
    if everything or len(part) <= SOME:
        return part
    # the raw stream of a bit generator is fixed for good (NEP 19)
    return part[np.argsort(np.random.PCG64(number).random_raw(len(part)), kind="stable")[:SOME]]


def _content(source: Source, index: int) -> int:
    """A digest of a file's bytes. Raises OSError."""
    if source.holds == "paths":
        (path,) = source.read(np.array([index]))
        with open(bytes(path), "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(MOST if size <= MOST else MOST // 2)
            if size <= MOST:
                return _digest(head)
            file.seek(size - MOST // 2)
            return _digest(head, file.read(MOST // 2))
    (held,) = source.read(np.array([index]))
    if held.nbytes <= MOST:
        return _digest(held)
    return _digest(held[: MOST // 2], held[-(MOST // 2) :])


def _by_threads(work: Callable[[Any], Any], over: Sequence[Any]) -> list[Any]:
    try:
        with ThreadPoolExecutor(THREADS) as threads:
            return list(threads.map(work, over))
    except OSError as error:
        name = printable(os.fsdecode(error.filename or "an image"))
        raise InputError(f"{name}: cannot be read ({error.strerror or error})") from error


def _digest(*pieces: Any) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for piece in pieces:
        digest.update(piece)
    return int.from_bytes(digest.digest(), "little", signed=True)


def _differ(now: torch.Tensor, then: torch.Tensor) -> torch.Tensor:
    """Numbers of the parts that differ."""
    if now.shape != then.shape:  # images in memory have neither sizes nor times
        return torch.arange(max(len(now), len(then)))
    return (now != then).nonzero().flatten()


def _where(source: Source, differ: torch.Tensor) -> str:
    """In words which images differ, as far as digests of parts can tell."""
    parts = _parts(len(source))
    part = parts[int(differ[0])]
    first, more = printable(source.name(int(part[0]))), len(differ) - 1
    if len(part) == 1:
        return first + (f" (and {more:,} more of {len(source):,})" if more else "")
    last = printable(source.name(int(part[-1])))
    others = f", and in {more:,} more of {len(parts):,} such parts," if more else ""
    return f"one or more of the {len(part):,} from {first} to {last}{others}"
