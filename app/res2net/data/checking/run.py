"""Look at a whole data set: every image read, decoded and compared with all others.

What is kept of an image are forty bytes in arrays: ImageNet's 1.3 million take some 50 MB.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
import warnings
from array import array
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np
from PIL import Image

from res2net.data.checking.image import MAX_PIXELS, Look, WhyNot, look_at
from res2net.data.sources.source import Source, file_of

_CHUNK = 32  # images of one task: enough to hide what handing it over costs


class Split(NamedTuple):
    """A source of paths or files, and what it is called: train, val."""

    name: str
    source: Source


class Place(NamedTuple):
    """An image of a data set."""

    split: str
    class_name: str
    name: str


@dataclass
class Findings:
    """What a check found. Images are numbered through all splits, in their order; see `place`."""

    splits: Sequence[Split]
    sizes: np.ndarray
    """int32 (count, 2): width and height; 0 where no header could be read."""
    file_bytes: np.ndarray
    """int64 (count,)."""
    digests: np.ndarray
    """uint64 (count, 2): the BLAKE2b hash of the file, 128 bits."""
    broken: dict[str, array[int]] = field(default_factory=lambda: defaultdict(_numbers))
    """Reason -> images."""
    odd: dict[str, array[int]] = field(default_factory=lambda: defaultdict(_numbers))
    """Oddity -> images, of those that are not broken."""
    formats: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def starts(self) -> list[int]:
        """The number of each split's first image, and that of all images."""
        return np.cumsum([0, *(len(split.source) for split in self.splits)]).tolist()

    @property
    def num_broken(self) -> int:
        return sum(map(len, self.broken.values()))

    @property
    def whole(self) -> np.ndarray:
        """Which images are not broken, bool (count,)."""
        whole = np.ones(len(self), dtype=bool)
        for broken in self.broken.values():
            whole[np.asarray(broken)] = False
        return whole

    def place(self, number: int) -> Place:
        """Where an image is."""
        split, index = self._find(number)
        source = split.source
        return Place(split.name, source.class_names[source.labels[index]], source.name(index))

    def same(self) -> Iterator[np.ndarray]:
        """Groups of images (two or more,) with the same bytes; broken ones are left out."""
        numbers = np.flatnonzero(self.whole)
        digests = self.digests[numbers]
        order = np.lexsort((numbers, digests[:, 1], digests[:, 0]))
        numbers, digests = numbers[order], digests[order]
        ends = np.flatnonzero((digests[1:] != digests[:-1]).any(axis=1)) + 1
        bounds = np.concatenate([[0], ends, [len(numbers)]])
        groups = [
            numbers[bounds[place] : bounds[place + 1]]
            for place in np.flatnonzero(np.diff(bounds) > 1)
        ]
        yield from sorted(groups, key=lambda group: int(group[0]))

    def _find(self, number: int) -> tuple[Split, int]:
        starts = self.starts
        which = int(np.searchsorted(starts, number, side="right")) - 1
        return self.splits[which], int(number) - starts[which]


def check(
    splits: Sequence[Split],
    *,
    max_pixels: int = MAX_PIXELS,
    threads: int | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> Findings:
    """Read and decode every image of the splits.

    Args:
        splits: Sources that hold paths or files.
        max_pixels: Larger images are broken, and are not decoded.
        threads: How many images are decoded at a time; None: one a core.
        progress: Told how many more images are done.
    """
    from res2net.data.dali.decoder import Decoder  # DALI takes half a second

    of_thread = threading.local()

    def why_not(encoded: np.ndarray) -> str | None:
        if not hasattr(of_thread, "decoder"):
            of_thread.decoder = Decoder()
        reason: str | None = of_thread.decoder.why_not(encoded, max_pixels=max_pixels)
        return reason

    count = sum(len(split.source) for split in splits)
    findings = Findings(
        splits,
        sizes=np.zeros((count, 2), dtype=np.int32),
        file_bytes=np.zeros(count, dtype=np.int64),
        digests=np.zeros((count, 2), dtype=np.uint64),
    )
    threads = threads or len(os.sched_getaffinity(0))
    begun = time.monotonic()
    pool = ThreadPoolExecutor(threads)

    def look(split: Split, first: int) -> list[tuple[int, bytes, Look]]:
        indices = np.arange(first, min(first + _CHUNK, len(split.source)))
        return [
            _look(split.source, int(index), max_pixels=max_pixels, why_not=why_not)
            for index in indices
        ]

    tasks = (
        (start + first, pool.submit(look, split, first))
        for start, split in zip(findings.starts, splits, strict=False)
        for first in range(0, len(split.source), _CHUNK)
    )
    try:
        with _pillow_without_limits():
            ahead = deque(islice(tasks, 3 * threads))
            while ahead:
                number, future = ahead.popleft()
                looks = future.result()
                ahead.extend(islice(tasks, 1))
                for place, result in enumerate(looks, start=number):
                    _note(findings, place, *result)
                progress(len(looks))
    finally:
        pool.shutdown(cancel_futures=True)
    findings.seconds = time.monotonic() - begun
    return findings


def _look(
    source: Source, index: int, *, max_pixels: int, why_not: WhyNot
) -> tuple[int, bytes, Look]:
    """Bytes, hash and judgement of one image."""
    try:
        encoded = file_of(source, index)
    except OSError as error:
        return 0, bytes(16), Look(broken=f"cannot be read ({error.strerror})")
    digest = hashlib.blake2b(encoded.data, digest_size=16).digest()
    look = look_at(encoded, source.name(index), max_pixels=max_pixels, why_not=why_not)
    return len(encoded), digest, look


def _note(findings: Findings, number: int, size: int, digest: bytes, look: Look) -> None:
    findings.file_bytes[number] = size
    findings.digests[number] = np.frombuffer(digest, dtype=np.uint64)
    findings.sizes[number] = np.minimum((look.width, look.height), np.iinfo(np.int32).max)
    if look.broken:
        findings.broken[look.broken].append(number)
        return
    findings.formats[look.format or "unknown"] += 1
    findings.modes[look.mode or "unknown"] += 1
    for note in look.odd:
        findings.odd[note].append(number)


def _numbers() -> array[int]:
    return array("q")


@contextmanager
def _pillow_without_limits() -> Iterator[None]:
    """Headers of any size are read, and what Pillow thinks of damaged ones is not printed."""
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit
