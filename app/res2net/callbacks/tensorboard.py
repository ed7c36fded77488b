"""TensorBoard's files, in `tensorboard/` below the run directory.

Logs what the other callbacks log.
"""

from __future__ import annotations

from importlib.util import find_spec

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from res2net.errors import InputError
from res2net.files.runs import RunDirectory


class TensorBoard(L.Callback):
    """Adds TensorBoard's logger when training starts.

    Not before: only then is it known at which step. What an earlier leg of the run wrote after the
    checkpoint, as it was killed later, is hidden from there on.
    """

    def __init__(self, run: RunDirectory) -> None:
        """Raises InputError where no package can write the files; creates nothing."""
        if find_spec("tensorboard") is None and find_spec("tensorboardX") is None:
            raise InputError(
                "logging.tensorboard=true: the package that writes its files is not installed; "
                "pip install res2net-lightning[tensorboard], or choose false"
            )
        self.run = run

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            trainer.loggers = [*trainer.loggers, Events(self.run, trainer.global_step)]


class Events(TensorBoardLogger):
    """Lightning's logger without its file of hyperparameters: `config.yaml` holds them."""

    def __init__(self, run: RunDirectory, done: int) -> None:
        """`done`: steps before the first that will be logged; 0 for a new run."""
        purge = done + 1 if done else None  # events of that step and later are hidden
        super().__init__(run.path, name="tensorboard", version="", purge_step=purge)

    @rank_zero_only
    def save(self) -> None:
        if self._experiment is not None:
            self._experiment.flush()
