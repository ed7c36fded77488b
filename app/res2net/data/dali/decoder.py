"""Whether DALI can decode a file: what training would say of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline

from res2net.data.dali.graph import DECODE


class Decoder:
    """Tries one file after the other, on the CPU. For one thread."""

    def __init__(self) -> None:
        self._pipeline: Pipeline | None = None
        self._file = np.empty(0, dtype=np.uint8)

    def why_not(self, file: np.ndarray, *, max_pixels: int) -> str | None:
        """In a few words why the file, uint8 (bytes,), cannot be decoded; None: it can."""
        if not file.size:
            return "is empty"
        self._file = file
        if self._pipeline is None:
            self._pipeline = self._build()
        try:
            (shape,) = self._run(self._peek)
            pixels = int(shape[0]) * int(shape[1])
            if pixels > max_pixels:
                return too_many(pixels, max_pixels)
            self._run(self._pipeline)
        except RuntimeError:
            # what a pipeline returns after an error is not to be trusted
            self._pipeline = None
            return "cannot be decoded"
        return None

    def _build(self) -> Any:
        def feed() -> list[np.ndarray]:
            return [self._file]

        pipelines = []
        for decode in (False, True):
            pipeline = Pipeline(
                batch_size=1,
                num_threads=1,
                device_id=None,
                prefetch_queue_depth=1,
                exec_async=False,
                exec_pipelined=False,
            )
            with pipeline:
                encoded = fn.external_source(source=feed, batch=True, dtype=types.UINT8)
                out = (
                    fn.decoders.image(encoded, **DECODE) if decode else fn.peek_image_shape(encoded)
                )
                pipeline.set_outputs(out)
            pipelines.append(pipeline)
        self._peek = pipelines[0]
        return pipelines[1]

    @staticmethod
    def _run(pipeline: Pipeline) -> list[np.ndarray]:
        (outputs,) = pipeline.run()
        return [np.asarray(outputs[0])]


def too_many(pixels: int, max_pixels: int) -> str:
    """Why a file is too large."""
    return f"has {pixels:,} pixels, more than {max_pixels:,}"
