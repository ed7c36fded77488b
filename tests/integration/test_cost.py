"""What safety costs: blocks of steps with and without it alternate in one run."""

import json
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from ranks import train

BLOCK = 8


def off_every_other_block(out: Path) -> None:
    """Let what is done for safety in a step rest in every other block, and time the steps."""
    import lightning as L

    from res2net.callbacks.checkpoint import SaveCheckpoints
    from res2net.callbacks.summary import Summary
    from res2net.callbacks.watchdog import Watchdog
    from res2net.training.classifier import ImageClassifier

    def resting(trainer: L.Trainer, batch_idx: int) -> bool:
        # the ends of epochs are always looked at, or nothing would be saved there
        return bool(batch_idx // BLOCK % 2) and batch_idx + 2 < trainer.num_training_batches

    def wrap(owner: type, name: str) -> None:
        original = getattr(owner, name)

        def call(self: Any, trainer: L.Trainer, *arguments: Any, **more: Any) -> None:
            if not resting(trainer, more.get("batch_idx", arguments[-1] if arguments else 0)):
                original(self, trainer, *arguments, **more)

        setattr(owner, name, call)

    for owner in (SaveCheckpoints, Summary, Watchdog):
        wrap(owner, "on_train_batch_end")
    wrap(Watchdog, "on_train_batch_start")
    step = ImageClassifier.training_step
    saved = SaveCheckpoints.on_train_end
    blocks: dict[tuple[int, int], list[float]] = defaultdict(list)
    starts: list[tuple[int, int, float]] = []
    began = time.perf_counter()

    def training_step(self: ImageClassifier, batch: Any, batch_idx: int) -> Any:
        now = time.perf_counter()
        if starts and starts[-1][:2] == (self.current_epoch, batch_idx - 1):
            # a step's hooks come after it: its own time ends with the start of the next
            blocks[self.current_epoch, starts[-1][1] // BLOCK].append(now - starts[-1][2])
        starts.append((self.current_epoch, batch_idx, now))
        return step(self, batch, batch_idx)

    def on_train_end(self: SaveCheckpoints, trainer: L.Trainer, module: Any) -> None:
        saved(self, trainer, module)
        if trainer.is_global_zero:
            pairs = [
                median(blocks[epoch, block]) / median(blocks[epoch, block + 1])
                for epoch, block in blocks
                if block % 2 == 0 and len(blocks.get((epoch, block + 1), ())) == BLOCK
            ]
            seconds = time.perf_counter() - began
            figures = {
                "pairs": len(pairs),
                "ratio": median(pairs),
                "step": median(second for block in blocks.values() for second in block),
                "saving": self.seconds / seconds,
                "saves": self._saves,
                "seconds": seconds,
            }
            out.write_text(json.dumps(figures))

    ImageClassifier.training_step = training_step  # type: ignore[method-assign]
    SaveCheckpoints.on_train_end = on_train_end  # type: ignore[method-assign]


@pytest.mark.soak
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("ranks", [1, 2])
def test_safety_costs_little(tmp_path: Path, environment: dict[str, str], ranks: int) -> None:
    figures = tmp_path / "figures.json"
    settings = (
        "quickstart",
        "trainer.max_epochs=20",
        "data.image_size=64",  # a step of 0.1 to 0.2 s on one core
        "data.global_batch_size=32",
        "logging.wandb=disabled",
    )
    prepare = partial(off_every_other_block, figures)
    train(tmp_path, environment, *settings, ranks=ranks, prepare=prepare, seconds=1500)
    measured = json.loads(figures.read_text())
    print(f"{ranks} ranks: {measured}")
    assert measured["pairs"] >= 40
    assert measured["ratio"] <= 1.02
    assert measured["saving"] <= 0.01
