"""The typed tree that configures a run: every key, its default and what it means.

Order of precedence: these defaults < one YAML < `key=value` on the command line (`load.py`).
Checks that involve several keys or the machine stand where the knowledge is (`training/plan.py`).
"""

from dataclasses import dataclass, field
from typing import Literal

from omegaconf import MISSING


@dataclass(frozen=True)
class RunConfig:
    """Where a run lives and where it starts."""

    name: str = MISSING
    """Name of the run's directory below `run.dir`. Default: the name of the YAML."""
    dir: str = "checkpoints"
    """Folder that holds the run directories."""
    seed: int = 0
    """Seeds initialisation, order of the samples, augmentation and dropout."""
    resume: str = ""
    """Empty: a new run. `auto`: go on where the run stopped, or start it. PATH: from that file."""


@dataclass(frozen=True)
class ModelConfig:
    """Which network, and from which weights."""

    name: str = "res2net50_26w_4s"
    """A variant: `res2net models` lists them."""
    num_classes: int = 0
    """Outputs of the head. 0: as many as the data have classes."""
    weights: str = ""
    """Start from these weights: a run directory, a checkpoint or weights file of any format that
    `res2net convert` reads, or `in1k` for the published ones. Empty: none."""
    drop_path: float = 0.0
    """Stochastic depth: the chance that a training image skips the last block, less in earlier
    ones."""


