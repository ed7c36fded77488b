"""Images of any kind as pixels for a network: read by threads ahead of their turn, in batches."""

from __future__ import annotations

import io
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from res2net.errors import InputError
from res2net.preprocessing import to_rgb, too_large

ImageLike = str | os.PathLike[str] | bytes | Image.Image | np.ndarray
"""A path, the bytes of an image file, a PIL image, or uint8 (H, W, 3) RGB or (H, W) grey."""
_KINDS = (str, os.PathLike, bytes, Image.Image, np.ndarray)

OnUnreadable = Callable[[InputError], None] | None
"""Told of an image that cannot be read, which is then left out. None: raise."""

_READERS = min(8, os.cpu_count() or 1)

# PIL images are decoded at first use, and two threads may hold the same one.
_LOADING = threading.Lock()


def is_one_image(images: object) -> bool:
    """Whether this is an `ImageLike` rather than an iterable of them."""
    return isinstance(images, _KINDS)


def name_images(images: ImageLike | Iterable[ImageLike]) -> Iterator[tuple[str, ImageLike]]:
    """Each image with what to call it: its path, or which image of the call it is."""
    if isinstance(images, _KINDS):
        yield _name(images, "the image"), images
        return
    for number, image in enumerate(images, start=1):
        yield _name(image, f"image {number} of the list"), image


def read_batches(
    images: Iterable[tuple[str, ImageLike]],
    transform: Callable[[Image.Image], torch.Tensor],
    *,
    batch_size: int,
    on_unreadable: OnUnreadable,
) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
    """Names and pixels uint8 (N, 3, S, S) of `batch_size` images in order, of fewer at the end.

    Threads read the next two batches while the caller works on one.

    Args:
        images: With their names, see `name_images`; taken as they are needed.
        transform: RGB -> uint8 (3, S, S), see `Preprocessing.transform`.
        batch_size: Images in a batch.
        on_unreadable: See `OnUnreadable`.

    Raises:
        InputError: An image cannot be read; it is named.
    """
    # Closed at once when the caller stops: its threads must not read on for nobody.
    read = _read_ahead(images, transform, ahead=2 * batch_size, on_unreadable=on_unreadable)
    with closing(read):
        while batch := list(islice(read, batch_size)):
            names, pixels = zip(*batch, strict=True)
            yield names, torch.stack(pixels)


def read_image(image: ImageLike, *, source: str) -> Image.Image:
    """Any image as RGB of 8 bits, as training sees it.

    Raises:
        InputError: It cannot be read; the message begins with `source`.
    """
    try:
        if isinstance(image, np.ndarray):
            return _from_array(image)
        if isinstance(image, Image.Image):
            with _LOADING:
                image.load()
            return to_rgb(image)
        with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
            return to_rgb(opened)
    # Damaged files make PIL fail in any way it can: OSError, SyntaxError, ValueError, struct.error.
    except Exception as error:
        raise InputError(f"{source}: {_why_unreadable(error)}") from error


def _read_ahead(
    images: Iterable[tuple[str, ImageLike]],
    transform: Callable[[Image.Image], torch.Tensor],
    *,
    ahead: int,
    on_unreadable: OnUnreadable,
) -> Generator[tuple[str, torch.Tensor]]:
    """Names and pixels uint8 (3, S, S) in order."""

    def read(name: str, image: ImageLike) -> torch.Tensor:
        return transform(read_image(image, source=name))

    pool = ThreadPoolExecutor(_READERS)
    try:
        for name, future in _look_ahead(
            ((name, pool.submit(read, name, image)) for name, image in images), ahead
        ):
            try:
                pixels = future.result()
            except InputError as error:
                if on_unreadable is None:
                    raise
                on_unreadable(error)
            else:
                yield name, pixels
    finally:
        pool.shutdown(cancel_futures=True)


def _look_ahead(
    futures: Iterator[tuple[str, Future[torch.Tensor]]], ahead: int
) -> Iterator[tuple[str, Future[torch.Tensor]]]:
    """The same, `ahead` of them started before their turn."""
    started = deque(islice(futures, ahead))
    while started:
        yield started.popleft()
        started.extend(islice(futures, 1))


def _name(image: ImageLike, otherwise: str) -> str:
    return os.fspath(image) if isinstance(image, (str, os.PathLike)) else otherwise


def _from_array(pixels: np.ndarray) -> Image.Image:
    shape = pixels.shape
    if pixels.dtype != np.uint8 or len(shape) not in (2, 3) or shape[2:] not in ((), (3,)):
        raise ValueError(f"an array of {pixels.dtype} {shape}; expected uint8 (H, W, 3) or (H, W)")
    return Image.fromarray(pixels).convert("RGB")


def _why_unreadable(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "is no image in a known format"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror})"
    if isinstance(error, Image.DecompressionBombError):
        return f"has {too_large(error)}"
    return " ".join(str(error).split()) or type(error).__name__
