"""The networks that are measured beside each other, each ready for its passes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from res2net.errors import InputError
from res2net.memory import keep_freed_memory
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


@dataclass(frozen=True)
class Contender:
    """What is measured under a name."""

    name: str
    build: Callable[[], nn.Module]
    layout: torch.memory_format = torch.channels_last
    keeps_memory: bool = False
    """On a CPU: whether freed memory is kept, as in training and evaluation here; see `memory`."""


class Network:
    """A network and what it trains with; random weights, one batch that stays on the device."""

    def __init__(self, contender: Contender, work: ModelWork, *, compiled: bool = False) -> None:
        self.name = contender.name + (", compiled" if compiled else "")
        self.work = work
        self.keeps_memory = contender.keeps_memory
        network, layout = contender.build(), contender.layout
        self.network = network.to(work.device).to(memory_format=layout)
        if compiled:
            self.network.compile(mode=work.compile)
        generator = torch.Generator().manual_seed(0)
        shape = (work.batch_size, 3, work.image_size, work.image_size)
        images = torch.randn(shape, generator=generator)
        self.images = images.to(work.device, memory_format=layout)
        self.labels = torch.arange(work.batch_size, device=work.device) % 1000
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=1e-6, momentum=0.9)
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
        """Take the mode of a pass and the ways of memory; to be followed by a pass to warm up."""
        self.network.train(which != "forward")
        if self.work.device == "cpu":
            keep_freed_memory(self.keeps_memory)

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

    For `forward` ours also with its batch norms folded; on a CPU the others also with memory kept,
    as ours has it. What timm does not have is left out.

    Raises:
        InputError: No variant has that name, or torchvision cannot be imported.
    """
    variant = find_variant(work.variant)
    ours = create_model(variant.name, num_classes=1000)
    contenders = [Contender("ours", lambda: copy.deepcopy(ours), keeps_memory=True)]
    if which == "forward":
        folded = partial(fold_batch_norms, ours)
        contenders.append(Contender("ours, folded", folded, keeps_memory=True))
    peers = {"resnet50": _resnet50}
    if name := _in_timm(variant.name):
        in_timm = partial(_timm, name)
        contenders.append(Contender("timm, contiguous", in_timm, layout=torch.contiguous_format))
        peers = {"timm": in_timm} | peers
    for name, build in peers.items():
        contenders.append(Contender(name, build))
        if work.device == "cpu":
            contenders.append(Contender(f"{name}, memory kept", build, keeps_memory=True))
    for contender in contenders:
        yield Network(contender, work)
        if work.compile and contender.layout == torch.channels_last:
            yield Network(contender, work, compiled=True)


def _in_timm(variant: str) -> str:
    """Its name there; nothing: there is none."""
    import timm

    names = [variant, *(alias for alias, name in ALIASES.items() if name == variant)]
    return next(filter(timm.is_model, names), "")


def _timm(name: str) -> nn.Module:
    import timm

    return timm.create_model(name)


def _resnet50() -> nn.Module:
    try:
        from torchvision.models import resnet50
    except ImportError as error:
        raise InputError(f"torchvision cannot be imported ({error})") from error
    return resnet50()
