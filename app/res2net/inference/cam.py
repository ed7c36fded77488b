"""Where a network looks: the heat of each image for a class, from the image to the picture."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Unpack

import numpy as np
import torch

from res2net.errors import InputError
from res2net.inference.heat_maps import (
    METHODS,
    Method,
    heat_maps,
    library,
    stage_module,
    stage_modules,
)
from res2net.inference.images import ImageLike, OnUnreadable, name_images
from res2net.inference.opened import AnyModel, OpenedModel, Options

__all__ = ["METHODS", "Explainer", "Explanation", "Method", "heat_maps"]


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where a network looks in one image for one class."""

    pixels: np.ndarray
    """uint8 (S, S, 3): the image as the network sees it."""
    heat: np.ndarray
    """float32 (S, S), 0..1: 1 is the place that speaks most for the class; all 0: none does."""
    label: str
    """The class that is explained: its name, or its index as text."""
    index: int
    """Its index."""
    score: float
    """Its probability by softmax, 0..1."""
    scores: np.ndarray
    """float32 (num_classes,): the probability of each class."""
    predicted: str
    """The likeliest class."""
    source: str
    """The image's path, or which image of the call it was."""


class Explainer(OpenedModel):
    """Opens a model once and shows where it looks; may be shared between threads.

    Images are handled as by `Predictor`.

    Attributes, beside those of `OpenedModel`:
        stages: How many stages there are to look into.
    """

    def __init__(
        self,
        model: AnyModel,
        *,
        method: Method = "gradcam",
        stage: int | None = None,
        **options: Unpack[Options],
    ) -> None:
        """`model`, options and errors are those of `OpenedModel`; the others': of `heat_maps`."""
        if method not in METHODS:
            raise InputError(f"method {method!r}: none of {', '.join(METHODS)}")
        library()  # a missing one is told before weights are read
        super().__init__(model, **options)
        self._method: Method = method
        self._stage = stage
        self.stages = len(stage_modules(self.model))
        stage_module(self.model, stage)  # raises

    def find_class(self, target: str | int) -> int:
        """The index of a class by its name or index; names come first. Raises InputError."""
        if isinstance(target, str):
            named = [index for index, name in enumerate(self.class_names) if name == target]
            if len(named) == 1:
                return named[0]
            if named:
                choices = ", ".join(map(str, named))
                raise InputError(f"class {target!r}: several are called so; indices: {choices}")
        count = len(self.class_names)
        if str(target).isdecimal() and int(target) < count:
            return int(target)
        near = difflib.get_close_matches(str(target), self.class_names, n=3, cutoff=0.5)
        some = near or [*self.class_names[:3], *(["..."] if count > 3 else [])]
        raise InputError(
            f"class {target!r}: none of the model's {count:,} classes; give a name or an index, 0 "
            f"to {count - 1} ({'near' if near else 'names'}: {', '.join(some)})"
        )

    def __call__(
        self,
        images: ImageLike | Iterable[ImageLike],
        target: str | int | Sequence[str | int] | None = None,
        *,
        method: Method | None = None,
        stage: int | None = None,
    ) -> list[Explanation]:
        """One explanation an image, in order.

        Args:
            images: One `ImageLike` or several.
            target: The class that is explained, by name or index; or one for each image. None:
                the predicted one.
            method, stage: For this call. None: those of the Explainer.

        Raises:
            InputError: An image cannot be read, there is no such class, method or stage, or there
                are not as many classes as images.
            WorkError: The network's output is not finite, or the device's memory too small.
        """
        if target is None or isinstance(target, (str, int)):
            return list(self.stream(images, target, method=method, stage=stage))
        images = [image for _, image in name_images(images)]
        classes = [self.find_class(each) for each in target]
        if len(classes) != len(images):
            raise InputError(f"{len(classes)} classes for {len(images)} images: one for each")
        return list(self._explain(images, iter(classes), None, method, stage))

    def stream(
        self,
        images: ImageLike | Iterable[ImageLike],
        target: str | int | None = None,
        *,
        on_unreadable: OnUnreadable = None,
        method: Method | None = None,
        stage: int | None = None,
    ) -> Iterator[Explanation]:
        """One by one in order, for any number of images, of which a few batches are held.

        Raises:
            InputError, WorkError: As in a call; `target` is checked at once, the rest on the way.
        """
        classes = None if target is None else repeat(self.find_class(target))
        return self._explain(images, classes, on_unreadable, method, stage)

    def _explain(
        self,
        images: ImageLike | Iterable[ImageLike],
        classes: Iterator[int] | None,
        on_unreadable: OnUnreadable,
        method: Method | None,
        stage: int | None,
    ) -> Iterator[Explanation]:
        batch: list[torch.Tensor] = []  # pixels, heat and classes of the batch on its way

        def function(images: torch.Tensor) -> torch.Tensor:
            """Normalised (N, 3, S, S) -> logits (N, num_classes)."""
            # Tensors of the inference mode, which all this runs in, can take no part in gradients.
            with torch.inference_mode(False), torch.enable_grad():
                images = images.clone()
                wanted = None if classes is None else list(islice(classes, len(images)))
                heat, logits = heat_maps(
                    self.model,
                    images,
                    classes=wanted,
                    stage=self._stage if stage is None else stage,
                    method=self._method if method is None else method,
                )
            taken = logits.argmax(dim=1).cpu() if wanted is None else torch.tensor(wanted)
            batch[:] = (self._pixels(images), heat, taken)
            return logits

        stream = self._outputs(images, function, on_unreadable=on_unreadable)
        for sources, logits in stream:
            pixels, heat, taken = batch
            scores = logits.softmax(dim=1)
            for row, source in enumerate(sources):
                index = int(taken[row])
                yield Explanation(
                    pixels=pixels[row].numpy(),
                    heat=heat[row].numpy(),
                    label=self.class_names[index],
                    index=index,
                    score=float(scores[row, index]),
                    scores=scores[row].numpy(),
                    predicted=self.class_names[int(scores[row].argmax())],
                    source=source,
                )

    def _pixels(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised (N, 3, S, S) -> uint8 (N, S, S, 3) on the CPU."""
        mean, std = (
            torch.tensor(values, device=images.device).view(1, 3, 1, 1)
            for values in (self.preprocessing.mean, self.preprocessing.std)
        )
        pixels = images.mul(std).add(mean).mul(255).round().clamp(0, 255).to(torch.uint8)
        return pixels.permute(0, 2, 3, 1).cpu()
