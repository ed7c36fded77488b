"""Class activation maps of any stage, by the library grad-cam (the extra `explain`).

Grad-CAM: arXiv 1610.02391, equations 1 and 2. Grad-CAM++: arXiv 1710.11063, equations 7 and 19.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from res2net.errors import InputError
from res2net.models.head import Res2NetClassifier

Method = Literal["gradcam", "gradcam++"]
METHODS: tuple[Method, ...] = ("gradcam", "gradcam++")

_LARGE = 1e6
_PASSING = threading.Lock()


def heat_maps(
    network: Res2NetClassifier,
    images: torch.Tensor,
    *,
    classes: Sequence[int] | None = None,
    stage: int | None = None,
    method: Method = "gradcam",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the network looks in each image for its class.

    The map of a stage, weighted by the class's gradients, ReLU, stretched to 0..1 and bilinearly
    to the images' size. No weight of the network gets a gradient.

    Args:
        network: In evaluation mode. One pass at a time is made, whichever thread asks; nobody
            else may use this network meanwhile.
        images: Normalised, (N, in_channels, H, W).
        classes: The class of each image, N indices. None: the predicted ones.
        stage: 1 is the first, which sees details. None: the last, which sees objects.
        method: Grad-CAM++ weighs places singly: for several objects of a class in an image.

    Returns:
        Heat float32 (N, H, W) in 0..1 on the CPU, logits (N, num_classes).

    Raises:
        InputError: There is no such stage, class or method, or grad-cam is not installed.
    """
    if method not in METHODS:
        raise InputError(f"method {method!r}: none of {', '.join(METHODS)}")
    if classes is not None:
        for index in classes:
            if not 0 <= index < network.num_classes:
                raise InputError(f"class {index}: 0 to {network.num_classes - 1}")
    layer = stage_module(network, stage)
    kinds, class_output = library()
    targets = None if classes is None else [class_output(int(index)) for index in classes]
    # Hooks are put on the network, and what they see is the last pass's.
    with _PASSING, _gradients_from(network, layer), kinds[method](network, [layer]) as cam:
        heat = cam(images, targets)  # numpy (N, H, W)
        logits = cam.outputs.detach()
    return torch.from_numpy(np.ascontiguousarray(heat, np.float32)), logits


def stage_module(network: Res2NetClassifier, stage: int | None) -> nn.Module:
    """The module whose output is the map of a stage, 1 the first, None the last.

    Raises InputError where there is no such stage.
    """
    modules = stage_modules(network)
    number = len(modules) if stage is None else stage
    if not 1 <= number <= len(modules):
        name = network.variant or "the network"
        raise InputError(f"stage {stage}: {name} has the stages 1 to {len(modules)}")
    return modules[number - 1]


def stage_modules(network: Res2NetClassifier) -> list[nn.Module]:
    """The modules whose outputs are the maps of the stages."""
    backbone = network.backbone
    stages = backbone.describe_maps()[-len(backbone.stage_channels) :]  # the stem's come before
    return [backbone.get_submodule(name) for _, _, name in stages]


@contextmanager
def _gradients_from(network: Res2NetClassifier, layer: nn.Module) -> Iterator[None]:
    """Gradients flow back to the output of `layer` and no further, and to no weight: what lies
    before it is computed as for a prediction."""
    network.zero_grad()
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    handle = layer.register_forward_hook(lambda *given: given[2].detach().requires_grad_())
    try:
        yield
    finally:
        handle.remove()
        for weight in weights:
            weight.requires_grad_()


def library() -> tuple[dict[Method, Any], Any]:
    """grad-cam's class for each method, and its target that is a class. Raises InputError."""
    try:
        from pytorch_grad_cam import GradCAM, GradCAMPlusPlus
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError as error:
        raise InputError(
            f"class activation maps need grad-cam ({error}): "
            "pip install 'res2net-lightning[explain]'"
        ) from error

    class ExactGradCAMPlusPlus(GradCAMPlusPlus):
        """Without the 1e-6 that the library adds to a denominator of squared gradients.

        These are often smaller (a mean over 7 x 7 places: 4e-7), so that its weights would grow
        with the gradient's third power. Equation 19 stays the same with gradients c times as large
        and maps of 1 / c; with a large c what is added is nothing. Negative gradients have no
        weight (equation 7), and left out they cannot make the denominator zero.
        """

        def get_cam_weights(
            self,
            input_tensor: torch.Tensor,
            target_layers: list[nn.Module],
            target_category: list[Any],
            activations: np.ndarray,
            grads: np.ndarray,
        ) -> np.ndarray:
            """Activations and gradients (N, C, h, w) -> weights (N, C)."""
            grads = np.maximum(grads, 0)
            largest = grads.max(axis=(1, 2, 3), keepdims=True)
            unit = np.where(largest > 0, largest, 1) / _LARGE
            return super().get_cam_weights(
                input_tensor, target_layers, target_category, activations * unit, grads / unit
            )

    return {"gradcam": GradCAM, "gradcam++": ExactGradCAMPlusPlus}, ClassifierOutputTarget
