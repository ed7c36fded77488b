"""Files and arrays -> batches.

A `Stream` is endless: epochs are cut by counting, so no reset ever happens, prefetching crosses
epochs, and resuming is exact. Batches are uint8 images (N, 3, H, W) in channels_last strides and
int64 labels (N,).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from nvidia.dali.plugin.pytorch import DALIGenericIterator

from res2net.data.augmentation import Augmentation
from res2net.data.dali.decoder import Decoder, too_many
from res2net.data.dali.graph import Work, build_pipeline
from res2net.data.order import EXCLUDED, PADDING, Order
from res2net.data.sources.source import Source, file_of
from res2net.errors import WorkError
from res2net.preprocessing import Preprocessing

PREFETCH = 2
MAX_PIXELS = 178_956_970
"""Above it Pillow, too, takes a file for an attack."""


class Stream:
    """An endless iterator of (images, labels) that starts at any batch and can be stored.

    Attributes:
        bad: index -> why, of the samples that cannot be decoded and were met. In training the
            next good sample of this rank takes the place of such a one, in evaluation its label is
            EXCLUDED. A truncated JPEG is met when a random crop reaches its damage; the list is
            part of the state, so that a resumed stream goes on with the same samples.
        refused: index -> why, of the samples at which it has ended, as `skip` is False.

    Raises:
        WorkError: a file cannot be decoded and `skip` is False, or it cannot be read; it is named.
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
        skip: bool = False,
        skip_unreadable: bool = False,
        bad: dict[int, str] | None = None,
        max_pixels: int = MAX_PIXELS,
        on_bad: Callable[[str, str], None] = lambda name, why: None,
        skip_hint: str = "data.on_corrupt=skip",
    ) -> None:
        """`start` is the first batch's position; `state`, of `state_dict`, takes its place.

        `skip` leaves out what is no good image. A disk or network that is away says nothing of an
        image, and skipping would lose it for the rest of a run: `skip_unreadable` (with `skip`) is
        for lists of files that people name.

        `on_bad` is told the name and the reason of each sample that is skipped; `skip_hint` is how
        the user asks for `skip`.
        """
        self.source = source
        self.order = order
        self.skip = skip
        self.skip_unreadable = skip_unreadable
        self.max_pixels = max_pixels
        self.on_bad = on_bad
        self.skip_hint = skip_hint
        # DALI counts iterations from the start of a pipeline, also across its own checkpoints:
        # the position is that count plus the base at which the pipeline began.
        self.base = state["base"] if state else start
        self.taken = state["taken"] if state else 0
        self.bad: dict[int, str] = dict(state["bad"] if state else bad or {})
        self.refused: dict[int, str] = {}
        self._failure: Exception | None = None
        self._work = Work(source.holds, preprocessing, augmentation, max_pixels)
        self._options: dict[str, Any] = {
            "batch_size": order.batch_size,
            "threads": threads,
            "device_id": device_id,
            "seed": seed,
            "prefetch": PREFETCH,
        }
        self._checkpoint = state["pipeline"] if state else None
        self._batches = self._build()

    def _build(self) -> DALIGenericIterator:
        """Of the last state that is known to be good."""
        pipeline = build_pipeline(
            self._work, self._feed, checkpoint=self._checkpoint, **self._options
        )
        outputs = ["images", "labels", "pixels"]
        return DALIGenericIterator([pipeline], outputs, size=-1, prepare_first_batch=False)

    @property
    def position(self) -> int:
        """Batches of this rank since the start of the run."""
        return self.base + self.taken

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self._failure:
            raise self._failure
        while True:
            try:
                batch = next(self._batches)[0]
                bad = self._too_large(batch["pixels"])
            except RuntimeError as error:
                # should prefetching have met a bad file before its own turn, it is further on
                ahead = range(self.position, self.position + PREFETCH + 2)
                bad = next(filter(None, map(self._undecodable, ahead)), {})
                if not bad:
                    self._check_reading(error)
                    raise
                self._put_aside(bad, error)
                continue
            if not bad:
                break
            self._put_aside(bad, None)
        self.taken += 1
        if self.skip:
            self._checkpoint = self._batches.checkpoints()[0]
        # (N, H, W, 3) -> (N, 3, H, W), the memory untouched: channels_last
        return batch["images"].permute(0, 3, 1, 2), batch["labels"]

    def state_dict(self) -> dict[str, Any]:
        """Numbers, text and bytes; a stream made of them gives the batches that would come next."""
        return {
            "base": self.base,
            "taken": self.taken,
            "pipeline": self._batches.checkpoints()[0],
            "bad": dict(self.bad),
        }

    def indices(self, position: int) -> np.ndarray:
        """The samples that are read for a batch, int64 (N,): none is padding or known to be bad."""
        indices = self.order.batch(position)
        wrong = [
            slot
            for slot, index in enumerate(indices.tolist())
            if index == PADDING or index in self.bad
        ]
        if wrong:
            indices = indices.copy()
            indices[wrong] = [self._stand_in(position, slot) for slot in wrong]
        return indices

    def _stand_in(self, position: int, slot: int) -> int:
        """The next good sample of this rank after a place in a batch; any for padding."""
        padded = slot % len(self.source)
        if self.order.batch(position)[slot] == PADDING and padded not in self.bad:
            return padded
        for ahead in range(self.order.batches + 1):
            following = self.order.batch(position + ahead)
            for index in following[slot + 1 if ahead == 0 else 0 :].tolist():
                if index != PADDING and index not in self.bad:
                    return index
        # a rank of an evaluation may have no sample at all
        return next(index for index in range(len(self.source)) if index not in self.bad)

    def _feed(self, info: Any) -> tuple[Any, ...]:
        """One batch for the pipeline: what the source holds, labels, perhaps sizes."""
        position = self.base + info.iteration
        asked, indices = self.order.batch(position), self.indices(position)
        labels = self.source.labels[indices]
        if not self.order.training:
            labels = np.where(asked == indices, labels, EXCLUDED)
            labels = np.where(asked == PADDING, PADDING, labels)
        if not self._work.sized:
            return self.source.read(indices), labels
        assert self._work.augmentation is not None
        epoch, full = position // self.order.batches, self._work.preprocessing.image_size
        size = self._work.augmentation.size(epoch, full)
        sizes = np.full((len(indices), 2), size, dtype=np.float32)
        return self.source.read(indices), labels, sizes

    def _too_large(self, pixels: torch.Tensor) -> dict[int, str]:
        """pixels (N, 1) or (N,) of the files of the batch that was taken."""
        sizes = pixels.reshape(-1).tolist()
        slots = [slot for slot, size in enumerate(sizes) if size > self.max_pixels]
        indices = self.indices(self.position) if slots else np.empty(0)
        return {int(indices[slot]): too_many(sizes[slot], self.max_pixels) for slot in slots}

    def _undecodable(self, position: int) -> dict[int, str]:
        """The bad files of a batch, in their order."""
        if self.source.holds == "pixels":
            return {}
        decoder = Decoder()
        found = {}
        for index in dict.fromkeys(self.indices(position).tolist()):
            why: str | None
            try:
                file = file_of(self.source, index)
            except OSError as error:
                why = f"cannot be read ({error.strerror or error})"
                if not self.skip_unreadable:
                    self._failure = WorkError(
                        f"{self.source.name(index)} {why}: mend that; images are left out only if "
                        "they are damaged themselves"
                    )
                    raise self._failure from error
            else:
                why = decoder.why_not(file, max_pixels=self.max_pixels)
            if why is not None:
                found[index] = why
        return found

    def _check_reading(self, error: RuntimeError) -> None:
        """Raise WorkError if DALI could not read a file, though it can be read by now."""
        operator, _, rest = str(error).partition("encountered:")
        if "fn.io.file.read" not in operator:
            return
        what = rest.strip().partition("\n")[0]
        self._failure = WorkError(
            f"{what}; it can be read now: was a disk or a network away for a moment?"
        )
        raise self._failure from error

    def _put_aside(self, bad: dict[int, str], cause: Exception | None) -> None:
        """Go on without some samples, or raise."""
        named = {self.source.name(index): why for index, why in bad.items()}
        if not self.skip:
            self.refused = bad
            name, why = next(iter(named.items()))
            more = f" ({len(named) - 1} more in its batch)" if len(named) > 1 else ""
            files = self.source.holds == "files"
            mend = "write or copy these shards again" if files else "mend the file"
            self._failure = WorkError(
                f"{name} {why}{more}: {mend}, or leave such images out with {self.skip_hint}"
            )
            raise self._failure from cause
        self.bad |= bad
        if len(self.bad) == len(self.source):
            self._failure = WorkError(f"none of the {len(self.source)} images can be decoded")
            raise self._failure
        for name, why in named.items():
            self.on_bad(name, why)
        # after an error DALI goes on with altered batches: the pipeline is made anew
        self._batches = self._build()
