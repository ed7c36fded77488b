"""`quarantine.txt` of a run: the files that could not be decoded and were left out.

Logs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import lightning as L

from res2net.callbacks.exact_resume import gather
from res2net.files.quarantine import write_quarantine
from res2net.files.trouble import Trouble


class Quarantine(L.Callback):
    """Written by rank 0 after each validation, when all ranks have said what they met.

    Args:
        met: name -> why, of this rank (`ImageDataModule.quarantine`).
        path: the file; there is none as long as all is well.
    """

    def __init__(self, met: Callable[[], Mapping[str, str]], path: Path) -> None:
        self.met = met
        self.path = path
        self._trouble = Trouble(path)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        everyone = {name: why for rank in gather(dict(self.met())) for name, why in rank.items()}
        if everyone and trainer.is_global_zero:
            with self._trouble.attempt():  # the next validation writes all of them again
                write_quarantine(self.path, everyone)
