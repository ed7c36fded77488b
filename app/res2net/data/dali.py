"""Bytes and arrays -> batches: the only file that imports DALI.

One pipeline code for CPU and GPU (`device_id` None or a number). A `Stream` is endless: epochs are
cut by counting, so no reset ever happens, prefetching crosses epochs, and resuming is exact.
Batches are uint8 images (N, 3, H, W) in channels_last strides and int64 labels (N,).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from nvidia.dali import fn, math, types
from nvidia.dali.pipeline import Pipeline
from nvidia.dali.plugin.pytorch import DALIGenericIterator

from res2net.data.order import PADDING
from res2net.data.sources import Source
from res2net.errors import WorkError
from res2net.preprocessing import Preprocessing

PREFETCH = 2
INTERPOLATION = {"bilinear": types.INTERP_LINEAR, "bicubic": types.INTERP_CUBIC}


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training image; the meanings are those of `config.schema.AugmentConfig`."""

    crop: str = "random_resized"
    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    pad: int = 4
    flip: float = 0.5


class Order(Protocol):
    """Which samples a batch holds (`order.TrainOrder`, `order.EvalOrder`)."""

    @property
    def batch_size(self) -> int: ...

    @property
    def batches(self) -> int: ...

    def batch(self, position: int) -> np.ndarray: ...


class Stream:
    """An endless iterator of (images, labels) that starts at any batch and can be stored.

    Raises:
        WorkError: a file cannot be decoded; it is named. The pipeline is given up then, because
            DALI goes on returning altered batches after a failed decode.
    """

    def __init__(
        self,
        source: Source,
        order: Order,
        *,
        preprocessing: Preprocessing,
        augmentation: Augmentation | None = None,
        threads: int = 2,
        device_id: int | None = None,
        seed: int = 0,
        start: int = 0,
        state: dict[str, Any] | None = None,
    ) -> None:
        """`start` is the first batch's position; `state`, of `state_dict`, takes its place."""
        self.source = source
        self.order = order
        # DALI counts iterations from the start of a pipeline, also across its own checkpoints:
        # the position is that count plus the base at which the pipeline began.
        self.base = state["base"] if state else start
        self.taken = state["taken"] if state else 0
        self._failure: Exception | None = None
        pipeline = Pipeline(
            batch_size=order.batch_size,
            num_threads=threads,
            device_id=device_id,
            seed=seed,
            prefetch_queue_depth=PREFETCH,
            enable_checkpointing=True,
            checkpoint=state["pipeline"] if state else None,
        )
        with pipeline:
            inputs, labels = fn.external_source(
                source=self._feed,
                num_outputs=2,
                batch=True,
                batch_info=True,
                dtype=[types.UINT8, types.INT64],
            )
            images = self._load(inputs, preprocessing, augmentation, gpu=device_id is not None)
            pipeline.set_outputs(images, labels)
        self._batches = DALIGenericIterator(
            [pipeline], ["images", "labels"], size=-1, prepare_first_batch=False
        )

    @property
    def position(self) -> int:
        """Batches of this rank since the start of the run."""
        return self.base + self.taken

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self._failure:
            raise self._failure
        try:
            batch = next(self._batches)[0]
        except RuntimeError as error:
            self._failure = self._explain(error)
            raise self._failure from error
        self.taken += 1
        # (N, H, W, 3) -> (N, 3, H, W), the memory untouched: channels_last
        return batch["images"].permute(0, 3, 1, 2), batch["labels"]

    def state_dict(self) -> dict[str, Any]:
        """Numbers and bytes; a stream made of them gives the batches that would come next."""
        return {
            "base": self.base,
            "taken": self.taken,
            "pipeline": self._batches.checkpoints()[0],
        }

    def _feed(self, info: Any) -> tuple[Any, np.ndarray]:
        """One batch for external_source: paths or arrays, and labels with PADDING as they are."""
        indices = self.order.batch(self.base + info.iteration)
        labels = np.where(indices == PADDING, PADDING, self.source.labels[indices])
        indices = np.where(indices == PADDING, 0, indices)  # any image: its label masks it
        return self.source.read(indices), labels

    def _load(
        self,
        inputs: Any,
        preprocessing: Preprocessing,
        augmentation: Augmentation | None,
        *,
        gpu: bool,
    ) -> Any:
        size = preprocessing.image_size
        interpolation = INTERPOLATION[preprocessing.interpolation]
        crop = augmentation.crop if augmentation else "none"
        arrays = self.source.holds == "pixels"
        if augmentation and crop == "random_resized":
            window: dict[str, Any] = {
                "random_area": list(augmentation.area),
                "random_aspect_ratio": list(augmentation.ratio),
            }
            if arrays:
                images = inputs.gpu() if gpu else inputs
                images = fn.random_resized_crop(
                    images, size=size, interp_type=interpolation, antialias=True, **window
                )
            else:
                images = fn.decoders.image_random_crop(
                    fn.io.file.read(inputs),
                    device="mixed" if gpu else "cpu",
                    output_type=types.RGB,
                    adjust_orientation=False,
                    **window,
                )
                images = fn.resize(
                    images, size=[size, size], interp_type=interpolation, antialias=True
                )
        else:
            images = (inputs.gpu() if gpu else inputs) if arrays else _decode(inputs, gpu=gpu)
            images = _resize_and_crop(images, preprocessing)
        if augmentation and crop == "pad":
            images = _pad_and_crop(images, size=size, pad=augmentation.pad)
        if augmentation and augmentation.flip:
            images = fn.flip(images, horizontal=fn.random.coin_flip(probability=augmentation.flip))
        return images

    def _explain(self, error: RuntimeError) -> Exception:
        """The files of the batch that DALI could not decode, or the error itself."""
        if self.source.holds == "pixels":
            return error
        # prefetching may meet a bad file some batches before its own turn
        ahead = range(self.position, self.position + PREFETCH + 2)
        indices = np.concatenate([self.order.batch(position) for position in ahead])
        bad = [name for name in map(self.source.name, _distinct(indices)) if not _decodes(name)]
        if not bad:
            return error
        return WorkError(
            f"cannot decode {', '.join(bad)}; what was saved so far is "
            "kept: mend or remove the file and go on with run.resume=auto"
        )


