"""Weights & Biases: one W&B run for the whole run, whatever happens to its processes.

Logs what the other callbacks log, over `trainer/global_step`, and the configuration; at the end of
a fit the pictures of the run and the misclassified images, and the best checkpoint if asked to.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from res2net.callbacks.mistake import MISTAKES, Mistake
from res2net.errors import InputError
from res2net.files.atomic import atomic_write_text
from res2net.files.foreign import read_text
from res2net.files.names import shown
from res2net.files.runs import RunDirectory, is_rank_zero, say

Mode = Literal["auto", "online", "offline", "disabled"]

INIT_TIMEOUT = 8.0
"""Seconds a server has to answer; with W&B's own start the run goes on without it within 15 s."""

FINISH_TIMEOUT = 20.0
"""Seconds for the last uploads. What is not through by then stays on the disk."""

CHECKPOINT_TIMEOUT = 900.0
"""The same where a checkpoint is among them."""


def wandb_logger(
    run: RunDirectory,
    *,
    mode: Mode,
    project: str,
    config: dict[str, Any],
    checkpoint: bool = False,
) -> Wandb | None:
    """Start W&B, or go on with the W&B run whose id the directory holds.

    `auto` is online where somebody is logged in, else offline; WANDB_MODE and `wandb offline` are
    heard. Files go to `wandb/` below the run directory, which must exist. The end of a fit ends
    the W&B run; with `checkpoint` it uploads the run's `best.ckpt` first, as an artifact.

    Returns None if disabled, on all ranks but 0, and if W&B cannot start: a log is not worth a
    run. Raises InputError for `online` where nobody is logged in.
    """
    if mode == "disabled" or not is_rank_zero():
        return None
    chosen = resolve_mode(mode)
    if chosen == "disabled":
        return None
    logging.raiseExceptions = False  # a traceback for each line that W&B's own log does not take
    try:
        identifier = _run_id(run)
    except (OSError, InputError) as error:
        _say(f"does not start, going on without it: {_reason(error)}")
        return None
    for attempt in ("online", "offline") if chosen == "online" else ("offline",):
        logger = Wandb(
            run, mode=attempt, project=project, identifier=identifier, checkpoint=checkpoint
        )
        try:
            experiment = logger.experiment
            logger.log_hyperparams(config)
        except Exception as error:  # of W&B's own kinds, of its helper process, of the network
            _end_helper()  # it would refuse the id a second time
            then = "logging offline" if attempt == "online" else "going on without it"
            _say(f"{attempt} does not start, {then}: {_reason(error)}")
            continue
        if attempt == "online":
            _say(experiment.url)
        return logger
    return None


class Wandb(WandbLogger):
    """Lightning's logger, which ends with the fit and never takes the run with it.

    W&B's helper process can die alone: SLURM signals every process of a step. All calls raise
    from then on, and a SIGTERM must still find a trainer that saves its state.
    """

    def __init__(
        self, run: RunDirectory, *, mode: str, project: str, identifier: str, checkpoint: bool
    ) -> None:
        import wandb

        super().__init__(
            name=run.path.name,
            save_dir=run.path,
            id=identifier,
            project=project,
            log_model=False,
            mode=mode,
            resume="allow",
            reinit="create_new",  # no global `wandb.run`, which a dead helper would leave behind
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                save_code=False,
                symlink=False,
                init_timeout=INIT_TIMEOUT,
                finish_timeout=CHECKPOINT_TIMEOUT if checkpoint else FINISH_TIMEOUT,
            ),
        )
        self._directory = run.path / "wandb"
        self._checkpoint = run.best if checkpoint else None
        self._open = True

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._guarded(lambda: super(Wandb, self).log_metrics(metrics, step))

    @rank_zero_only
    def log_end(self, plots: Path, mistakes: Sequence[Mistake], *, step: int) -> None:
        """The pictures of the folder `plots`, and a table of misclassified images."""

        def log() -> None:
            from wandb import Image, Table

            values: dict[str, Any] = {
                f"plots/{path.stem}": Image(str(path)) for path in sorted(plots.glob("*.png"))
            }
            if mistakes:
                columns: list[str | int] = [
                    "image",
                    "index",
                    "true",
                    "predicted",
                    "probability",
                    "loss",
                ]
                names = [(shown(m.true), shown(m.predicted)) for m in mistakes]
                rows = [
                    [Image(m.image), m.index, *of, m.probability, m.loss]
                    for m, of in zip(mistakes[:MISTAKES], names, strict=False)
                ]
                values["val/mistakes"] = Table(columns=columns, data=rows)
            if values:
                self.experiment.log(values | {"trainer/global_step": step})

        self._guarded(log)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Lightning calls this when a fit ends, also by an error (`failed`)."""
        if status == "success" and self._checkpoint is not None and self._checkpoint.is_file():
            self._guarded(self._upload_checkpoint)
        if self._open:
            self._close(exit_code=int(status == "failed"))

    def _upload_checkpoint(self) -> None:
        from wandb import Artifact

        assert self._checkpoint is not None
        artifact = Artifact(f"run-{self.experiment.id}-best", type="model")
        artifact.add_file(str(self._checkpoint), name=self._checkpoint.name)
        self.experiment.log_artifact(artifact, aliases=["best"])

    def _guarded(self, call: Callable[[], None]) -> None:
        """Do it while W&B lives; if that fails, end W&B, not the run."""
        if not self._open:
            return
        try:
            with _staging(self._directory):
                call()
        except Exception as error:
            _say(f"stopped, going on without it: {_reason(error)}")
            self._close(exit_code=1)

    def _close(self, exit_code: int) -> None:
        self._open = False
        try:
            self.experiment.finish(exit_code=exit_code)
        except Exception:
            _end_helper()
        if self._wandb_init["mode"] == "offline":
            if self._lost_something():
                _say("lacks what a full or read-only disk did not take: metrics.csv has it")
            # every leg of a resumed run has its own folder; synced together they are one run
            _say(f"upload by: wandb sync {shlex.quote(str(self._directory))}/offline-run-*")

    def _lost_something(self) -> bool:
        """W&B's helper says only in its own log that it wrote no more."""
        try:
            log = Path(self.experiment.settings.log_internal).read_text(errors="replace")
        except OSError:
            return True
        return not log or '"msg":"writer: failed' in log


