"""The data of a run for Lightning: streams cut into epochs, for this rank."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import lightning as L
import torch

from res2net.data.dali import Augmentation, Stream
from res2net.data.order import EvalOrder, TrainOrder
from res2net.data.sources import Source
from res2net.errors import InputError
from res2net.preprocessing import Preprocessing

Batch = tuple[torch.Tensor, torch.Tensor]


class EpochLoader:
    """A stream cut into epochs by counting.

    It has a length, or Lightning would take one batch ahead and lose it on resume; and it has no
    `state_dict`, of which Lightning would store rank 0's for all ranks.
    """

    def __init__(self, stream: Stream) -> None:
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
        global_batch_size: samples per optimizer step, over all ranks and accumulated batches.
        eval_batch_size: images per rank and evaluation batch.
        accumulate: batches per optimizer step.
        threads: decoding threads of this rank.
        seed: the run's; order and augmentation follow from it.
    """

    def __init__(
        self,
        train: Source | None,
        val: Source,
        *,
        preprocessing: Preprocessing,
        augmentation: Augmentation | None = None,
        global_batch_size: int = 0,
        eval_batch_size: int = 64,
        accumulate: int = 1,
        threads: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.train, self.val = train, val
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        self.global_batch_size = global_batch_size
        self.eval_batch_size = eval_batch_size
        self.accumulate = accumulate
        self.threads = threads
        self.seed = seed
        self.train_stream: Stream | None = None
        self._val_loader: EpochLoader | None = None
        self._stored: dict[str, Any] | None = None
        self._steps_done = 0

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        assert self.train is not None
        return len(self.train) // self.global_batch_size

    def train_dataloader(self) -> EpochLoader:
        assert self.train is not None and self.trainer is not None
        world = self.trainer.world_size
        order = TrainOrder(
            count=len(self.train),
            seed=self.seed,
            batch_size=self.global_batch_size // (world * self.accumulate),
            world_size=world,
            rank=self.trainer.global_rank,
            accumulate=self.accumulate,
        )
        self.train_stream = Stream(
            self.train,
            order,
            preprocessing=self.preprocessing,
            augmentation=self.augmentation,
            threads=self.threads,
            device_id=self._device_id(),
            # each rank, and each start on other ranks, draws its own augmentations
            seed=_mix(self.seed, self.trainer.global_rank, world, self._steps_done),
            start=self._steps_done * self.accumulate,
            state=self._stored,
        )
        return EpochLoader(self.train_stream)

    def val_dataloader(self) -> EpochLoader:
        assert self.trainer is not None
        if self._val_loader is None:
            order = EvalOrder(
                len(self.val),
                self.eval_batch_size,
                world_size=self.trainer.world_size,
                rank=self.trainer.global_rank,
            )
            self._val_loader = EpochLoader(
                Stream(
                    self.val,
                    order,
                    preprocessing=self.preprocessing,
                    threads=self.threads,
                    device_id=self._device_id(),
                )
            )
        return self._val_loader

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """uint8 -> normalised float32, on the device."""
        images, labels = batch
        return self.preprocessing.normalise(images), labels

    def _device_id(self) -> int | None:
        assert self.trainer is not None
        device = self.trainer.strategy.root_device
        return device.index if device.type == "cuda" else None

    def resume_state(self) -> dict[str, Any]:
        """Where this rank's training stream stands, exactly."""
        assert self.train_stream is not None
        steps = self.train_stream.position // self.accumulate
        return {
            "steps": steps,
            "stream": self.train_stream.state_dict(),
            "fingerprint": self._fingerprint(),
        }

    def load_resume_state(self, states: Sequence[dict[str, Any]], rank: int | None) -> None:
        """Go on from the stored states of all ranks, before the loaders are made.

        `rank` None says that the ranks or batches are cut otherwise now: the next samples are
        the same, each once, and augmentation draws anew.

        Raises:
            InputError: the training images are others than when the state was stored.
        """
        if states[0]["fingerprint"] != self._fingerprint():
            assert self.train is not None
            raise InputError(
                f"the training images have changed since the run began (now {len(self.train)}): "
                "their order, and so what was seen, would be another; restore them, or start "
                "another run with run.name=NAME"
            )
        if rank is None:
            self._steps_done = states[0]["steps"]
        else:
            self._stored = states[rank]["stream"]

    def _fingerprint(self) -> str:
        """Of the number of training images and the class of each."""
        assert self.train is not None
        classes = "/".join(self.train.class_names).encode()
        return hashlib.sha256(self.train.labels.tobytes() + classes).hexdigest()


def _mix(*numbers: int) -> int:
    """One seed of several numbers; DALI takes 31 bits and treats negative ones as random."""
    value = 0
    for number in numbers:
        value = (value * 1_000_003 + number + 1) % (2**31 - 1)
    return value
