"""A trained network whose outputs are learnt too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from res2net.config.schema_learning import LossConfig
from res2net.errors import InputError
from res2net.imagenet import readable
from res2net.preprocessing import Preprocessing
from res2net.weights.read import Weights
from res2net.zoo import open_model


class Teacher:
    """Images (N, 3, H, W), those that the student sees, -> logits (N, K) in the student's order.

    No `nn.Module`: as an attribute of one it would be registered, saved with the run's weights,
    averaged, and given to the optimizer.

    Args:
        network: put into evaluation for good, and frozen.
        order: int (K,), the teacher's output for each of the student's; None: they agree.
    """

    def __init__(self, network: nn.Module, order: Sequence[int] | None = None) -> None:
        self.network = network.eval().requires_grad_(False)
        self.order = None if order is None else torch.tensor(order)
        self._device: torch.device | None = None

    # not inference_mode, whose tensors no loss may keep for its gradient
    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Under autocast as the student; the network follows the images to their device."""
        if images.device != self._device:
            self._device = images.device
            self.network.to(self._device)
            self.order = None if self.order is None else self.order.to(self._device)
        logits: torch.Tensor = self.network(images)
        return logits if self.order is None else logits[:, self.order]


def open_teacher(
    loss: LossConfig,
    *,
    class_names: Sequence[str],
    preprocessing: Preprocessing,
    channels_last: bool,
) -> Teacher | None:
    """The teacher that `loss` names, or None.

    Args:
        class_names: of the student, one for each of its outputs.
        preprocessing: of the student.
        channels_last: memory format of the network.

    Raises:
        InputError: the teacher cannot be opened, has no trained weights, has other classes, or
            was trained on images normalised otherwise.
    """
    if not loss.teacher:
        if loss.teacher_weights:
            raise InputError(
                f"loss.teacher_weights={loss.teacher_weights}: whose? name the variant by "
                "loss.teacher"
            )
        return None
    try:
        network, weights = open_model(loss.teacher, weights=loss.teacher_weights or None)
        if weights is None:
            raise InputError(
                "a variant without weights has nothing to teach; give loss.teacher_weights (a "
                "file, or in1k for the published ones)"
            )
        _check_normalisation(weights, preprocessing)
        order = _order(weights, class_names)
    except InputError as error:
        raise InputError(f"loss.teacher={loss.teacher}: {error}") from error
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
    return Teacher(network, order)


def distillation_loss(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float
) -> torch.Tensor:
    """T^2 * KL(teacher || student) of the softmax of logits / T, mean over the batch: a scalar.

    Hinton et al., arXiv 1503.02531; T^2 keeps the size of the gradient. Weighed by
    `loss.distill`, the whole loss is (1 - distill) * loss + distill * this. With distill=1 labels
    are not used, as in SSLD (arXiv 2103.05959), whose loss, however, is the Jensen-Shannon
    divergence at T=1: this one is the Kullback-Leibler divergence.

    Args:
        student, teacher: logits (N, K).
        temperature: T.
    """
    learnt = F.log_softmax(student.float() / temperature, dim=1)
    taught = F.log_softmax(teacher.float() / temperature, dim=1)
    divergence = F.kl_div(learnt, taught, reduction="batchmean", log_target=True)
    return divergence * temperature**2


def _check_normalisation(weights: Weights, preprocessing: Preprocessing) -> None:
    theirs = weights.preprocessing
    if theirs is None:  # a file that does not say
        return
    for name in ("mean", "std"):
        its, ours = getattr(theirs, name), getattr(preprocessing, name)
        if not np.allclose(its, ours, rtol=0, atol=1e-4):
            raise InputError(
                f"it was trained with data.{name}={_listed(its)}, this run has {_listed(ours)}; "
                "both see the same images, so they must agree"
            )


def _order(weights: Weights, class_names: Sequence[str]) -> list[int] | None:
    """The teacher's output for each of the student's, None if they agree."""
    if weights.num_classes != len(class_names):
        raise InputError(
            f"it has {weights.num_classes} classes, this run {len(class_names)}; take a teacher "
            "of the same classes"
        )
    if weights.class_names is None:
        return None
    its, ours = readable(weights.class_names), readable(class_names)
    if its == ours:
        return None
    place = {name: index for index, name in enumerate(its)}
    missing = [name for name in ours if name not in place]
    if missing or len(place) < len(its):
        what = f"{missing[0]!r} is not among them" if missing else "a name stands there twice"
        raise InputError(
            f"its classes are others ({', '.join(its[:3])}, ...): {what}; take a teacher of the "
            "same classes"
        )
    return [place[name] for name in ours]


def _listed(values: Sequence[float]) -> str:
    return "[" + ",".join(f"{value:g}" for value in values) + "]"
