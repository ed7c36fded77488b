"""The networks that are measured beside each other, each ready for its passes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from res2net.errors import InputError
from res2net.models.folding import fold_batch_norms
from res2net.models.variants import ALIASES, find_variant
from res2net.zoo import create_model

Pass = Literal["forward", "backward", "step"]
PASSES: dict[Pass, str] = {
    "forward": "forward, evaluation",
    "backward": "forward and backward",
    "step": "training step",
}
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Compile = Literal["", "default", "reduce-overhead", "max-autotune"]


@dataclass(frozen=True)
class ModelWork:
    """The same for all networks."""

    variant: str
    batch_size: int
    image_size: int
    precision: str
    """Key of `DTYPES`; weights are float32, half precision is autocast's."""
    device: str
    compile: Compile = ""
    """A mode of torch.compile: each network is measured compiled, too."""

    @property
    def autocast(self) -> Any:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device, DTYPES[self.precision])


class Network:
    """A network and what it trains with; random weights, one batch that stays on the device."""

    def __init__(
        self, name: str, network: nn.Module, work: ModelWork, *, layout: torch.memory_format
    ) -> None:
        self.name = name
        self.work = work
        self.network = network.to(work.device).to(memory_format=layout)
        generator = torch.Generator().manual_seed(0)
        shape = (work.batch_size, 3, work.image_size, work.image_size)
        images = torch.randn(shape, generator=generator)
        self.images = images.to(work.device, memory_format=layout)
        self.labels = torch.arange(work.batch_size, device=work.device) % 1000
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr=1e-6, momentum=0.9, fused=work.device == "cuda" or None
        )
        self.scaler = torch.amp.GradScaler(work.device, enabled=work.precision == "fp16")

    def run(self, which: Pass) -> None:
        """One pass over the batch."""
        if which == "forward":
            with torch.inference_mode(), self.work.autocast:
                self.network(self.images)
            return
        with self.work.autocast:
            loss = F.cross_entropy(self.network(self.images).float(), self.labels)
        self.scaler.scale(loss).backward()
        if which == "step":
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def ready(self, which: Pass) -> None:
        """Take the mode of a pass, which networks keep between turns."""
        self.network.train(which != "forward")

    def on_meta(self) -> Network:
        """The same without data, to count what it does."""
        twin = copy.copy(self)
        twin.network = copy.deepcopy(self.network).to("meta")
        twin.images, twin.labels = self.images.to("meta"), self.labels.to("meta")
        twin.optimizer = torch.optim.SGD(twin.network.parameters(), lr=0.1, momentum=0.9)
        twin.scaler = torch.amp.GradScaler("cpu", enabled=False)
        return twin


def open_networks(work: ModelWork, which: Pass) -> Iterator[Network]:
    """Ours first; then timm's same network in both memory formats, and torchvision's ResNet-50.

    For `forward` ours also with its batch norms folded. Where there is no such network in timm,
    it is left out.

    Raises:
        InputError: No variant has that name.
    """
    last = torch.channels_last
    variant = find_variant(work.variant)
    ours = create_model(variant.name, num_classes=1000)
    builders: dict[str, tuple[Callable[[], nn.Module], torch.memory_format]] = {
        "ours": (lambda: ours, last)
    }
    if which == "forward":
        builders["ours, folded"] = (lambda: fold_batch_norms(ours), last)
    if theirs := _in_timm(variant.name):
        builders["timm"] = (theirs, last)
        builders["timm, contiguous"] = (theirs, torch.contiguous_format)
    builders["resnet50"] = (_resnet50, last)
    for name, (build, layout) in builders.items():
        yield Network(name, build(), work, layout=layout)
    if work.compile:
        for name, (build, layout) in builders.items():
            if layout == last:
                network = copy.deepcopy(build())
                network.compile(mode=work.compile)
                yield Network(f"{name}, compiled", network, work, layout=layout)


def _in_timm(variant: str) -> Callable[[], nn.Module] | None:
    import timm

    names = [variant, *(alias for alias, name in ALIASES.items() if name == variant)]
    for name in names:
        if timm.is_model(name):
            return lambda: timm.create_model(name)
    return None


def _resnet50() -> nn.Module:
    try:
        from torchvision.models import resnet50
    except ImportError as error:
        raise InputError(f"torchvision cannot be imported ({error})") from error
    return resnet50()
