"""Many image files as pixels for a network, decoded by DALI: what `res2net test` sees of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec

import numpy as np
import torch
from PIL import Image

from res2net.errors import InputError, WorkError
from res2net.inference.images import OnUnreadable, name_images, opens, read_batches, read_image
from res2net.preprocessing import Preprocessing


def has_dali() -> bool:
    """Whether DALI is installed; it is for Linux alone."""
    try:
        return find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:  # nothing of NVIDIA's at all
        return False


def stream_files(
    paths: Sequence[str],
    preprocessing: Preprocessing,
    transform: Callable[[Image.Image], torch.Tensor],
    *,
    batch_size: int,
    device: torch.device,
    on_unreadable: OnUnreadable,
) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
    """As `images.read_batches`: the paths and uint8 (N, 3, S, S), of fewer where some are lost.

    DALI reads ahead, two batches at a time. What it cannot decode is given to Pillow by `transform`
    (`Preprocessing.transform`), which knows more formats and says what is wrong; so is what only
    DALI would take.

    Raises:
        InputError: A file cannot be read, and `on_unreadable` is None; or there is no DALI.
    """
    if not has_dali():
        raise InputError("loader 'dali': DALI is not installed here; take pillow")
    from res2net.data.dali.stream import Stream
    from res2net.data.order import EXCLUDED, PADDING, EvalOrder
    from res2net.data.sources.folder import FolderSource

    for_pillow = {index: "for Pillow" for index, path in enumerate(paths) if _not_for_dali(path)}
    if len(for_pillow) == len(paths):
        yield from read_batches(
            name_images(paths), transform, batch_size=batch_size, on_unreadable=on_unreadable
        )
        return
    order = EvalOrder(len(paths), min(batch_size, len(paths)))
    stream = Stream(
        FolderSource.of_files("", ("",), {"": paths}),
        order,
        preprocessing=preprocessing,
        threads=len(os.sched_getaffinity(0)),
        device_id=(device.index or 0) if device.type == "cuda" else None,
        skip=True,
        skip_unreadable=True,
        bad=for_pillow,
    )
    for position in range(order.batches):
        try:
            pixels, labels = next(stream)
        except WorkError:
            if len(stream.bad) < len(paths):
                raise
            # nothing is left that DALI could give
            rest = name_images(paths[position * order.batch_size :])
            yield from read_batches(
                rest, transform, batch_size=batch_size, on_unreadable=on_unreadable
            )
            return
        indices = order.batch(position)  # (batch_size,)
        lost = indices == PADDING
        excluded = ~lost & (labels.reshape(-1).numpy(force=True) == EXCLUDED)
        if excluded.any():
            pixels = pixels.clone()
        for slot in np.flatnonzero(excluded).tolist():
            path = paths[indices[slot]]
            try:
                pixels[slot] = transform(read_image(path, source=path)).to(pixels.device)
            except InputError as error:
                if on_unreadable is None:
                    raise
                on_unreadable(error)
                lost[slot] = True
        if lost.any():
            pixels = pixels[torch.from_numpy(~lost)]
        if len(pixels):
            yield tuple(paths[index] for index in indices[~lost].tolist()), pixels


def _not_for_dali(path: str) -> bool:
    """Whether DALI would wait for it, or decode floating-point pixels, which mean nothing here."""
    if not opens(path):
        return True
    if not path.lower().endswith((".tif", ".tiff")):
        return False
    try:
        with Image.open(path) as image:  # its header
            return image.mode == "F"
    except Exception:  # DALI tells
        return False
