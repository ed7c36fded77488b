"""The features of images: what the backbone has seen of them, before any classifier."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import MappingProxyType
from typing import Literal, Unpack

import numpy as np
import torch
import torch.nn.functional as F

from res2net.errors import InputError
from res2net.inference.images import ImageLike, OnUnreadable
from res2net.inference.opened import AnyModel, Loader, OpenedModel, Options


class FeatureExtractor(OpenedModel):
    """Opens a model once and gives the pooled features of images; may be shared between threads.

    The features are what the classifier's linear layer gets: the last stage's map, averaged over
    its positions; or the same of another stage, or of all one after the other. Images are handled
    as by `Predictor`.

    Attributes, beside those of `OpenedModel`:
        num_features: C, the numbers of one image.
        parts: What these are, in order: `features` -> C, or of all stages `stage1` -> C1 and on.
    """

    def __init__(
        self,
        model: AnyModel,
        *,
        stage: int | Literal["pooled", "all"] = "pooled",
        **options: Unpack[Options],
    ) -> None:
        """`model`, options and errors are those of `OpenedModel`.

        `stage`: `pooled`, the classifier's input; 1 for the first stage and on; or `all`. Raises
        InputError where there is no such stage.
        """
        super().__init__(model, **options)
        channels = self.model.backbone.stage_channels
        if stage in ("pooled", "all"):
            wanted = range(len(channels) - 1 if stage == "pooled" else 0, len(channels))
        elif isinstance(stage, int) and 1 <= stage <= len(channels):
            wanted = range(stage - 1, stage)
        else:
            name = self.model.variant or "the network"
            raise InputError(
                f"stage {stage!r}: {name} has the stages 1 to {len(channels)}; also: pooled, all"
            )
        self._wanted = wanted
        self.parts = MappingProxyType(
            {f"stage{index + 1}": channels[index] for index in wanted}
            if stage == "all"
            else {"features": channels[wanted[0]]}
        )
        self.num_features = sum(self.parts.values())

    def __call__(self, images: ImageLike | Iterable[ImageLike]) -> np.ndarray:
        """Features float32 (N, C), one row an image, in order; N is 1 for one `ImageLike`.

        Raises:
            InputError: An image cannot be read; it is named.
            WorkError: The network's output is not finite, or the device's memory too small.
        """
        none = np.empty((0, self.num_features), np.float32)
        return np.concatenate([none, *(rows for _, rows in self.stream(images))])

    def stream(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        on_unreadable: OnUnreadable = None,
        loader: Loader = "pillow",
    ) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
        """Batch by batch in order, for any number of images: sources, features float32 (N, C).

        A source is the image's path, or which image of the call it was.

        Args:
            images: Taken from the iterable as they are needed; a few batches of them are held.
            on_unreadable: Told of an image that cannot be read, which is then left out. None:
                raise.
            loader: `dali` is for many files on Linux: paths alone, all taken at once.

        Raises:
            InputError, WorkError: As in a call.
        """
        batches = self._outputs(images, self._pool, on_unreadable=on_unreadable, loader=loader)
        return ((sources, features.numpy()) for sources, features in batches)

    def _pool(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images (N, 3, S, S) -> (N, C), as in `ClassificationHead`."""
        maps = self.model.feature_maps(images)
        pooled = [F.adaptive_avg_pool2d(maps[index], 1).flatten(1) for index in self._wanted]
        return torch.cat(pooled, dim=1)
