"""What a run logs to, looked for before anything is made."""

from __future__ import annotations

from res2net.callbacks.tensorboard import check_installed
from res2net.callbacks.wandb import resolve_mode
from res2net.config.schema import LoggingConfig
from res2net.files.runs import is_rank_zero


def check_logs(logging: LoggingConfig) -> None:
    """Raises InputError: W&B is to be online and nobody is logged in, or a package is missing."""
    if logging.wandb == "online" and is_rank_zero():
        resolve_mode("online")
    if logging.tensorboard:
        check_installed()
