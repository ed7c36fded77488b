"""The typed tree that configures a run: every key, its default and what it means.

Order of precedence: these defaults < one YAML < `key=value` on the command line (`load.py`).
Checks that involve several keys or the machine stand where the knowledge is (`training/plan.py`).
"""

from dataclasses import dataclass, field
from typing import Literal

from omegaconf import MISSING

from res2net.config.schema_data import AugmentConfig, DataConfig
from res2net.config.schema_learning import LossConfig, OptimConfig, ScheduleConfig


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
    zero_init_last: bool = False
    """Start each block as the identity: the weights of its last norm at 0 (arXiv 1706.02677, 5.1).
    """
    drop_path: float = 0.0
    """Stochastic depth: the chance that a training image skips the last block, less in earlier
    ones."""


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
    compile: bool = False
    """Compile the network by torch.compile: minutes at the start, faster steps."""
    sync_batchnorm: bool = False
    """Statistics of BN over all devices: for few images per device."""
    deterministic: bool = False
    """Only algorithms that give the same bits each time, slower on GPUs."""
    stall_minutes: float = 30.0
    """Minutes without any progress after which all ranks write where they are into the run
    directory, and the run leaves to be started again. 0: wait for ever."""


@dataclass(frozen=True)
class CheckpointConfig:
    """When the state is saved, apart from the end of each epoch."""

    every_steps: int = 0
    """Optimizer steps between two saves. 0: not by steps."""
    every_minutes: float = 15.0
    """Minutes between two saves. 0: not by time."""
    on_error: Literal["stop", "continue"] = "stop"
    """Where the disk does not take a checkpoint: stop, or train on and try again later."""


@dataclass(frozen=True)
class LoggingConfig:
    """What is written down on the way."""

    every_steps: int = 50
    """Optimizer steps between two rows of train/loss, lr and images per second."""
    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """Weights & Biases. `auto`: online where somebody is logged in, else offline."""
    wandb_project: str = "res2net"
    """Project name shown by W&B."""
    wandb_checkpoint: bool = False
    """Upload the best checkpoint to W&B at the end."""
    tensorboard: bool = False
    """Also write TensorBoard's files (pip install res2net-lightning[tensorboard])."""


@dataclass(frozen=True)
class Config:
    """A whole run."""

    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
