"""How much of the classes is in the features: the accuracy of a linear classifier on them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from res2net.data.sources.split import stratified_split
from res2net.errors import InputError

HELD_OUT = 0.2
MAX_STEPS = 2_000


@dataclass(frozen=True)
class ProbeResult:
    """What a linear classifier learned from some images says of others."""

    top1: float
    """On the images held out, 0..1."""
    train_top1: float
    """On those it has learned from, 0..1."""
    chance: float
    """Of always naming the class that is most frequent among those learned from, 0..1."""
    train: int
    """Images learned from."""
    held_out: int
    """Images held out."""
    classes: int
    seed: int
    """Of the split."""


def check_probe(labels: np.ndarray, class_names: tuple[str, ...]) -> None:
    """Whether each class has an image for both sides of a split, and scikit-learn is there.

    Args:
        labels: int64 (N,), indices of `class_names`.

    Raises:
        InputError: A class has only one image, there are no two classes, or no scikit-learn.
    """
    present, counts = np.unique(labels, return_counts=True)
    if len(present) < 2:
        raise InputError(f"--probe: images of {len(present)} class; a classifier needs two")
    if counts.min() < 2:
        name = class_names[present[counts.argmin()]]
        raise InputError(f"--probe: class {name!r} has one image; two at least, to hold one out")
    try:
        import sklearn.linear_model  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"--probe needs scikit-learn ({error}): pip install 'res2net-lightning[probe]'"
        ) from error


def probe(features: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> ProbeResult:
    """Fit a logistic regression (L2, C=1) on a stratified split of standardised features.

    `HELD_OUT` of the images, and of each class its share, are put aside: the same for the same
    labels and seed on every machine.

    Args:
        features: float32 (N, C).
        labels: int64 (N,), at least two of each class, see `check_probe`.
        seed: Of the split.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    learn, aside = stratified_split(labels, HELD_OUT, seed)
    center, spread = features[learn].mean(axis=0), features[learn].std(axis=0)
    rows = (features - center) / np.where(spread > 0, spread, 1)
    classifier = LogisticRegression(max_iter=MAX_STEPS)
    with warnings.catch_warnings():
        # The last step is taken as it is: separable classes have their optimum far away.
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(rows[learn], labels[learn])
    return ProbeResult(
        top1=float((classifier.predict(rows[aside]) == labels[aside]).mean()),
        train_top1=float((classifier.predict(rows[learn]) == labels[learn]).mean()),
        chance=float((labels[aside] == np.bincount(labels[learn]).argmax()).mean()),
        train=len(learn),
        held_out=len(aside),
        classes=len(np.unique(labels)),
        seed=seed,
    )
