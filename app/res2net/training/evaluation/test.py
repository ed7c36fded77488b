"""`res2net test`: from what a user names to an evaluation."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from res2net.config.load import from_dict, load_config
from res2net.config.schema import Config, TrainerConfig
from res2net.data.order import permutation
from res2net.data.sources.imagenet import read_real_labels
from res2net.data.sources.opening import open_evaluation
from res2net.data.sources.source import Source
from res2net.errors import InputError, WorkError
from res2net.files.atomic import new_file
from res2net.files.names import printable
from res2net.files.runs import is_rank_zero, say
from res2net.models.head import Res2NetClassifier
from res2net.preprocessing import Preprocessing
from res2net.training.batch_norm import values_per_image
from res2net.training.data import filled_batch, open_data, preprocessing_of
from res2net.training.evaluation.evaluate import evaluate
from res2net.training.plan import Plan, make_plan
from res2net.weights.catalog import identify
from res2net.weights.read import Weights
from res2net.zoo import open_model

_YAML = (".yaml", ".yml")
IMAGENET_IMAGES = 50_000
"""Of the validation set that published figures are for."""
CONFUSIONS = 10
"""How many pairs of classes are named."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is evaluated, how, and what is written beside the figures."""

    data: str | None = None
    """A folder of images; None: the validation images that the model's own configuration names."""
    labels: str | None = None
    """The labels of a flat folder; None: found beside it."""
    weights: str | None = None
    checkpoint: Literal["last", "best"] = "last"
    ema: bool = False
    """The averaged weights."""
    image_size: int | None = None
    crop_fraction: float | None = None
    interpolation: Literal["bilinear", "bicubic"] | None = None
    """None: as the weights say, else the published 224 of 256, bilinear."""
    flip: bool = False
    """Mean of the class probabilities of each image and its mirror image."""
    real: str | None = None
    """ImageNet-ReaL's labels (JSON)."""
    per_class: str | None = None
    """CSV to write."""
    confusion: str | None = None
    """PNG to draw."""
    recalibrate_bn: int | None = None
    """First let BN's statistics be those of so many of the run's training images."""
    skip_corrupt: bool = False
    """Leave out what cannot be decoded instead of ending."""
    batch_size: int | None = None
    """Images per device; None: the configuration's."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] | None = None
    """None: the configuration's."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: str = "auto"


def test(name: str, asked: Asked) -> dict[str, Any]:
    """Evaluate a run, a checkpoint or weights file, a variant with weights, or a YAML.

    Returns:
        `model`, `checkpoint`, `split`, `images`, `top1`, `top5` (None below six classes),
        `balanced` (the mean of the classes' top-1), `loss`, `images_per_second`, `published`
        (None: not of a published file), `preprocessing`, `flip`, `ema`, `recalibrated_on` (images),
        `confusions`, and `real` if asked for. Accuracies are fractions 0..1.

    Raises:
        InputError: something named does not exist or does not fit together.
    """
    per_class = new_file(asked.per_class, (".csv",)) if asked.per_class else None
    confusion = new_file(asked.confusion, (".png",)) if asked.confusion else None
    if asked.labels is not None and asked.data is None:
        raise InputError(f"--labels {asked.labels}: names labels of --data DIR, which is not given")
    model, read, config = _open(name, asked)
    is_users = Path(name).suffix in _YAML
    wanted = TrainerConfig(
        accelerator=asked.accelerator,
        devices=asked.devices,
        precision=asked.precision or "32-true",
    )
    plan = make_plan(wanted, workers=0)
    source, split = _images(model, read, config, asked, is_users=is_users)
    real = read_real_labels(asked.real, source) if asked.real else None
    config = config or Config()
    preprocessing = _preprocessing(read.preprocessing or preprocessing_of(config.data), asked)
    batch_size = asked.batch_size or config.data.eval_batch_size
    training = None
    if asked.recalibrate_bn is None:
        batch_size = filled_batch(batch_size, len(source), plan)
    else:
        if batch_size == 1 and values_per_image(model.variant, preprocessing.image_size) == 1:
            raise InputError(
                f"--recalibrate-bn {asked.recalibrate_bn}: one image of {preprocessing.image_size} "
                "pixels has one value per channel in the last maps, and batch norm takes two or "
                "more: give --batch-size 2 or more"
            )
        training = _training_images(read, asked.recalibrate_bn, batch_size * plan.world_size)
    started = time.perf_counter()
    results, report = evaluate(
        model,
        source,
        preprocessing,
        plan=plan,
        batch_size=batch_size,
        precision=_precision(asked, config, plan),
        channels_last=config.trainer.channels_last,
        flip=asked.flip,
        skip=asked.skip_corrupt,
        max_pixels=config.data.max_pixels,
        recalibrate_on=training,
    )
    seconds = time.perf_counter() - started
    if not math.isfinite(results["loss"]):
        raise WorkError(
            f"{read.source}: the network's output is not finite: its training diverged or the file "
            "is damaged; take another checkpoint"
        )
    result = {
        "model": model.variant,
        "checkpoint": read.source,
        "split": split,
        "images": results["images"],
        "excluded": len(source) - int(results["images"]),
        "top1": results["top1"],
        "top5": results.get("top5"),
        "balanced": report.balanced(),
        "loss": results["loss"],
        "images_per_second": results["images"] / seconds,
        "published": _published(read, preprocessing, source, asked),
        "preprocessing": preprocessing.to_dict(),
        "flip": asked.flip,
        "ema": asked.ema,
        "recalibrated_on": 0 if training is None else len(training),
        "confusions": report.confusions(CONFUSIONS),
    }
    if real is not None:
        top1, images = report.against(real)
        result["real"] = {"top1": top1, "images": images}
    if is_rank_zero():
        if per_class is not None:
            report.write_per_class(per_class)
        if confusion is not None:
            report.draw_confusion(confusion, f"{model.variant} on {split}")
    return result