def _distinct(indices: np.ndarray) -> Sequence[int]:
    return [int(index) for index in dict.fromkeys(indices) if index != PADDING]


def _decode(paths: Any, *, gpu: bool) -> Any:
    # PIL loaders do not rotate by EXIF either: no training set or published figure expects it
    return fn.decoders.image(
        fn.io.file.read(paths),
        device="mixed" if gpu else "cpu",
        output_type=types.RGB,
        adjust_orientation=False,
    )


def _resize_and_crop(images: Any, preprocessing: Preprocessing) -> Any:
    """Torchvision's Resize and CenterCrop on PIL images, within one grey level (bicubic: 3).

    The long side is truncated as there (DALI rounds it), and the crop's start is rounded half to
    even.
    """
    short, size = preprocessing.resize_size, preprocessing.image_size
    shape = images.shape(dtype=types.INT64)  # H, W, C
    height, width = shape[0], shape[1]
    shorter = math.min(height, width)
    new_height, new_width = short * height // shorter, short * width // shorter
    if preprocessing.interpolation == "bicubic":
        # Overshoots at edges: Pillow resizes the width first, and cuts what leaves 0..255 before
        # the height. In one go up to 17 grey levels would differ.
        images = _resize(images, height, new_width, preprocessing.interpolation)
    images = _resize(images, new_height, new_width, preprocessing.interpolation)
    start = fn.stack(_half_to_even(new_height - size), _half_to_even(new_width - size))
    start = fn.cast(start, dtype=types.INT32)
    return fn.slice(images, start=start, shape=[size, size], axes=(0, 1))


def _resize(images: Any, height: Any, width: Any, interpolation: str) -> Any:
    return fn.resize(
        images,
        size=fn.cast(fn.stack(height, width), dtype=types.FLOAT),
        interp_type=INTERPOLATION[interpolation],
        antialias=True,
    )


def _half_to_even(number: Any) -> Any:
    half = number // 2
    return half + (number - 2 * half) * (half - 2 * (half // 2))


def _pad_and_crop(images: Any, *, size: int, pad: int) -> Any:
    """A random window of the image with `pad` black pixels around it."""
    offsets = [float(offset) for offset in range(-pad, pad + 1)]
    start = fn.cast(fn.random.uniform(values=offsets, shape=[2]), dtype=types.INT32)
    return fn.slice(
        images,
        start=start,
        shape=[size, size],
        axes=(0, 1),
        out_of_bounds_policy="pad",
        fill_values=[0, 0, 0],
    )


def _decodes(path: str) -> bool:
    pipeline = Pipeline(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
    with pipeline:
        encoded = np.frombuffer(os.fsencode(path), dtype=np.uint8)
        pipeline.set_outputs(_decode(types.Constant(encoded, device="cpu"), gpu=False))
    try:
        pipeline.run()
    except RuntimeError:
        return False
    return True
