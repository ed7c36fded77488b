"""The one way in which a Lightning Trainer is built here."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.strategies import Strategy

from res2net.callbacks.agreement import patience
from res2net.config.schema import Config
from res2net.training.checkpoint_io import AtomicCheckpointIO
from res2net.training.plan import Plan
from res2net.training.ranks import RankStrategy


def build_trainer(
    plan: Plan,
    *,
    precision: Any,
    callbacks: list[L.Callback],
    stall_minutes: float = 0.0,
    **options: Any,
) -> L.Trainer:
    """A Trainer for the processes and devices of `plan`, which logs and saves by callbacks only.

    `stall_minutes`: after which the watchdog awakes; ranks wait longer for each other.
    """
    _quieten()
    environments: dict[str, Callable[[], ClusterEnvironment]] = {
        "srun": lambda: SLURMEnvironment(auto_requeue=False),
        "torchrun": TorchElasticEnvironment,
        "": LightningEnvironment,
    }
    plugins: list[Any] = [AtomicCheckpointIO(), environments[plan.launcher]()]
    strategy: str | Strategy = "auto"
    if plan.world_size > 1:
        strategy = RankStrategy(gradient_as_bucket_view=True, timeout=patience(stall_minutes))
    trainer = L.Trainer(
        accelerator="gpu" if plan.accelerator == "cuda" else "cpu",
        devices=plan.devices,
        num_nodes=plan.num_nodes,
        strategy=strategy,
        precision=precision,
        plugins=plugins,
        callbacks=callbacks,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=10**9,  # callbacks log by themselves, before the state is saved
        **options,
    )
    # Lightning's own handlers save or broadcast inside the handler, where most of them hang; and
    # its agreement on SIGTERM makes the host wait for the device in every step. See stopping.py.
    trainer._signal_connector.register_signal_handlers = _nothing  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _nothing  # type: ignore[method-assign]
    return trainer


def training_trainer(config: Config, plan: Plan, **options: Any) -> L.Trainer:
    """The Trainer for what `config` says of training; `options` win over it."""
    said: dict[str, Any] = {
        "precision": config.trainer.precision,
        "max_epochs": config.trainer.max_epochs,
        "accumulate_grad_batches": config.trainer.accumulate,
        "gradient_clip_val": config.optim.clip_norm or None,
        "sync_batchnorm": config.trainer.sync_batchnorm,
        "deterministic": config.trainer.deterministic,
        "stall_minutes": config.trainer.stall_minutes,
    }
    return build_trainer(plan, **said | options)


def _nothing() -> None:
    """Instead of what a run does by itself."""


def _quieten() -> None:
    """Silence Lightning's hints that do not apply here."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # the workers are DALI's threads
        ".*dataloader is not resumable.*",  # ExactResume resumes it
        ".*smaller than the logging interval.*",  # callbacks log by themselves
        ".*`srun` command is available.*",  # one process on a login node is what was asked for
        r".*module\(s\) in eval mode at the start of training.*",  # frozen ones, on purpose
        ".*LeafSpec.* is deprecated.*",  # Lightning's own use of torch
    ):
        warnings.filterwarnings("ignore", message)
    logging.getLogger("torch.utils.cpp_extension").addFilter(_not_of_a_missing_gpu)


def _not_of_a_missing_gpu(record: logging.LogRecord) -> bool:
    """torch.compile looks for CUDA where it compiles for the CPU, too."""
    return not record.getMessage().startswith("No CUDA runtime is found")
