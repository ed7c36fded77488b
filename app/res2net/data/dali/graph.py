"""What DALI does to an image: decode, crop, resize, augment. The same code for CPU and GPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from nvidia.dali import fn, math, pipeline_def, types
from nvidia.dali.auto_aug import auto_augment, rand_augment, trivial_augment
from nvidia.dali.pipeline import Pipeline

from res2net.data.augmentation import Augmentation
from res2net.preprocessing import Preprocessing

INTERPOLATION = {"bilinear": types.INTERP_LINEAR, "bicubic": types.INTERP_CUBIC}
GREY = 128
LONG = 10
"""The ratio of an image's sides above which evaluation resizes only what the crop shows."""
BEYOND: dict[str, Any] = {"fill_value": GREY, "interp_type": types.INTERP_NN}
"""What policies do where an image is turned or moved: the nearest pixel, as torchvision does (on a
CPU a seventh of the work of bilinear); grey beyond the border, as timm does."""


@dataclass(frozen=True)
class Work:
    """What a pipeline is built for."""

    holds: str
    """What the source gives (`sources.Source.holds`)."""
    preprocessing: Preprocessing
    augmentation: Augmentation | None
    max_pixels: int
    """Larger files are not decoded: one grey pixel stands for them."""

    @property
    def sized(self) -> bool:
        """Whether the feed says the size of the result, which may change from batch to batch."""
        return bool(_window(self.augmentation))


def build_pipeline(
    work: Work,
    feed: Callable[[Any], Any],
    *,
    batch_size: int,
    threads: int,
    device_id: int | None,
    seed: int,
    prefetch: int,
    checkpoint: Any | None,
) -> Pipeline:
    """Outputs: images uint8 (H, W, 3), labels int64, and the pixels of the files, int64.

    `feed(info)` gives a batch: what the source holds, labels int64 (N,), and if `work.sized` the
    height and width of the result, float32 (N, 2).
    """

    # AutoGraph turns the `if` on a file's size into operators that split the batch
    @pipeline_def(enable_conditionals=True)
    def pipeline() -> Any:
        kinds = [types.UINT8, types.INT64, types.FLOAT][: 3 if work.sized else 2]
        inputs, labels, *sizes = fn.external_source(
            source=feed, num_outputs=len(kinds), batch=True, batch_info=True, dtype=kinds
        )
        image_size = work.preprocessing.image_size
        size = sizes[0] if work.sized else [image_size, image_size]
        on_gpu = device_id is not None
        device = "mixed" if on_gpu else "cpu"
        window = _window(work.augmentation)
        if work.holds == "pixels":
            images = inputs.gpu() if on_gpu else inputs
            pixels = labels * 0
            if window:
                shape = images.shape(device="cpu")[:2]
                start, extent = fn.random_crop_generator(shape, **window)
                images = fn.slice(images, start, extent, axes=(0, 1))
        else:
            encoded = fn.io.file.read(inputs) if work.holds == "paths" else inputs
            shape = fn.peek_image_shape(encoded)
            pixels = shape[0] * shape[1]
            if pixels <= work.max_pixels:
                if window:
                    images = fn.decoders.image_random_crop(
                        encoded, device=device, **DECODE, **window
                    )
                else:
                    images = fn.decoders.image(encoded, device=device, **DECODE)
            else:
                grey = np.full((1, 1, 3), GREY, dtype=np.uint8)
                images = types.Constant(grey, device="gpu" if on_gpu else "cpu")
        if window:
            images = _resize(images, size, work.preprocessing.interpolation)
        else:
            images = _resize_and_crop(images, work.preprocessing)
        if work.augmentation is not None:
            images = _augment(images, work.augmentation, image_size, size)
        return images, labels, pixels

    # auto_aug's own use of DALI is deprecated, and DALI shows it whatever the filters say
    with warnings.catch_warnings(record=True):
        return pipeline(
            batch_size=batch_size,
            num_threads=threads,
            device_id=device_id,
            seed=seed,
            prefetch_queue_depth=prefetch,
            enable_checkpointing=True,
            checkpoint=checkpoint,
        )


DECODE: dict[str, Any] = {
    "output_type": types.RGB,
    # PIL loaders do not rotate by EXIF either: no training set or published figure expects it
    "adjust_orientation": False,
    # a GPU would repeat chroma where libjpeg interpolates it: up to 17 grey levels
    "jpeg_fancy_upsampling": True,
}