def resolve_mode(mode: Mode) -> str:
    """`online`, `offline` or `disabled`, without asking the network.

    Raises InputError for `online` where nobody is logged in.
    """
    import wandb

    _switch_off_reports()
    nobody = "nobody is logged in"
    try:
        settings = wandb.Settings(silent=True)
        if mode != "auto":
            settings.mode = mode
        chosen = wandb.setup(settings).settings.mode
        if chosen in ("disabled", "offline"):
            return chosen
        if chosen == "dryrun":  # the old name
            return "offline"
        if wandb.login(prompt=False, verify=False):
            return "online"
        problem = nobody
    except Exception as error:
        problem = _reason(error)
    if mode == "online":
        raise InputError(
            f"logging.wandb=online: {problem}; log in by `wandb login` or WANDB_API_KEY, "
            "or choose auto, offline or disabled"
        )
    if problem != nobody:
        _say(f"logging offline: {problem}")
    return "offline"


def _switch_off_reports() -> None:
    """W&B's reports about itself hold up the end of the process for 20 s where packets to the
    server are dropped, as on many compute nodes."""
    with suppress(ImportError, AttributeError):  # not a public place
        from wandb.analytics.opentelemetry import opentelemetry_proxy

        opentelemetry_proxy.disable()


@contextmanager
def _staging(folder: Path) -> Iterator[None]:
    """Let W&B copy what it has yet to upload into `folder`, not into the home directory."""
    if "WANDB_DATA_DIR" in os.environ:
        yield
        return
    os.environ["WANDB_DATA_DIR"] = str(folder.absolute())
    try:
        yield
    finally:
        del os.environ["WANDB_DATA_DIR"]


_LONGEST_ID = 128
"""W&B's own rule."""


def _run_id(run: RunDirectory) -> str:
    """The directory's W&B id, on the disk before W&B hears of it: a run killed in its first step
    keeps it."""
    if run.wandb_id.is_file():
        identifier = read_text(run.wandb_id, most=_LONGEST_ID).strip()
        if not re.fullmatch(r"[\w-]+", identifier, re.ASCII):
            raise InputError(f"{run.wandb_id}: holds no id of W&B")
        return identifier
    identifier = os.environ.get("WANDB_RUN_ID") or secrets.token_hex(6)  # a sweep has given one
    atomic_write_text(run.wandb_id, identifier + "\n")
    return identifier


def _end_helper() -> None:
    """End W&B's helper process, or forget it if it is gone.

    Then this raises, but also takes back W&B's hook at the exit of the process, which would print
    a traceback.
    """
    import wandb

    with suppress(Exception):
        wandb.teardown(exit_code=1)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _say(text: str) -> None:
    say(f"W&B: {text}")
