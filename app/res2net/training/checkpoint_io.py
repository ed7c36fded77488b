"""How a checkpoint gets to the disk and back."""

from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from lightning.fabric.plugins import CheckpointIO

from res2net.errors import WorkError
from res2net.files.atomic import atomic_write
from res2net.files.checksum import SummedZip
from res2net.weights.torch_file import read_torch


class AtomicCheckpointIO(CheckpointIO):
    """Whole or not at all, and readable without running code.

    Lightning's own goes through $TMPDIR and a copy: killed or out of space on the way it leaves a
    torn file, or destroys the one that was there.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Raises WorkError where the disk does not take it; the old file is untouched then."""
        try:
            with atomic_write(Path(path)) as file:
                summed = SummedZip(file)
                torch.save(checkpoint, cast(BinaryIO, summed))
                summed.finish()
        # torch.save reports a full disk as RuntimeError
        except (OSError, RuntimeError) as error:
            if isinstance(error.__context__, KeyboardInterrupt):
                raise error.__context__ from None  # torch's writer hides it behind its own error
            raise WorkError(f"cannot write the checkpoint {path}: {_reason(error)}") from error

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The tensors lie on the CPU, each in memory of its own: the file may go away."""
        checkpoint = read_torch(Path(path), mapped=False)
        assert isinstance(checkpoint, dict)
        return checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def _reason(error: BaseException) -> str:
    cause = error.__context__ if isinstance(error.__context__, OSError) else error
    return " ".join(str(cause).split())
