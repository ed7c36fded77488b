"""The classes of images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Unpack, overload

import torch

from res2net.errors import InputError
from res2net.inference.images import ImageLike, OnUnreadable, is_one_image
from res2net.inference.opened import AnyModel, Loader, OpenedModel, Options


@dataclass(frozen=True)
class Prediction:
    """What the network says of one image."""

    label: str
    """The likeliest class: its name, or its index as text where the weights name no classes."""
    index: int
    """Its index."""
    score: float
    """Its probability by softmax, 0..1."""
    topk: tuple[tuple[str, float], ...]
    """The likeliest classes with their scores, best first."""
    source: str
    """The image's path, or which image of the call it was."""


class Predictor(OpenedModel):
    """Opens a model once and classifies images with it; may be shared between threads.

    Images are handled as in evaluation: EXIF rotation is not applied, transparency is dropped,
    16-bit grey is scaled to 8 bits; the pixels agree with what DALI decodes.

    It is opened as `OpenedModel` says, which has its attributes.
    """

    def __init__(
        self, model: AnyModel, *, compile: bool = False, **options: Unpack[Options]
    ) -> None:
        """`model`, options and errors are those of `OpenedModel`.

        `compile`: by torch.compile, which takes up to minutes at the first images.
        """
        super().__init__(model, **options)
        if compile:
            self.model.compile()

    # A str is an iterable of str as well; the first signature that fits counts.
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, images: ImageLike, *, topk: int = 5
    ) -> Prediction: ...

    @overload
    def __call__(self, images: Iterable[ImageLike], *, topk: int = 5) -> list[Prediction]: ...

    def __call__(
        self, images: ImageLike | Iterable[ImageLike], *, topk: int = 5
    ) -> Prediction | list[Prediction]:
        """Classify one image or several.

        Args:
            images: One `ImageLike` gives one Prediction, an iterable of them a list.
            topk: How many classes to name; no more than there are.

        Raises:
            InputError: `topk` is below 1, or an image cannot be read; it is named.
            WorkError: The network's output is not finite, or the device's memory too small.
        """
        predictions = list(self.stream(images, topk=topk))
        return predictions[0] if is_one_image(images) else predictions

    def stream(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        topk: int = 5,
        on_unreadable: OnUnreadable = None,
        loader: Loader = "pillow",
    ) -> Iterator[Prediction]:
        """Classify any number of images in their order, holding a few batches of them.

        Args:
            images: Taken from the iterable as they are needed.
            topk: How many classes to name; no more than there are.
            on_unreadable: Told of an image that cannot be read, which is then left out. None:
                raise.
            loader: `dali` is for many files on Linux: paths alone, all taken at once.

        Raises:
            InputError, WorkError: As in a call; `topk` is checked at once, the rest on the way.
        """
        if topk < 1:
            raise InputError(f"topk={topk}: at least 1")
        batches = self._outputs(images, self.model, on_unreadable=on_unreadable, loader=loader)
        return (
            prediction
            for sources, logits in batches
            for prediction in self._name(sources, logits, topk)
        )

    def _name(
        self, sources: tuple[str, ...], logits: torch.Tensor, topk: int
    ) -> Iterator[Prediction]:
        """Logits: (N, num_classes)."""
        best = logits.softmax(dim=1).topk(min(topk, logits.shape[1]), dim=1)  # twice (N, topk)
        for source, values, indices in zip(
            sources, best.values.tolist(), best.indices.tolist(), strict=True
        ):
            named = tuple(
                (self.class_names[index], score)
                for index, score in zip(indices, values, strict=True)
            )
            label, score = named[0]
            yield Prediction(label, indices[0], score, named, source)
