"""The data that a configuration describes."""

from __future__ import annotations

from dataclasses import fields

from res2net.config.schema import Config
from res2net.config.schema_data import AugmentConfig, DataConfig
from res2net.data.augmentation import Augmentation
from res2net.data.datamodule import ImageDataModule
from res2net.data.sources.opening import open_sources
from res2net.data.sources.shards import ShardSource
from res2net.data.sources.source import Source
from res2net.data.sources.split import stratified_split
from res2net.data.staging import Staging, plan_staging
from res2net.errors import InputError
from res2net.preprocessing import Preprocessing
from res2net.training.plan import Plan


def open_data(
    data: DataConfig, *, class_names: tuple[str, ...] | None = None, fetch: bool = True
) -> tuple[Source, Source]:
    """Training and validation images; `fetch`: what is not there may be downloaded."""
    train, val = open_sources(
        data.source,
        data.root,
        train_dir=data.train_dir,
        val_dir=data.val_dir,
        val_labels=data.val_labels,
        val_fraction=data.val_fraction,
        split_seed=data.split_seed,
        class_names=class_names,
        fetch=fetch,
    )
    if data.subset < 1:
        try:
            _, kept = stratified_split(train.labels, data.subset, data.split_seed)
        except ValueError as error:
            raise InputError(f"data.subset={data.subset}: {error}") from error
        train = train.subset(kept)
    return train, val


LARGEST = 8192
"""Pixels to which evaluation resizes the short side at most: 200 MB an image, if it is square."""

IN_MEMORY = ("cifar10", "cifar100", "digits")
"""Data sets that are read once, at the start, whole."""


def stage_data(
    data: DataConfig, train: Source, val: Source, *, here: bool = True
) -> tuple[Staging | None, Source, Source]:
    """What `data.stage_to` asks to be copied, and the sources that will read the copies.

    Args:
        here: whether training runs on this machine; if not, it is only checked that it can be.

    Raises InputError: see `plan_staging`; also folders, whose many files take longer to copy than
    an epoch to read.
    """
    if data.stage_to and data.source == "folder":
        raise InputError(
            f"data.stage_to={data.stage_to}: copies shards, not folders of many files; "
            "`res2net data shard` makes shards of them, for data.source=shards"
        )
    if not data.stage_to or data.source in IN_MEMORY or not here:
        return None, train, val
    assert isinstance(train, ShardSource)
    assert isinstance(val, ShardSource)
    staging, (train, val) = plan_staging(data.stage_to, train, val)
    return staging, train, val


def check_global_batch(data: DataConfig, train: Source) -> None:
    """Raises InputError where there are too few training images for one global batch."""
    if len(train) < data.global_batch_size:
        raise InputError(
            f"data.global_batch_size={data.global_batch_size}: there are only {len(train)} "
            f"training images; choose at most {len(train)}"
        )


def preprocessing_of(data: DataConfig) -> Preprocessing:
    """The evaluation preprocessing that a configuration describes."""
    return Preprocessing(
        image_size=data.eval_image_size or data.image_size,
        crop_fraction=data.crop_fraction,
        interpolation=data.interpolation,
        mean=data.mean,
        std=data.std,
    )


def filled_batch(wanted: int, images: int, plan: Plan) -> int:
    """How many images a device evaluates at once: no more than it has, apart from the default.

    A batch is filled up: one of more images than there are would take their time and memory, too.
    """
    each = -(-images // plan.world_size)
    return min(wanted, max(each, DataConfig.eval_batch_size))


def build_data(config: Config, plan: Plan, train: Source, val: Source) -> ImageDataModule:
    """Streams of both, augmented for training as `augment` says.

    Raises:
        InputError: keys of `augment` or `data` that do not go together.
    """
    augment, data = config.augment, config.data
    _check(augment, data, config.trainer.max_epochs)
    preprocessing = preprocessing_of(data)
    if preprocessing.resize_size > LARGEST:
        raise InputError(
            f"data.crop_fraction={data.crop_fraction}: the short side of each image would be "
            f"resized to {preprocessing.resize_size:,} pixels for a crop of "
            f"{preprocessing.image_size:,}; at most {LARGEST:,}"
        )
    names = {field.name for field in fields(Augmentation)}
    return ImageDataModule(
        train,
        val,
        preprocessing=preprocessing,
        train_image_size=data.image_size,
        augmentation=Augmentation(
            **{name: value for name, value in vars(augment).items() if name in names}
        ),
        global_batch_size=data.global_batch_size,
        eval_batch_size=filled_batch(data.eval_batch_size, len(val), plan),
        accumulate=config.trainer.accumulate,
        threads=plan.threads,
        seed=config.run.seed,
        wrap=data.tail == "wrap",
        repeats=augment.repeats,
        balanced=data.sampling == "balanced",
        skip=data.on_corrupt == "skip",
        max_pixels=data.max_pixels,
    )


def _check(augment: AugmentConfig, data: DataConfig, max_epochs: int) -> None:
    start, until = augment.start_size, augment.grow_until
    problems = []
    if bool(start) != bool(until):
        problems.append(
            f"augment.start_size={start}, augment.grow_until={until}: images grow from the one to "
            "data.image_size until the other epoch; give both, or neither"
        )
    if start and augment.crop != "random_resized":
        problems.append(
            f"augment.start_size={start}: only augment.crop=random_resized can grow, not "
            f"{augment.crop}"
        )
    if augment.crop == "pad" and augment.pad >= data.image_size:
        problems.append(
            f"augment.pad={augment.pad}: must be below data.image_size={data.image_size}, or a "
            "training image may be nothing but its black border"
        )
    if start > data.image_size:
        problems.append(f"augment.start_size={start}: at most data.image_size={data.image_size}")
    if until > max_epochs:
        problems.append(
            f"augment.grow_until={until}: at most trainer.max_epochs={max_epochs}, or the network "
            "never sees images of data.image_size"
        )
    if augment.grow_from and augment.grow_from >= until:
        problems.append(
            f"augment.grow_from={augment.grow_from}: must be below augment.grow_until={until}"
        )
    if problems:
        raise InputError("; ".join(problems))
