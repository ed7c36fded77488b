"""Images of any kind as pixels for a network: read by threads ahead of their turn, in batches."""

from __future__ import annotations

import io
import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from typing import IO, cast

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from res2net.errors import InputError
from res2net.preprocessing import to_rgb, too_large

Bytes = bytes | bytearray | memoryview
ImageLike = str | os.PathLike[str] | Bytes | IO[bytes] | Image.Image | np.ndarray | torch.Tensor
"""A path, the bytes of an image file, such a file opened for reading, a PIL image, an array uint8
(H, W, 3) RGB or (H, W) grey, or a tensor uint8 (3, H, W) or (1, H, W) as torchvision reads them."""
_BYTES = (bytes, bytearray, memoryview)
_KINDS = (str, os.PathLike, *_BYTES, Image.Image, np.ndarray, torch.Tensor)
_EXPECTED = "expected a path, the bytes of a file, an open file, a PIL image, an array or a tensor"

OnUnreadable = Callable[[InputError], None] | None
"""Told of an image that cannot be read, which is then left out. None: raise."""

_READERS = min(8, os.cpu_count() or 1)

# PIL images are decoded at first use, files have one position: two threads may hold the same one.
_LOADING = threading.Lock()


def is_one_image(images: object) -> bool:
    """Whether this is an `ImageLike` rather than an iterable of them."""
    return isinstance(images, _KINDS) or _is_open_file(images)


def name_images(images: ImageLike | Iterable[ImageLike]) -> Iterator[tuple[str, ImageLike]]:
    """Each image with what to call it: its path, or which image of the call it is.

    Raises:
        InputError: It is neither an `ImageLike` nor an iterable.
    """
    if is_one_image(images):
        yield _name(cast(ImageLike, images), "the image"), cast(ImageLike, images)
        return
    if isinstance(images, Mapping) or not isinstance(images, Iterable):
        raise InputError(f"images: {_described(images)}; {_EXPECTED}, or a list of these")
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
        if isinstance(image, torch.Tensor):
            return _from_tensor(image)
        if isinstance(image, np.ndarray):
            return _from_array(image)
        if isinstance(image, Image.Image):
            with _LOADING:
                image.load()
            return _to_rgb(image)
        if _is_open_file(image):
            image = _content(cast(IO[bytes], image))
        if isinstance(image, _BYTES):
            file: str | io.BytesIO = io.BytesIO(image)
        elif isinstance(image, (str, os.PathLike)):
            file = os.fspath(image)
            if not opens(file):
                raise ValueError("is no regular file")
        else:
            raise ValueError(f"{_described(image)}; {_EXPECTED}")
        with Image.open(file) as opened:
            return _to_rgb(opened)
    # Damaged files make PIL fail in any way it can: OSError, SyntaxError, ValueError, struct.error.
    except Exception as error:
        raise InputError(f"{source}: {_why_unreadable(error)}") from error


def opens(path: str) -> bool:
    """Whether opening the path ends at once: a pipe would wait for its writer, a device go on."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return True  # what is wrong opening it tells
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _read_ahead(
    images: Iterable[tuple[str, ImageLike]],
    transform: Callable[[Image.Image], torch.Tensor],
    *,
    ahead: int,
    on_unreadable: OnUnreadable,
) -> Generator[tuple[str, torch.Tensor]]:
    """Names and pixels uint8 (3, S, S) in order."""

    def read(name: str, image: ImageLike) -> torch.Tensor:
        loaded = read_image(image, source=name)
        try:
            return transform(loaded)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error

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
    if _is_open_file(image) and isinstance(name := getattr(image, "name", None), str):
        return name
    return os.fspath(image) if isinstance(image, (str, os.PathLike)) else otherwise


def _is_open_file(image: object) -> bool:
    return callable(getattr(image, "read", None))


def _content(file: IO[bytes]) -> bytes:
    """All of the file, which stands where it stood afterwards, if it can be wound back."""
    with _LOADING:
        winds = file.seekable() if hasattr(file, "seekable") else False
        place = file.tell() if winds else 0
        content = file.read()
        if winds:
            file.seek(place)
    if not isinstance(content, bytes):
        raise ValueError("a file opened as text; open it with mode 'rb'")
    return content


def _described(value: object) -> str:
    return f"{' '.join(repr(value).split()):.60} is of type {type(value).__name__}"


def _to_rgb(image: Image.Image) -> Image.Image:
    if 0 in image.size:
        raise ValueError(f"has no pixels ({image.width} x {image.height})")
    return to_rgb(image)


def _from_tensor(pixels: torch.Tensor) -> Image.Image:
    shape = tuple(pixels.shape)
    if pixels.dtype != torch.uint8 or len(shape) != 3 or shape[0] not in (1, 3):
        kind = str(pixels.dtype).removeprefix("torch.")
        raise ValueError(f"a tensor of {kind} {shape}; expected uint8 (3, H, W) or (1, H, W)")
    rows = pixels.detach().cpu().permute(1, 2, 0).numpy()
    return _from_array(np.ascontiguousarray(rows[..., 0] if shape[0] == 1 else rows))


def _from_array(pixels: np.ndarray) -> Image.Image:
    shape = pixels.shape
    if pixels.dtype != np.uint8 or len(shape) not in (2, 3) or shape[2:] not in ((), (3,)):
        raise ValueError(f"an array of {pixels.dtype} {shape}; expected uint8 (H, W, 3) or (H, W)")
    if 0 in shape:
        raise ValueError(f"has no pixels ({shape[1]} x {shape[0]})")
    return Image.fromarray(pixels).convert("RGB")


def _why_unreadable(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "is no image in a known format"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror})"
    if isinstance(error, Image.DecompressionBombError):
        return f"has {too_large(error)}"
    return " ".join(str(error).split()) or type(error).__name__
