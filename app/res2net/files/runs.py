"""The run directory: its files, and whether and from where a run goes on."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from res2net.errors import InputError
from res2net.files import checksum
from res2net.files.foreign import read_json
from res2net.files.foreign_yaml import read_yaml
from res2net.files.names import LINE, shown
from res2net.files.quarantine import QUARANTINE

SCHEMA = 1


def global_rank() -> int:
    """Number of this process among all of the run.

    Lightning's launcher, torchrun and srun run the whole command once for each rank, before any
    process group exists: the environment is all there is to ask. On nodes that were started by
    hand (NODE_RANK) the number is that in the node or of the node, and 0 for one process only.
    """
    keys = ["RANK", "SLURM_PROCID", "LOCAL_RANK"]
    if "LOCAL_RANK" in os.environ:  # else nothing is started yet, and each node speaks for itself
        keys.append("NODE_RANK")
    ranks = (os.environ.get(key, "") for key in keys)
    return next((int(rank) for rank in ranks if rank not in ("", "0")), 0)


def is_rank_zero() -> bool:
    """Whether this process creates, locks, refuses, logs and prints for the whole run."""
    return global_rank() == 0


def say(text: str, *, every_rank: bool = False) -> None:
    """One line for people, once for all ranks; stdout is kept for results.

    It is lost where stderr cannot be written, as into a pipe that nobody reads any more: it is not
    worth a run.
    """
    if every_rank or is_rank_zero():
        with suppress(OSError):
            print(shown(text, longest=LINE), file=sys.stderr, flush=True)


def identity(
    model: str,
    *,
    num_classes: int,
    class_names: Sequence[str],
    preprocessing: Mapping[str, Any],
    config: Mapping[str, Any],
) -> dict[str, Any]:
    """What a checkpoint says of itself, under the key `res2net`: plain values only."""
    return {
        "schema": SCHEMA,
        "model": model,
        "num_classes": num_classes,
        "class_names": list(class_names),
        "preprocessing": dict(preprocessing),
        "config": dict(config),
    }


@dataclass(frozen=True)
class RunDirectory:
    """Names of the files of a run."""

    path: Path

    @classmethod
    def of(cls, parent: str, name: str) -> RunDirectory:
        """The run called `name` in the folder of runs."""
        return cls(Path(parent) / name)

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def next(self) -> Path:
        """A checkpoint that is being written."""
        return self.path / "next.ckpt"

    @property
    def last(self) -> Path:
        return self.path / "last.ckpt"

    @property
    def previous(self) -> Path:
        return self.path / "previous.ckpt"

    @property
    def best(self) -> Path:
        return self.path / "best.ckpt"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def heartbeat(self) -> Path:
        """Steps executed so far, redone ones counted: rewritten in place at every step."""
        return self.path / "heartbeat"

    @property
    def quarantine(self) -> Path:
        return self.path / QUARANTINE

    @property
    def nonfinite(self) -> Path:
        """Images of the first batch whose loss was not finite, a name a line."""
        return self.path / "nonfinite.txt"

    def stalled(self, rank: int) -> Path:
        """Where the threads of a rank stood when the run made no progress; one section a stall."""
        return self.path / f"stalled-rank{rank}.txt"

    def stalled_files(self) -> list[Path]:
        """Those of all ranks that ever stalled."""
        return sorted(self.path.glob(self.stalled(0).name.replace("0", "*")))

    def undecodable(self, rank: int) -> Path:
        """What the files were at which a rank has ended: they may be others when they are mended
        (`training.images`)."""
        return self.path / f"undecodable-rank{rank}.json"

    def undecodable_files(self) -> list[Path]:
        """Those of all ranks."""
        return sorted(self.path.glob(self.undecodable(0).name.replace("0", "*")))

    @property
    def lock(self) -> Path:
        """Names the process that writes to the run (`lock.Lock`)."""
        return self.path / "lock"

    @property
    def plots(self) -> Path:
        return self.path / "plots"

    @property
    def wandb_id(self) -> Path:
        return self.path / "wandb-run-id"

    def is_run(self) -> bool:
        return self.config.is_file()

    def read_config(self) -> dict[str, dict[str, Any]]:
        """The configuration as it was stored: group -> key -> text, number, boolean or list.

        Raises:
            InputError: it is damaged, or something else than groups of keys.
            OSError: as the disk gives it.
        """
        tree = read_yaml(self.config)
        if not isinstance(tree, dict) or not all(isinstance(keys, dict) for keys in tree.values()):
            raise InputError(f"{self.config}: holds no groups of keys such as 'optim:' at its top")
        return tree

    def read_summary(self) -> dict[str, Any]:
        """The summary, empty before there is one. Raises InputError if it is damaged."""
        try:
            summary = read_json(self.summary)
            if not isinstance(summary, dict) or any(
                not holds(summary[name])
                for name, holds in _OF_THE_SUMMARY.items()
                if summary.get(name) is not None
            ):
                raise InputError("is no summary of a run")
        except FileNotFoundError:
            return {}
        except (InputError, OSError) as error:
            raise InputError(
                f"{self.summary} is damaged: delete it if it cannot be restored"
            ) from error
        return summary

    def refuse_links(self) -> None:
        """Raises InputError where one of the files that are written in place is no plain file.

        A run that came from elsewhere may have a link there, and what it links to would be
        written over.
        """
        for path in (self.metrics, self.heartbeat, self.plots, *self.stalled_files()):
            there = path.is_dir() if path == self.plots else path.is_file()
            if path.is_symlink() or (path.exists() and not there):
                raise InputError(
                    f"{path}: is a link or no plain file, and the run would write into it: remove "
                    "it, or go on under another run.name"
                )

    def newest_checkpoint(self) -> tuple[Path | None, str]:
        """What to resume from, and a line to say if it is not `last.ckpt`.

        Nothing is changed, so that all ranks find the same.
        """
        if is_sound(self.last):
            return self.last, ""
        if not self.last.exists() and not self.previous.exists():
            return None, ""
        if is_sound(self.previous):
            what = "is damaged" if self.last.exists() else "is missing"
            return self.previous, f"{self.last} {what}: going on from {self.previous.name}"
        raise InputError(
            f"neither {self.last} nor {self.previous.name} can be read: they are damaged; "
            f"start anew with another run.name, or go on from {self.best.name} by run.resume=PATH"
        )


def is_sound(path: Path) -> bool:
    """Whether a checkpoint is whole: by its own checksum, else every part of the zip file by that
    of its content.

    PyTorch alone does not notice a flipped bit. Compressed parts, which PyTorch never writes, are
    not looked into: they may declare any size. What is no file, as a device or a pipe, is not
    read: it may have no end.
    """
    if not path.is_file():
        return False
    try:
        if _declares_too_much(path):
            return False
        matches = checksum.matches(path)
        if matches is not None:
            return matches
        with zipfile.ZipFile(path) as file:
            entries = file.infolist()
            stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
            declared = sum(entry.file_size for entry in entries)
            return stored and declared <= path.stat().st_size and file.testzip() is None
    except Exception:  # zipfile meets flipped bits with NotImplementedError, zlib.error and others
        return False


def _declares_too_much(path: Path) -> bool:
    """Whether the table of contents of a zip file is most of it: in memory it is twelve times that.

    One of PyTorch's is a third of a file at the most, where every tensor is one number.
    """
    entries = 0
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            entries += chunk.count(b"PK\x01\x02")
    return entries * 46 > path.stat().st_size // 2


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_figure(value: Any) -> bool:
    return type(value) in (int, float)


def _is_best(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    epoch = value.get("epoch")
    figures = [figure for name, figure in value.items() if name != "epoch"]
    return (epoch is None or _is_count(epoch)) and all(f is None or _is_figure(f) for f in figures)


_FIGURES = [
    f"{split}/{name}" for split in ("val", "val_ema") for name in ("top1", "top5", "loss")
]  # fmt: skip
_OF_THE_SUMMARY: dict[str, Callable[[Any], bool]] = {
    "status": lambda value: value in ("running", "completed", "interrupted", "failed"),
    "best": _is_best,
    "slurm_job": lambda value: isinstance(value, str) and len(value) < 100,
    "wall_seconds": lambda value: _is_figure(value) and 0 <= value < 1e12,
    **dict.fromkeys(
        ("steps", "steps_executed", "steps_per_epoch", "restarts", "samples_seen", "parameters"),
        _is_count,
    ),
    **dict.fromkeys(_FIGURES, _is_figure),
}
"""What `summary.json` must hold to, where it says anything."""
