"""The groups of keys that say what is minimised, and how the weights move."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LossConfig:
    """What training minimises."""

    name: Literal["cross_entropy", "bce"] = "cross_entropy"
    """`bce`: a yes or no for each class (ResNet strikes back, arXiv 2110.00476), mean over the
    classes."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes."""
    bce_threshold: float = 0.0
    """bce: what a class's target must exceed to count as yes, all others as no. 0: targets as they
    are."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: rare classes weigh more, each class as much as any other in all."""
    teacher: str = ""
    """A trained model whose outputs are learnt too: a run directory, a file, or a variant (with
    `teacher_weights`). Empty: none."""
    teacher_weights: str = ""
    """Weights of the teacher, where `teacher` is a variant."""
    distill: float = 0.5
    """Share of the teacher in the loss; 1: the labels of the data are not used."""
    temperature: float = 1.0
    """Divides the logits of both before they are compared."""


@dataclass(frozen=True)
class OptimConfig:
    """How the weights move."""

    name: Literal["sgd", "adamw", "lamb", "muon"] = "sgd"
    """`sgd`: with momentum. `lamb` (arXiv 1904.00962) and `muon` are timm's; muon moves matrices
    and kernels, what is left moves by AdamW."""
    lr: float = 0.1
    """Learning rate at its peak, for the whole global batch."""
    lr_batch: int = 0
    """The global batch that lr is meant for; it is scaled to the run's. 0: as it is."""
    lr_rule: Literal["linear", "sqrt"] = "linear"
    """lr_batch: in proportion to the batch (arXiv 1706.02677), or to its square root."""
    momentum: float = 0.9
    """sgd, muon: share of the last step kept in the next."""
    nesterov: bool = True
    """sgd, muon: Nesterov's form of momentum."""
    betas: tuple[float, float] = (0.9, 0.999)
    """adamw, lamb: how much of the running means of gradients and of their squares is kept."""
    eps: float = 0.0
    """adamw, lamb, muon: added to the denominator. 0: the optimizer's own."""
    weight_decay: float = 1e-4
    """sgd: L2 penalty on the weights; else decoupled from the gradient."""
    decay_norm_and_bias: bool = False
    """Also decay the norms' weights and all biases, as the paper does."""
    layer_decay: float = 1.0
    """Each block's learning rate as a share of that of the block after it (fine-tuning)."""
    head_lr: float = 1.0
    """The head's learning rate as a multiple of lr."""
    freeze: str = "none"
    """What stays as it is, BN statistics included: `none`, `backbone` (only the head learns), or
    the number of stages, with the stem, from the first on."""
    clip_norm: float = 0.0
    """Gradients are scaled down to this norm. 0: never."""
    ema_decay: float = 0.0
    """Keep an average of weights and buffers and evaluate it beside them (`val_ema/top1`): the
    share of it that is kept at each update. 0: none."""
    ema_every: int = 1
    """Optimizer steps between two updates of the average."""


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over the run. `res2net train CONFIG --plot-schedule PNG` draws it."""

    name: Literal["cosine", "step", "linear", "one_cycle", "constant"] = "cosine"
    """After the warm-up: half a cosine or a line down to `end_factor`, times `gamma` at each drop,
    or all the same. `one_cycle`: a cosine, whose warm-up is one too (arXiv 1708.07120)."""
    by: Literal["step", "epoch"] = "step"
    """When it changes: at every optimizer step, or at the start of an epoch."""
    warmup_epochs: float = 0.0
    """Length of the warm-up, a line but for one_cycle."""
    warmup_start: float = 0.01
    """The first learning rate of the warm-up as a share of lr."""
    end_factor: float = 0.0
    """cosine, linear, one_cycle: the last learning rate as a share of lr."""
    step_epochs: float = 30.0
    """step: epochs between two drops."""
    milestones: tuple[float, ...] = ()
    """step: the epochs of the drops, instead of step_epochs."""
    gamma: float = 0.1
    """step: what each drop multiplies lr by."""
