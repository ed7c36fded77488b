"""The classes of images: a network, the preprocessing it was trained with, its classes' names."""

from __future__ import annotations

import io
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from res2net.errors import InputError, WorkError
from res2net.preprocessing import Preprocessing
from res2net.zoo import open_model

ImageLike = str | os.PathLike[str] | bytes | Image.Image | np.ndarray
"""A path, the bytes of an image file, a PIL image, or uint8 (H, W, 3) RGB or (H, W) grey."""
_KINDS = (str, os.PathLike, bytes, Image.Image, np.ndarray)

BATCH_SIZE = 32

_READERS = min(8, os.cpu_count() or 1)
_AHEAD = 2 * BATCH_SIZE

# PIL images are decoded at first use, and two threads may hold the same one.
_LOADING = threading.Lock()


@dataclass(frozen=True)
class Prediction:
    """What the network says of one image."""

    label: str
    """The likeliest class: its name, or its index as text where the weights name no classes."""
    index: int
    """Its index."""
    score: float
    """Its probability by softmax, 0..1."""
    topk: tuple[tuple[str, float], ...]
    """The likeliest classes with their scores, best first."""
    source: str
    """The image's path, or which image of the call it was."""


class Predictor:
    """Opens a model once and classifies images with it; may be shared between threads.

    Images are handled as in evaluation: EXIF rotation is not applied, transparency is dropped,
    16-bit grey is scaled to 8 bits; the pixels agree with what DALI decodes.

    Attributes:
        model: The network in evaluation mode, on `device`.
        preprocessing: Of the weights; the published 256/224 where they name none.
        class_names: One for each class.
        device: Where it runs.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        weights: str | os.PathLike[str] | None = None,
        checkpoint: Literal["last", "best"] = "last",
        device: Literal["auto", "cpu", "cuda"] = "auto",
    ) -> None:
        """Read the weights and put the network on the device.

        Args:
            model: A run directory, a checkpoint or weights file, or a variant with `weights`.
            weights: A run directory or a file, for a variant.
            checkpoint: Which file of a run directory.
            device: `auto` takes the first CUDA device where there is one.

        Raises:
            InputError: There is no such model or device, the weights cannot be read or do not fit,
                or a variant was given without weights.
        """
        self.device = _find_device(device)
        network, read = open_model(_as_path(model), weights=weights, checkpoint=checkpoint)
        if read is None:
            raise InputError(
                f"model {os.fspath(model)!r}: a variant without weights predicts at random; give "
                "weights as well (--weights), or a run directory or a weights file instead"
            )
        self.model = network.to(self.device).eval()
        self.preprocessing = read.preprocessing or Preprocessing()
        self.class_names = read.class_names or tuple(map(str, range(network.num_classes)))
        self._transform = self.preprocessing.transform()

    # A str is an iterable of str as well; the first signature that fits counts.
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, images: ImageLike, *, topk: int = 5
    ) -> Prediction: ...

    @overload
    def __call__(self, images: Iterable[ImageLike], *, topk: int = 5) -> list[Prediction]: ...

    def __call__(
        self, images: ImageLike | Iterable[ImageLike], *, topk: int = 5
    ) -> Prediction | list[Prediction]:
        """Classify one image or several.

        Args:
            images: One `ImageLike` gives one Prediction, an iterable of them a list.
            topk: How many classes to name; no more than there are.

        Raises:
            InputError: `topk` is below 1, or an image cannot be read; it is named.
            WorkError: The network's output is not finite.
        """
        if isinstance(images, _KINDS):
            (prediction,) = self._predict([(_name(images, "the image"), images)], topk, None)
            return prediction
        return list(self.stream(images, topk=topk))

    def stream(
        self,
        images: Iterable[ImageLike],
        *,
        topk: int = 5,
        on_unreadable: Callable[[InputError], None] | None = None,
    ) -> Iterator[Prediction]:
        """Classify any number of images in their order, holding a few batches of them.

        Args:
            images: Taken from the iterable as they are needed.
            topk: How many classes to name; no more than there are.
            on_unreadable: Told of an image that cannot be read, which is then left out. None:
                raise.

        Raises:
            InputError, WorkError: As in a call; `topk` is checked at once, the rest on the way.
        """
        named = (
            (_name(image, f"image {number} of the list"), image)
            for number, image in enumerate(images, start=1)
        )
        return self._predict(named, topk, on_unreadable)

    def _predict(
        self,
        images: Iterable[tuple[str, ImageLike]],
        topk: int,
        on_unreadable: Callable[[InputError], None] | None,
    ) -> Iterator[Prediction]:
        if topk < 1:
            raise InputError(f"topk={topk}: at least 1")
        return self._batches(self._read_ahead(images, on_unreadable), topk)

    def _batches(
        self, images: Iterator[tuple[str, torch.Tensor]], topk: int
    ) -> Iterator[Prediction]:
        while batch := list(islice(images, BATCH_SIZE)):
            sources, pixels = zip(*batch, strict=True)
            yield from self._classify(sources, torch.stack(pixels), topk)

    def _classify(
        self, sources: tuple[str, ...], pixels: torch.Tensor, topk: int
    ) -> Iterator[Prediction]:
        """Pixels: uint8 (N, 3, S, S)."""
        with torch.inference_mode():
            images = self.preprocessing.normalise(pixels.to(self.device))
            scores = self.model(images).float().softmax(dim=1)  # (N, num_classes)
            best = scores.topk(min(topk, scores.shape[1]), dim=1)  # twice (N, topk)
        for source, values, indices in zip(
            sources, best.values.tolist(), best.indices.tolist(), strict=True
        ):
            if not all(map(np.isfinite, values)):
                raise WorkError(
                    f"{source}: the network's output is not finite, so its training diverged or "
                    "its weights are damaged; no class can be told: take another checkpoint"
                )
            named = tuple(
                (self.class_names[index], score)
                for index, score in zip(indices, values, strict=True)
            )
            label, score = named[0]
            yield Prediction(label, indices[0], score, named, source)

    def _read_ahead(
        self,
        images: Iterable[tuple[str, ImageLike]],
        on_unreadable: Callable[[InputError], None] | None,
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Sources and pixels uint8 (3, S, S) in order, read by threads while the network works."""
        with ThreadPoolExecutor(_READERS) as pool:
            for source, pixels in _look_ahead(
                (source, pool.submit(self._read, source, image)) for source, image in images
            ):
                try:
                    read = pixels.result()
                except InputError as error:
                    if on_unreadable is None:
                        raise
                    on_unreadable(error)
                else:
                    yield source, read

    def _read(self, source: str, image: ImageLike) -> torch.Tensor:
        return self._transform(read_image(image, source=source))


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
            return _to_rgb(image)
        with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
            return _to_rgb(opened)
    # Damaged files make PIL fail in any way it can: OSError, SyntaxError, ValueError, struct.error.
    except Exception as error:
        raise InputError(f"{source}: {_why_unreadable(error)}") from error


