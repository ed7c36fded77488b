"""What is measured: a configuration's training images, as one process on one device takes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from res2net.config.schema import Config
from res2net.data.sources.source import Source

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]
"""Normalised images float32 (N, 3, H, W) on the device, labels int64 (N,); without end."""


@dataclass(frozen=True)
class Work:
    """The same for all contenders."""

    config: Config
    """Of one process: see `alone`."""
    accelerator: str
    threads: int
    """Decoding threads or worker processes."""
    source: Source
    original: Source
    """What torchvision reads: `source`, or the files it was made of."""

    @property
    def batch_size(self) -> int:
        return self.config.data.global_batch_size // self.config.trainer.accumulate

    @property
    def device(self) -> str:
        return "cuda" if self.accelerator == "cuda" else "cpu"


def alone(config: Config) -> Config:
    """One process on one device, and images at their full size from the start."""
    return replace(
        config,
        trainer=replace(config.trainer, devices="1", num_nodes="1"),
        augment=replace(config.augment, start_size=0, grow_from=0.0, grow_until=0.0),
    )
