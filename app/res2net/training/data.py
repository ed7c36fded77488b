"""The data that a configuration describes."""

from __future__ import annotations

from res2net.config.schema import Config, DataConfig
from res2net.data.dali import Augmentation
from res2net.data.datamodule import ImageDataModule
from res2net.data.sources import Source, open_sources
from res2net.preprocessing import Preprocessing
from res2net.training.plan import Plan


def open_data(
    data: DataConfig, *, class_names: tuple[str, ...] | None = None
) -> tuple[Source, Source]:
    """Training and validation images."""
    return open_sources(
        data.source,
        data.root,
        train_dir=data.train_dir,
        val_dir=data.val_dir,
        val_labels=data.val_labels,
        val_fraction=data.val_fraction,
        split_seed=data.split_seed,
        class_names=class_names,
    )


def preprocessing_of(data: DataConfig) -> Preprocessing:
    """The evaluation preprocessing that a configuration describes."""
    return Preprocessing(
        image_size=data.image_size,
        crop_fraction=data.crop_fraction,
        interpolation=data.interpolation,
        mean=data.mean,
        std=data.std,
    )


def build_data(config: Config, plan: Plan, train: Source, val: Source) -> ImageDataModule:
    """Streams of both, augmented for training as `augment` says."""
    augment = config.augment
    return ImageDataModule(
        train,
        val,
        preprocessing=preprocessing_of(config.data),
        augmentation=Augmentation(
            crop=augment.crop,
            area=augment.area,
            ratio=augment.ratio,
            pad=augment.pad,
            flip=augment.flip,
        ),
        global_batch_size=config.data.global_batch_size,
        eval_batch_size=config.data.eval_batch_size,
        accumulate=config.trainer.accumulate,
        threads=plan.threads,
        seed=config.run.seed,
    )