def _open(name: str, asked: Asked) -> tuple[Res2NetClassifier, Weights, Config | None]:
    """The network, what its file says, and the configuration that goes with it."""
    config, weights = None, asked.weights
    if Path(name).suffix in _YAML:
        config = load_config(name, [])
        name, weights = config.model.name, weights or config.model.weights or None
    model, read = open_model(name, weights=weights, checkpoint=asked.checkpoint, ema=asked.ema)
    if read is None:
        raise InputError(f"{name} is untrained: name its weights with --weights FILE")
    if config is None and read.config:
        config = _stored_config(read)
    return model, read, config


def _stored_config(read: Weights) -> Config:
    try:
        return from_dict(read.config)
    except InputError as error:
        raise InputError(f"{read.source}: {error}") from error


def _stored_data(config: Config, read: Weights, which: str) -> tuple[Source, Source]:
    """Training and validation images that a file of weights names, which is told.

    Somebody else may have written it: only what is there is read, nothing downloaded or made.
    """
    data = config.data
    if data.source not in ("digits",):  # which come with a package
        keys = ("source", "root", "train_dir", "val_dir", "val_labels")
        said = " ".join(f"data.{key}={getattr(data, key)}" for key in keys if getattr(data, key))
        say(printable(f"{which} images: {said}, as {read.source} says"))
    return open_data(data, class_names=read.class_names, fetch=False)


def _images(
    model: Res2NetClassifier,
    read: Weights,
    config: Config | None,
    asked: Asked,
    *,
    is_users: bool,
) -> tuple[Source, str]:
    """What to evaluate on; `is_users`: the user named the configuration, not a file of weights."""
    names, split = read.class_names, "val"
    if asked.data is not None:
        source: Source = open_evaluation(asked.data, class_names=names, labels=asked.labels)
        split = asked.data
    elif config is not None:
        try:
            if is_users:
                source = open_data(config.data, class_names=names)[1]
            else:
                source = _stored_data(config, read, "validation")[1]
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


def _training_images(read: Weights, wanted: int, step: int) -> Source:
    """Some of the images that a run was trained on, in full batches of all ranks (`step`)."""
    if read.config is None:
        raise InputError(
            f"--recalibrate-bn {wanted}: {read.source} does not say what it was trained on; only "
            "runs of this project do"
        )
    config = _stored_config(read)
    source = _stored_data(config, read, "training")[0]
    count = min(wanted, len(source)) // step * step
    if not count:
        raise InputError(
            f"--recalibrate-bn {wanted}: takes full batches of {step} images, and there are "
            f"{len(source)}; give more, or a smaller --batch-size"
        )
    return source.subset(permutation(len(source), seed=config.run.seed, epoch=0)[:count])


def _preprocessing(stored: Preprocessing, asked: Asked) -> Preprocessing:
    size, fraction = asked.image_size, asked.crop_fraction
    return replace(
        stored,
        image_size=stored.image_size if size is None else size,
        crop_fraction=stored.crop_fraction if fraction is None else fraction,
        interpolation=asked.interpolation or stored.interpolation,
    )


def _precision(asked: Asked, config: Config, plan: Plan) -> str:
    # fp16 is for GPUs; what was trained there can still be evaluated here
    if asked.precision is None and config.trainer.precision == "16-mixed":
        return "32-true" if plan.accelerator == "cpu" else "16-mixed"
    return asked.precision or config.trainer.precision


def _published(
    read: Weights, preprocessing: Preprocessing, source: Source, asked: Asked
) -> dict[str, Any] | None:
    """What the file's publisher measured; `comparable`: on the same images in the same way."""
    file = identify(read.source)
    if file is None or file.top1 is None:
        return None
    same = (preprocessing, asked.flip, len(source)) == (Preprocessing(), False, IMAGENET_IMAGES)
    return {
        "name": file.name,
        "top1": file.top1 / 100,
        "top5": None if file.top5 is None else file.top5 / 100,
        "measured_by": file.measured_by,
        "comparable": same,
    }