def _window(augmentation: Augmentation | None) -> dict[str, Any]:
    """Bounds of the random window, if there is one."""
    if augmentation is None or augmentation.crop != "random_resized":
        return {}
    return {
        "random_area": list(augmentation.area),
        "random_aspect_ratio": list(augmentation.ratio),
    }


def _augment(images: Any, augmentation: Augmentation, image_size: int, size: Any) -> Any:
    if augmentation.crop == "pad":
        images = _pad_and_crop(images, size=image_size, pad=augmentation.pad)
    if augmentation.flip:
        images = fn.flip(images, horizontal=fn.random.coin_flip(probability=augmentation.flip))
    if augmentation.policy == "rand_augment":
        images = rand_augment.rand_augment(
            images,
            n=augmentation.policy_ops,
            m=augmentation.policy_magnitude,
            shape=size,
            **BEYOND,
        )
    elif augmentation.policy == "auto_augment":
        far = 150 / 331  # pixels of the paper's images; DALI would move them out of sight
        images = auto_augment.auto_augment_image_net(
            images, shape=size, max_translate_rel=far, **BEYOND
        )
    elif augmentation.policy == "trivial_augment":
        far = 32 / 224  # as torchvision at its usual size, of which DALI makes the whole side
        images = trivial_augment.trivial_augment_wide(
            images, shape=size, max_translate_rel=far, **BEYOND
        )
    if augmentation.color_jitter or augmentation.hue_jitter:
        images = _jitter(images, augmentation.color_jitter, augmentation.hue_jitter)
    return images


def _jitter(images: Any, strength: float, hue: float) -> Any:
    """Brightness, contrast and saturation times 1 - strength .. 1 + strength; hue as a share of the
    circle, -hue .. hue. All at once, so in a fixed order."""
    change: dict[str, Any] = {}
    if strength:
        for name in ("brightness", "contrast", "saturation"):
            change[name] = fn.random.uniform(range=[1 - strength, 1 + strength])
    if hue:
        change["hue"] = fn.random.uniform(range=[-360 * hue, 360 * hue])  # degrees
    return fn.color_twist(images, **change)


def _resize_and_crop(images: Any, preprocessing: Preprocessing) -> Any:
    """Torchvision's Resize and CenterCrop on PIL images, on a CPU within one grey level
    (bicubic: 3).

    The long side is truncated as there (DALI rounds it), and the crop's start is rounded half to
    even. Of an image longer than `LONG` only what the crop shows is resized.
    """
    short, size = preprocessing.resize_size, preprocessing.image_size
    shape = images.shape(dtype=types.INT64)  # H, W, C
    height, width, sides = shape[0], shape[1], shape[:2]
    shorter = math.min(height, width)
    resized = short * sides // shorter
    start = _half_to_even(resized - size)
    is_long = fn.cast(math.max(height, width) > LONG * shorter, dtype=types.INT64)
    before, after = is_long * start, is_long * (resized - size - start)
    made = resized - before - after
    # in the file's pixels; with nothing before and after, exactly the whole of it
    low, high = before * sides / resized, sides - after * sides / resized
    if preprocessing.interpolation == "bicubic":
        # Overshoots at edges: Pillow resizes the width first, and cuts what leaves 0..255 before
        # the height. In one go up to 17 grey levels would differ.
        images = _resize(
            images,
            _floats(height, made[1]),
            preprocessing.interpolation,
            roi_start=_floats(height * 0, low[1]),
            roi_end=_floats(height, high[1]),
        )
        low, high = _floats(low[0], height * 0), _floats(high[0], made[1])
    images = _resize(
        images,
        _floats(made[0], made[1]),
        preprocessing.interpolation,
        roi_start=low,
        roi_end=high,
    )
    start = fn.cast(start - before, dtype=types.INT32)
    return fn.slice(images, start=start, shape=[size, size], axes=(0, 1))


def _resize(images: Any, size: Any, interpolation: str, **region: Any) -> Any:
    how = INTERPOLATION[interpolation]
    return fn.resize(images, size=size, interp_type=how, antialias=True, **region)


def _floats(height: Any, width: Any) -> Any:
    floats = [fn.cast(number, dtype=types.FLOAT) for number in (height, width)]
    return fn.stack(*floats)


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
