"""A network of any origin, opened to be used on images: what every use of it shares."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypedDict

import torch

from res2net import imagenet
from res2net.errors import InputError, WorkError
from res2net.inference.images import ImageLike, OnUnreadable, name_images, read_batches
from res2net.models.folding import fold_batch_norms
from res2net.weights.preprocessing import Wanted, preprocessing_of
from res2net.zoo import open_model

Device = Literal["auto", "cpu", "cuda"]
AnyModel = str | os.PathLike[str] | Mapping[str, Any]
"""A run directory, a checkpoint or weights file, a name, or a `state_dict` of any origin."""
Loader = Literal["pillow", "dali"]
"""What decodes: Pillow any `ImageLike` on any system, DALI many files on Linux."""

BATCH_SIZE = 32


class Options(TypedDict, total=False):
    """What `OpenedModel` takes beside the model."""

    weights: AnyModel | None
    checkpoint: Literal["last", "best"]
    device: Device
    batch_size: int
    ema: bool
    fold_bn: bool
    preprocessing: Wanted


class OpenedModel:
    """A network in evaluation mode on its device; may be shared between threads.

    What it is used for are its subclasses.

    Attributes:
        model: The network in evaluation mode, on `device`.
        preprocessing: As asked for, else of the weights; the published 256/224, with a warning,
            where nothing says it.
        class_names: One for each class: English for ImageNet's, the index where none are known.
        device: Where it runs.
        batch_size: Images of one pass.
    """

    def __init__(
        self,
        model: AnyModel,
        *,
        weights: AnyModel | None = None,
        checkpoint: Literal["last", "best"] = "last",
        device: Device = "auto",
        batch_size: int = BATCH_SIZE,
        ema: bool = False,
        fold_bn: bool = False,
        preprocessing: Wanted = None,
    ) -> None:
        """Read the weights and put the network on the device.

        Args:
            model: A run directory, a checkpoint or weights file, a `state_dict` by the keys of any
                origin, `res2net_digits` (which comes with the package), or a variant with
                `weights`.
            weights: A run directory, a file, a `state_dict` or published weights by name (`in1k`),
                for a variant.
            checkpoint: Which file of a run directory.
            device: `auto` takes the first CUDA device where there is one.
            batch_size: Images of one pass.
            ema: The averaged weights.
            fold_bn: Batch norms are folded into the convolutions before them: faster, and equal
                but for rounding (`models.folding`).
            preprocessing: A `Preprocessing`, or some of its fields, as `{"image_size": 288}`. None:
                as the weights say.

        Raises:
            InputError: There is no such model or device, the weights cannot be read or do not fit,
                a variant was given without weights, `batch_size` is below 1, or there is no such
                field of the preprocessing.
        """
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size}: at least 1")
        self.batch_size = batch_size
        self.device = find_device(device)
        network, read = open_model(model, weights=weights, checkpoint=checkpoint, ema=ema)
        if read is None:
            raise InputError(
                f"model {model!r}: a variant without weights answers at random; give "
                "weights as well (--weights), or a run directory or a weights file instead"
            )
        network = fold_batch_norms(network) if fold_bn else network.eval()
        self.model = network.to(self.device).to(memory_format=torch.channels_last)
        self.preprocessing = preprocessing_of(read, preprocessing)
        names = read.class_names or tuple(map(str, range(network.num_classes)))
        self.class_names = imagenet.readable(names)
        self._transform = self.preprocessing.transform()

    def _outputs(
        self,
        images: ImageLike | Iterable[ImageLike],
        function: Callable[[torch.Tensor], torch.Tensor],
        *,
        on_unreadable: OnUnreadable = None,
        loader: Loader = "pillow",
    ) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
        """Batch by batch in order: the images' names, and `function` of them as float32 on the CPU.

        Args:
            images: One, or any number; taken as they are needed, a few batches are held.
            function: Normalised images (N, 3, S, S) on `device` -> (N, K), by the network.
            on_unreadable: See `OnUnreadable`.
            loader: `dali` takes paths alone, all of them at once.

        Raises:
            InputError: An image cannot be read; it is named. Or there is no such loader.
            WorkError: The function's output is not finite, or the device's memory too small.
        """
        for names, pixels in self._read(images, on_unreadable, loader):
            output = self._apply(function, pixels)  # (N, K)
            finite = output.isfinite().all(dim=1)
            if not finite.all():
                raise WorkError(
                    f"{names[int(finite.int().argmin())]}: the network's output is not finite, so "
                    "its training diverged or its weights are damaged; take another checkpoint"
                )
            yield names, output

    def _read(
        self,
        images: ImageLike | Iterable[ImageLike],
        on_unreadable: OnUnreadable,
        loader: Loader,
    ) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
        """Names and pixels uint8 (N, 3, S, S)."""
        if loader == "pillow":
            return read_batches(
                name_images(images),
                self._transform,
                batch_size=self.batch_size,
                on_unreadable=on_unreadable,
            )
        if loader != "dali":
            raise InputError(f"loader {loader!r}: none of pillow, dali")
        from res2net.inference.dali_files import stream_files

        given = [image for _, image in name_images(images)]
        paths = [os.fspath(each) for each in given if isinstance(each, (str, os.PathLike))]
        if len(paths) < len(given):
            raise InputError("loader 'dali': takes paths of files alone; pillow takes the rest")
        return stream_files(
            paths,
            self.preprocessing,
            self._transform,
            batch_size=self.batch_size,
            device=self.device,
            on_unreadable=on_unreadable,
        )

    def _apply(
        self, function: Callable[[torch.Tensor], torch.Tensor], pixels: torch.Tensor
    ) -> torch.Tensor:
        """Pixels: uint8 (N, 3, S, S)."""
        try:
            with torch.inference_mode():
                return function(self.preprocessing.normalise(pixels.to(self.device))).float().cpu()
        except torch.OutOfMemoryError as error:
            raise WorkError(
                f"batch_size={self.batch_size}: too many images for the memory of {self.device}; "
                "take fewer (--batch-size)"
            ) from error
        except RuntimeError as error:
            # their errors' names take seconds to import
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            reason = str(error).strip().split("\n")[0]
            raise WorkError(
                f"torch.compile failed, as without a C++ compiler ({reason}); go without"
            ) from error


def find_device(name: str) -> torch.device:
    """`auto` is the first GPU where there is one. Raises InputError: there is no such device."""
    choices = ("auto", "cpu", "cuda")
    if name not in choices:
        raise InputError(f"device {name!r}: none of {', '.join(choices)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device 'cuda': PyTorch finds no CUDA device here; take auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
