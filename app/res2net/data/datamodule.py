"""The data of a run for Lightning: streams cut into epochs, for this rank."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import lightning as L
import torch

from res2net.data import erasing
from res2net.data.arrays import ArrayStream
from res2net.data.augmentation import Augmentation, uniform
from res2net.data.dali.stream import MAX_PIXELS, Stream
from res2net.data.order import EvalOrder, TrainOrder
from res2net.data.sources.source import Source
from res2net.files.runs import say
from res2net.preprocessing import Preprocessing

Batch = tuple[torch.Tensor, torch.Tensor]
AnyStream = Stream | ArrayStream

_ERASE = 2  # stream of random numbers


class EpochLoader:
    """A stream cut into epochs by counting.

    It has a length, or Lightning would take one batch ahead and lose it on resume; and it has no
    `state_dict`, of which Lightning would store rank 0's for all ranks.
    """

    def __init__(self, stream: AnyStream) -> None:
        self.stream = stream

    def __len__(self) -> int:
        return self.stream.order.batches

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the epoch that the stream stands in."""
        while True:
            yield next(self.stream)
            if self.stream.position % len(self) == 0:
                return


class ImageDataModule(L.LightningDataModule):
    """Batches of normalised images for any number of ranks.

    Args:
        train, val: what there is (`sources.open_sources`); `train` None for evaluation alone.
        preprocessing: of evaluation.
        train_image_size: of training, where it is another; `augmentation` may let it grow.
        augmentation: of training.
        global_batch_size: samples per optimizer step, over all ranks and accumulated batches.
        eval_batch_size: images per rank and evaluation batch.
        accumulate: batches per optimizer step.
        threads: decoding threads of this rank.
        seed: the run's; order and augmentation follow from it.
        wrap, repeats, balanced: how an epoch is drawn, see `order.TrainOrder`.
        skip: leave out files that cannot be decoded, instead of ending.
        max_pixels: larger files count as such.
        skip_hint: how the user asks for `skip`.
    """

    def __init__(
        self,
        train: Source | None,
        val: Source,
        *,
        preprocessing: Preprocessing,
        train_image_size: int | None = None,
        augmentation: Augmentation | None = None,
        global_batch_size: int = 0,
        eval_batch_size: int = 64,
        accumulate: int = 1,
        threads: int = 2,
        seed: int = 0,
        wrap: bool = False,
        repeats: int = 1,
        balanced: bool = False,
        skip: bool = False,
        max_pixels: int = MAX_PIXELS,
        skip_hint: str = "data.on_corrupt=skip",
    ) -> None:
        super().__init__()
        self.train, self.val = train, val
        self.preprocessing = preprocessing
        self.train_image_size = train_image_size or preprocessing.image_size
        self.augmentation = augmentation or Augmentation(crop="none", flip=0.0)
        self.global_batch_size = global_batch_size
        self.eval_batch_size = eval_batch_size
        self.accumulate = accumulate
        self.threads = threads
        self.seed = seed
        self.wrap, self.repeats, self.balanced = wrap, repeats, balanced
        self.skip, self.max_pixels, self.skip_hint = skip, max_pixels, skip_hint
        self.train_stream: AnyStream | None = None
        self._val_loader: EpochLoader | None = None
        self._stored: dict[str, Any] | None = None
        self._steps_done = 0
        self._bad: dict[int, str] = {}
        self.record: dict[str, Any] | None = None
        """What the run keeps of its images, by split (`training.images`); on rank 0."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return self._train_order(world_size=1, rank=0, accumulate=1).steps

    def train_dataloader(self) -> EpochLoader:
        assert self.trainer is not None
        return EpochLoader(
            self.open_train_stream(
                self.trainer.world_size,
                self.trainer.global_rank,
                self.trainer.strategy.root_device,
            )
        )

    def open_train_stream(self, world: int, rank: int, device: torch.device) -> AnyStream:
        """The training images of one rank, from where the run stands."""
        assert self.train is not None
        self.train_stream = self._stream(
            self.train,
            self._train_order(world_size=world, rank=rank, accumulate=self.accumulate),
            replace(self.preprocessing, image_size=self.train_image_size),
            self.augmentation,
            device,
            # each rank, and each start on other ranks, draws its own augmentations
            seed=_mix(self.seed, rank, world, self._steps_done),
            start=self._steps_done * self.accumulate,
            state=self._stored,
            bad=self._bad,
        )
        return self.train_stream

    def val_dataloader(self) -> EpochLoader:
        assert self.trainer is not None
        if self._val_loader is None:
            self._val_loader = EpochLoader(
                self.open_val_stream(
                    self.trainer.world_size,
                    self.trainer.global_rank,
                    self.trainer.strategy.root_device,
                )
            )
        return self._val_loader

    def open_val_stream(self, world: int, rank: int, device: torch.device) -> AnyStream:
        """The evaluation images of one rank, again and again."""
        order = EvalOrder(len(self.val), self.eval_batch_size, world_size=world, rank=rank)
        return self._stream(self.val, order, self.preprocessing, None, device)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """uint8 -> normalised float32, on the device; in training parts may be erased."""
        images, labels = batch
        assert self.trainer is not None
        return self.finish(images, training=self.trainer.training), labels

    def finish(self, images: torch.Tensor, *, training: bool) -> torch.Tensor:
        """The last part of preprocessing, of the batch that was taken last."""
        images = self.preprocessing.normalise(images)
        if training and self.augmentation.erase:
            assert self.train_stream is not None
            order, position = self.train_stream.order, self.train_stream.position - 1
            assert isinstance(order, TrainOrder)
            numbers = uniform(order, position, stream=_ERASE, numbers=erasing.NUMBERS)
            erasing.erase(images, numbers, probability=self.augmentation.erase)
        return images

    def names(self, position: int) -> list[str]:
        """What messages call the images of a training batch of this rank.

        `position` counts its batches since the start of the run.
        """
        stream = self.train_stream
        assert self.train is not None and stream is not None
        indices = (
            stream.indices(position) if isinstance(stream, Stream) else stream.order.batch(position)
        )
        return [self.train.name(index) for index in indices.tolist()]

    def quarantine(self) -> dict[str, str]:
        """Name -> why, of the files that this rank has met and left out."""
        streams = [(self.train, self.train_stream)]
        if self._val_loader is not None:
            streams.append((self.val, self._val_loader.stream))
        return {
            source.name(index): why
            for source, stream in streams
            if source is not None and stream is not None
            for index, why in stream.bad.items()
        }

    def _train_order(self, *, world_size: int, rank: int, accumulate: int) -> TrainOrder:
        assert self.train is not None
        return TrainOrder(
            count=len(self.train),
            seed=self.seed,
            batch_size=self.global_batch_size // (world_size * accumulate),
            world_size=world_size,
            rank=rank,
            accumulate=accumulate,
            wrap=self.wrap,
            repeats=self.repeats,
            labels=self.train.labels if self.balanced else None,
        )

    def _stream(
        self,
        source: Source,
        order: TrainOrder | EvalOrder,
        preprocessing: Preprocessing,
        augmentation: Augmentation | None,
        device: torch.device,
        **start: Any,
    ) -> AnyStream:
        if ArrayStream.can(source, preprocessing.image_size, augmentation):
            position = start.get("start", 0)
            if state := start.get("state"):
                position = state["position"]
            return ArrayStream(
                source, order, augmentation=augmentation, device=device, position=position
            )
        return Stream(
            source,
            order,
            preprocessing=preprocessing,
            augmentation=augmentation,
            threads=self.threads,
            device_id=device.index if device.type == "cuda" else None,
            skip=self.skip,
            max_pixels=self.max_pixels,
            on_bad=_say_left_out,
            skip_hint=self.skip_hint,
            **start,
        )

    def resume_state(self) -> dict[str, Any]:
        """Where this rank's training stream stands, exactly."""
        assert self.train_stream is not None
        steps = self.train_stream.position // self.accumulate
        return {
            "steps": steps,
            "stream": self.train_stream.state_dict(),
            "fingerprint": self.fingerprint,
            "images": self.record,
        }

    def load_resume_state(self, states: Sequence[dict[str, Any]], rank: int | None) -> None:
        """Go on from the stored states of all ranks, before the loaders are made.

        `rank` None says that the ranks or batches are cut otherwise now: the next samples are
        the same, each once, and augmentation draws anew. Whether the images are those of the state
        is known before (`training.images`).
        """
        for state in states:
            self._bad |= state["stream"].get("bad", {})
        if rank is None:
            self._steps_done = states[0]["steps"]
        else:
            self._stored = states[rank]["stream"]

    def refused(self) -> list[tuple[str, Source, list[int]]]:
        """The images at which this rank has ended, as they cannot be decoded: by split."""
        streams = [("training", self.train, self.train_stream)]
        if self._val_loader is not None:
            streams.append(("validation", self.val, self._val_loader.stream))
        return [
            (what, source, list(stream.refused))
            for what, source, stream in streams
            if source is not None and isinstance(stream, Stream) and stream.refused
        ]

    @cached_property
    def fingerprint(self) -> str:
        """Of the number of training images and the class of each."""
        assert self.train is not None
        classes = "/".join(self.train.class_names).encode()
        return hashlib.sha256(self.train.labels.tobytes() + classes).hexdigest()


def _say_left_out(name: str, why: str) -> None:
    # from the rank that met it: the others do not know
    say(f"left out: {name} {why}", every_rank=True)


def _mix(*numbers: int) -> int:
    """One seed of several numbers; DALI takes 31 bits and treats negative ones as random."""
    value = 0
    for number in numbers:
        value = (value * 1_000_003 + number + 1) % (2**31 - 1)
    return value
