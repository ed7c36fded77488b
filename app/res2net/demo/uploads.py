"""Images that visitors sent: a bounded number of files, each known by a name that nobody guesses.

A path never comes from a visitor: what a browser sends back is the name that it was given here, and
a name that was not given leads nowhere.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from res2net.demo import decoding
from res2net.files.names import printable
from res2net.weights.shipped import SAMPLE

LARGEST = 32 * 2**20
"""Bytes of an upload."""
_KEPT_BYTES, _KEPT_FILES = 2**30, 256
_KEPT_SECONDS = 3600.0
_DECODERS, _DECODING_SECONDS = 2, 10


@dataclass(frozen=True)
class Upload:
    """One image.

    Attributes:
        name: What its visitor calls it, without a folder; text to show, never a path.
        file: As it came.
        pixels: The same as a PPM. None: there are none.
        media_type: Of `file`, where there are pixels.
        problem: Why there are none.
        time: When it came, on the clock of `Uploads`.
    """

    name: str
    file: Path
    pixels: Path | None
    media_type: str
    problem: str
    time: float


class Uploads:
    """The images in a folder of their own, the oldest of which go when there are too many."""

    SAMPLE = "sample"
    """The name of the image that comes with the package."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._decoders = asyncio.Semaphore(_DECODERS)
        self._sample = Upload(SAMPLE.name, SAMPLE, SAMPLE, "image/png", "", 0.0)
        self._known: dict[str, Upload] = {}  # the oldest first

    def get(self, name: str) -> Upload | None:
        """The image that was given this name, if it is still here."""
        return self._sample if name == self.SAMPLE else self._known.get(name)

    async def add(self, called: str, content: IO[bytes]) -> str:
        """Keep an image, decoded, or with the reason why it cannot be; returns its name."""
        name = secrets.token_urlsafe(16)
        file, pixels = self._folder / name, self._folder / f"{name}.ppm"
        try:
            await asyncio.to_thread(_copy, content, file)
            async with self._decoders:
                media_type, problem = await decode(file, pixels, _DECODING_SECONDS)
        except BaseException:
            _remove(file, pixels)
            raise
        if problem:
            _remove(file, pixels)
        base = printable(called.replace("\\", "/").rpartition("/")[2])[:100] or "the image"
        shown = None if problem else pixels
        self._known[name] = Upload(base, file, shown, media_type, problem, self._clock())
        self.forget()
        return name

    def forget(self) -> None:
        """Delete what is older than an hour, and the oldest of too many."""
        sizes = {name: _size(each) for name, each in self._known.items()}
        total, now = sum(sizes.values()), self._clock()
        for name, each in list(self._known.items()):
            crowded = total > _KEPT_BYTES or len(self._known) > _KEPT_FILES
            if not crowded and now - each.time < _KEPT_SECONDS:
                return
            total -= sizes[name]
            del self._known[name]
            _remove(each.file, *([each.pixels] if each.pixels else []))


async def decode(file: Path, pixels: Path, seconds: int) -> tuple[str, str]:
    """Write a file's pixels; returns its media type and, where there are none, the reason.

    Args:
        file: An image, or anything.
        pixels: Where the PPM goes.
        seconds: Of a processor, and three times as many on the clock: others may have its cores.
    """
    given = (os.fspath(file), os.fspath(pixels), str(seconds))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-X", "utf8", "-m", decoding.__name__, *given),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the server
    )
    too_long = f"takes longer than {seconds} seconds to decode"
    try:
        async with asyncio.timeout(3 * seconds):
            told, _ = await process.communicate()
    except TimeoutError:
        return "", too_long
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    line = told.decode("utf-8", "replace").strip()
    if process.returncode == 0:
        return line, ""
    if process.returncode == 1 and line:
        return "", line
    # SIGKILL and SIGXCPU are those of its limit
    return "", too_long if process.returncode in (-9, -24) else "crashes the decoder of images"


def _copy(content: IO[bytes], file: Path) -> None:
    with open(file, "xb") as target:
        shutil.copyfileobj(content, target)


def _size(upload: Upload) -> int:
    paths = [upload.file, upload.pixels] if upload.pixels else []
    return sum(path.stat().st_size for path in paths)


def _remove(*files: Path) -> None:
    for file in files:
        file.unlink(missing_ok=True)
