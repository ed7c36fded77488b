"""The groups of keys that say which images the network sees, and how."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class DataConfig:
    """Which images, at what size, in what batches."""

    source: Literal["folder", "shards", "cifar10", "cifar100", "digits"] = "folder"
    """Where the images come from; `shards`: what `res2net data shard` made of any of them."""
    root: str = ""
    """Folder of the data set. Empty: data/<source>."""
    stage_to: str = ""
    """`shards`: a folder on a disk of the node itself, to which they are copied before training,
    once a node, and from which they are read. Variables such as $TMPDIR are filled in on the node
    (write '$TMPDIR' in quotes, for the shell fills in its own). Empty: read where they lie."""
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
    mixup: float = 0.0
    """Blend pairs of images and their labels: alpha of the Beta distribution of the shares (arXiv
    1710.09412). 0: off."""
    cutmix: float = 0.0
    """Put a rectangle of another image in: alpha of the Beta distribution of its area (1905.04899).
    0: off."""
    mix_probability: float = 1.0
    """Share of the batches that are mixed."""
    cutmix_share: float = 0.5
    """Share of CutMix among them, where both are on."""
    repeats: int = 1
    """Each image so many times in one step (or in two neighbours, if the batch is no multiple),
    augmented differently, on different devices where there are as many; an epoch has as many images
    as before, so fewer different ones."""
    start_size: int = 0
    """random_resized: pixels of the training images at first, growing to image_size. 0: image_size
    from the start."""
    grow_from: float = 0.0
    """The epoch from which on training images grow."""
    grow_until: float = 0.0
    """The epoch from which on training images have image_size."""