def _look_ahead(
    futures: Iterator[tuple[str, Future[torch.Tensor]]],
) -> Iterator[tuple[str, Future[torch.Tensor]]]:
    """The same, some of them started before their turn."""
    started = deque(islice(futures, _AHEAD))
    while started:
        yield started.popleft()
        started.extend(islice(futures, 1))


def _find_device(name: str) -> torch.device:
    choices = ("auto", "cpu", "cuda")
    if name not in choices:
        raise InputError(f"device {name!r}: none of {', '.join(choices)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device 'cuda': PyTorch finds no CUDA device here; take auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _as_path(model: str | os.PathLike[str]) -> str | Path:
    return model if isinstance(model, str) else Path(model)


def _name(image: ImageLike, otherwise: str) -> str:
    return os.fspath(image) if isinstance(image, (str, os.PathLike)) else otherwise


def _from_array(pixels: np.ndarray) -> Image.Image:
    shape = pixels.shape
    if pixels.dtype != np.uint8 or len(shape) not in (2, 3) or shape[2:] not in ((), (3,)):
        raise ValueError(f"an array of {pixels.dtype} {shape}; expected uint8 (H, W, 3) or (H, W)")
    return Image.fromarray(pixels).convert("RGB")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("has floating-point pixels; expected 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits a pixel, which PIL would clip to 255
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError("has pixels of 32 bits; expected 8 or 16")
        grey = ((values + 128) // 257).astype(np.uint8)  # 65535 -> 255, rounded as DALI does
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "P":  # the same colours, but without PIL's warning about transparency
        image = image.convert("RGBA")
    return image.convert("RGB")


def _why_unreadable(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "is no image in a known format"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror})"
    return " ".join(str(error).split()) or type(error).__name__
