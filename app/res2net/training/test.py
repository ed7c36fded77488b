"""`res2net test`: from what a user names to an evaluation."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

from res2net.config.load import from_dict, load_config
from res2net.config.schema import DataConfig, TrainerConfig
from res2net.data.sources import Source, open_folder
from res2net.errors import InputError
from res2net.models.head import Res2NetClassifier
from res2net.training.plan import make_plan
from res2net.training.run import evaluate, open_data, preprocessing_of
from res2net.weights.read import Weights
from res2net.zoo import open_model


def test(
    name: str,
    *,
    data: str | None = None,
    weights: str | None = None,
    checkpoint: Literal["last", "best"] = "last",
    batch_size: int | None = None,
    accelerator: Literal["auto", "cpu", "cuda"] = "auto",
    devices: str = "auto",
) -> dict[str, Any]:
    """Evaluate a run, a checkpoint or weights file, a variant with weights, or a YAML.

    Args:
        name: what the user calls the model.
        data: a folder of class folders; None: the validation images that the model's own
            configuration names.
        checkpoint: which file of a run directory.
        batch_size: images per device; None: the configuration's.

    Returns:
        `model`, `checkpoint`, `split`, `images`, `top1`, `top5` (None below six classes), `loss`,
        `images_per_second`, `published` (None: not of a published file). Fractions 0..1.

    Raises:
        InputError: something named does not exist or does not fit together.
    """
    plan = make_plan(TrainerConfig(accelerator=accelerator, devices=devices), workers=0)
    model, read, settings = _open(name, weights=weights, checkpoint=checkpoint)
    source, split = _images(model, read, settings, data)
    stored = read.preprocessing if read else None
    settings = settings or DataConfig()
    started = time.perf_counter()
    results = evaluate(
        model,
        source,
        stored or preprocessing_of(settings),
        plan=plan,
        batch_size=batch_size or settings.eval_batch_size,
    )
    seconds = time.perf_counter() - started
    return {
        "model": model.variant,
        "checkpoint": read.source if read else None,
        "split": split,
        "images": results["images"],
        "top1": results["top1"],
        "top5": results.get("top5"),
        "loss": results["loss"],
        "images_per_second": results["images"] / seconds,
        "published": None,
    }


def _open(
    name: str, *, weights: str | None, checkpoint: Literal["last", "best"]
) -> tuple[Res2NetClassifier, Weights | None, DataConfig | None]:
    """The network, what its file says, and the data that go with it."""
    if Path(name).suffix in (".yaml", ".yml"):
        config = load_config(name, [])
        model, read = open_model(config.model.name, weights=weights or config.model.weights or None)
        return model, read, config.data
    model, read = open_model(name, weights=weights, checkpoint=checkpoint)
    settings = from_dict(read.config).data if read and read.config else None
    return model, read, settings


def _images(
    model: Res2NetClassifier, read: Weights | None, settings: DataConfig | None, data: str | None
) -> tuple[Source, str]:
    names = read.class_names if read else None
    if data is not None:
        source: Source = open_folder(data, class_names=names)
        split = data
    elif settings is not None:
        source, split = open_data(settings, class_names=names)[1], "val"
    else:
        raise InputError(f"{model.variant}: name the images to test on with --data DIR")
    if len(source.class_names) > model.num_classes:
        raise InputError(
            f"{split} has {len(source.class_names)} classes, {model.variant} has "
            f"{model.num_classes} outputs"
        )
    return source, split
