"""`res2net test`: from what a user names to an evaluation."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

from res2net.callbacks.accuracy import Accuracy
from res2net.config.load import from_dict, load_config
from res2net.config.schema import Config, TrainerConfig
from res2net.data.datamodule import ImageDataModule
from res2net.data.sources import Source, open_folder
from res2net.errors import InputError
from res2net.models.head import Res2NetClassifier
from res2net.preprocessing import Preprocessing
from res2net.training.classifier import ImageClassifier
from res2net.training.data import open_data, preprocessing_of
from res2net.training.plan import Plan, make_plan
from res2net.training.trainer import build_trainer
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
    model, read, config = _open(name, weights=weights, checkpoint=checkpoint)
    plan = make_plan(TrainerConfig(accelerator=accelerator, devices=devices), workers=0)
    source, split = _images(model, read, config, data)
    config = config or Config()
    # fp16 is for GPUs; what was trained there can still be evaluated here
    in_fp16 = config.trainer.precision == "16-mixed" and plan.accelerator == "cpu"
    started = time.perf_counter()
    results = evaluate(
        model,
        source,
        read.preprocessing or preprocessing_of(config.data),
        plan=plan,
        batch_size=batch_size or config.data.eval_batch_size,
        precision="32-true" if in_fp16 else config.trainer.precision,
        channels_last=config.trainer.channels_last,
    )
    seconds = time.perf_counter() - started
    return {
        "model": model.variant,
        "checkpoint": read.source,
        "split": split,
        "images": results["images"],
        "top1": results["top1"],
        "top5": results.get("top5"),
        "loss": results["loss"],
        "images_per_second": results["images"] / seconds,
        "published": None,
    }


def evaluate(
    model: Res2NetClassifier,
    source: Source,
    preprocessing: Preprocessing,
    *,
    plan: Plan,
    batch_size: int,
    precision: str,
    channels_last: bool,
) -> dict[str, float]:
    """Top-1, top-5, loss (means over the images) and the number of images, each counted once."""
    accuracy = Accuracy(model.num_classes, images=len(source))
    data = ImageDataModule(
        None,
        source,
        preprocessing=preprocessing,
        eval_batch_size=batch_size,
        threads=plan.threads,
    )
    trainer = build_trainer(plan, precision=precision, logger=False, callbacks=[accuracy])
    trainer.validate(
        ImageClassifier(model, channels_last=channels_last), datamodule=data, verbose=False
    )
    return accuracy.results


def _open(
    name: str, *, weights: str | None, checkpoint: Literal["last", "best"]
) -> tuple[Res2NetClassifier, Weights, Config | None]:
    """The network, what its file says, and the configuration that goes with it."""
    config = None
    if Path(name).suffix in (".yaml", ".yml"):
        config = load_config(name, [])
        name, weights = config.model.name, weights or config.model.weights or None
    model, read = open_model(name, weights=weights, checkpoint=checkpoint)
    if read is None:
        raise InputError(f"{name} is untrained: name its weights with --weights FILE")
    if config is None and read.config:
        config = from_dict(read.config)
    return model, read, config


def _images(
    model: Res2NetClassifier, read: Weights, config: Config | None, data: str | None
) -> tuple[Source, str]:
    names = read.class_names
    if data is not None:
        source: Source = open_folder(data, class_names=names)
        split = data
    elif config is not None:
        try:
            source, split = open_data(config.data, class_names=names)[1], "val"
        except InputError as error:
            raise InputError(f"{error}; --data DIR names the images to test on") from error
    else:
        raise InputError(f"{model.variant}: name the images to test on with --data DIR")
    if len(source.class_names) != model.num_classes:
        # without names in the weights, the n-th folder is the n-th output
        raise InputError(
            f"{split} has {len(source.class_names)} class folders, {model.variant} has "
            f"{model.num_classes} outputs and its weights name no classes: give all of them"
        )
    return source, split