@dataclass(frozen=True)
class DataConfig:
    """Which images, at what size, in what batches."""

    source: Literal["folder", "shards", "cifar10", "cifar100", "digits"] = "folder"
    """Where the images come from; `shards`: what `res2net data shard` made of any of them."""
    root: str = ""
    """Folder of the data set. Empty: data/<source>."""
    train_dir: str = ""
    """`folder`: below root, one folder of images a class. Empty: train/ where it exists, else root
    itself."""
    val_dir: str = ""
    """`folder`: below root. Empty: the first of val/, valid/, test/ that exists, else
    `val_fraction` of the training images. The best epoch is chosen on it."""
    val_labels: str = ""
    """`folder`: below root, the file of labels of a validation folder without class folders. Empty:
    the one found by its usual name (ImageNet's devkit, Kaggle's, val.txt), see data/README.md."""
    val_fraction: float = 0.1
    """Share of each class put aside for validation where there is no validation folder."""
    split_seed: int = 0
    """Decides which images are put aside; apart from run.seed, so that seeds share one split."""
    global_batch_size: int = 256
    """Samples per optimizer step = per device x devices x nodes x trainer.accumulate."""
    eval_batch_size: int = 64
    """Images per device and evaluation step."""
    subset: float = 1.0
    """Share of the training images that is used, the same of each class (see split_seed)."""
    sampling: Literal["shuffle", "balanced"] = "shuffle"
    """`shuffle`: each image once an epoch. `balanced`: each class equally often, as many images in
    all; for classes of very different sizes."""
    tail: Literal["drop", "wrap"] = "drop"
    """Training images that do not fill the last global batch of an epoch: left out of that epoch
    (which ones, changes), or filled up with some of its beginning."""
    on_corrupt: Literal["error", "skip"] = "error"
    """A file that cannot be decoded: end and name it; or go on without it (`quarantine.txt`): the
    next image takes its place in training, evaluation does not count it."""
    max_pixels: int = 178956970
    """Larger files count as such."""
    workers: int = 0
    """Decoding threads per device. 0: the machine's cores divided among its devices."""
    image_size: int = 224
    """Height and width in pixels of what the network sees."""
    eval_image_size: int = 0
    """Another size for evaluation. 0: image_size."""
    crop_fraction: float = 0.875
    """Evaluation: the centre crop's share of the resized short side (224 of 256)."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """How images are resized, in training and evaluation."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """RGB mean that is subtracted, of values 0..1."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """RGB standard deviation that divides, of values 0..1."""


@dataclass(frozen=True)
class AugmentConfig:
    """What happens to a training image before the network sees it."""

    crop: Literal["random_resized", "pad", "none"] = "random_resized"
    """`random_resized`: a random area and ratio, resized (photographs). `pad`: a random window of
    the padded image (CIFAR). `none`: the evaluation crop."""
    area: tuple[float, float] = (0.08, 1.0)
    """random_resized: bounds of the crop's share of the image's area."""
    ratio: tuple[float, float] = (0.75, 1.3333333333333333)
    """random_resized: bounds of the crop's width divided by its height."""
    pad: int = 4
    """pad: pixels of black added on each side."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    policy: Literal["none", "rand_augment", "auto_augment", "trivial_augment"] = "none"
    """Chains of photometric and geometric changes: RandAugment (arXiv 1909.13719), AutoAugment's
    for ImageNet (1805.09501) or TrivialAugmentWide (2103.10158). Geometric ones take the nearest
    pixel, as torchvision's."""
    policy_ops: int = 2
    """rand_augment: changes per image."""
    policy_magnitude: int = 9
    """rand_augment: their strength, 0 to 30."""
    color_jitter: float = 0.0
    """Brightness, contrast and saturation are each multiplied by 1 - this to 1 + this."""
    hue_jitter: float = 0.0
    """Hue is turned by at most this share of the circle."""
    erase: float = 0.0
    """Probability that a rectangle is set to the mean (arXiv 1708.04896)."""
    repeats: int = 1
    """Each image so many times in one step, augmented differently, on different devices where there
    are as many; an epoch has as many images as before, so fewer different ones."""
    start_size: int = 0
    """random_resized: pixels of the training images in the first epoch, growing to image_size.
    0: image_size from the start."""
    grow_until: float = 0.0
    """The epoch from which on training images have image_size."""


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer and the loss."""

    name: Literal["sgd"] = "sgd"
    """Stochastic gradient descent with momentum."""
    lr: float = 0.1
    """Learning rate at its peak, for the whole global batch."""
    momentum: float = 0.9
    """Share of the last step kept in the next."""
    nesterov: bool = True
    """Nesterov's form of momentum."""
    weight_decay: float = 1e-4
    """L2 penalty on the weights."""
    decay_norm_and_bias: bool = False
    """Also decay the norms' weights and all biases, as the paper does."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes."""
    clip_norm: float = 0.0
    """Gradients are scaled down to this norm. 0: never."""


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over the run, by optimizer step."""

    name: Literal["cosine", "step"] = "cosine"
    """`cosine`: half a cosine down to `end_factor`. `step`: times `gamma` every `step_epochs`."""
    warmup_epochs: float = 0.0
    """Linear warm-up from a hundredth of lr."""
    end_factor: float = 0.0
    """cosine: the last learning rate as a share of lr."""
    step_epochs: float = 30.0
    """step: epochs between two drops."""
    gamma: float = 0.1
    """step: what each drop multiplies lr by."""


@dataclass(frozen=True)
class TrainerConfig:
    """On what, how long and in which numbers."""

    max_epochs: int = 100
    """Epochs of the whole run."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: cuda where there is a GPU."""
    devices: str = "auto"
    """Processes per node, one a GPU. `auto`: those that SLURM allocated, else all GPUs, or one
    process on the CPU."""
    num_nodes: str = "auto"
    """Machines. `auto`: those that SLURM allocated, else one."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Lightning's name of the arithmetic."""
    accumulate: int = 1
    """Batches per optimizer step."""
    channels_last: bool = True
    """Memory format of the network and its images: the faster one on GPUs."""


@dataclass(frozen=True)
class CheckpointConfig:
    """When the state is saved, apart from the end of each epoch."""

    every_steps: int = 0
    """Optimizer steps between two saves. 0: not by steps."""
    every_minutes: float = 15.0
    """Minutes between two saves. 0: not by time."""


@dataclass(frozen=True)
class LoggingConfig:
    """What is written down on the way."""

    every_steps: int = 50
    """Optimizer steps between two rows of train/loss, lr and images per second."""
    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """Weights & Biases. `auto`: online where somebody is logged in, else offline."""
    wandb_project: str = "res2net"
    """Project name shown by W&B."""


@dataclass(frozen=True)
class Config:
    """A whole run."""

    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
