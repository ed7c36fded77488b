"""The proof: a run killed again and again ends, bit for bit, like one that was left alone.

Every third kill or so comes at a place chosen for its danger: inside the writing of a checkpoint,
between the names of its files, in a validation, in the first step of a leg. `make test` kills three
times on 1 rank and on 2, twice on 3: each place has its turn. `make soak` kills thirty times.
"""

import io
import json
import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ranks import start, train
from runs import differences, heartbeat_step, read_state, rows

EVERY_STEPS = 4
STEPS_PER_EPOCH = 1437 // 96
SETTINGS = (
    "quickstart",
    "data.global_batch_size=96",
    "augment.policy=rand_augment",
    "augment.mixup=0.4",
    "model.drop_path=0.1",
    "optim.ema_decay=0.9",
    f"checkpoint.every_steps={EVERY_STEPS}",
    "logging.every_steps=3",
    "logging.wandb=offline",
)
PLACES = ("moment", "step", "first step", "write", "names", "validation", "start")


@dataclass(frozen=True)
class Death:
    """Where one rank of a leg is killed: the first time that it comes there after `step`."""

    place: str
    step: int
    rank: int
    share: float
    """Of the bytes that are written by then."""

    def __call__(self) -> None:
        """In the rank, before it begins."""
        if int(os.environ.get("LOCAL_RANK", 0)) != self.rank or self.place in ("moment", "start"):
            return  # these come from outside
        from res2net.callbacks import checkpoint
        from res2net.training import checkpoint_io
        from res2net.training.classifier import ImageClassifier

        save, link = checkpoint_io.torch.save, checkpoint.link_or_copy
        die = self._die

        def wrapped(name: str) -> Any:
            original = getattr(ImageClassifier, name)

            def call(module: ImageClassifier, *arguments: Any) -> Any:
                die(module.trainer.global_step)
                return original(module, *arguments)

            return call

        def half(state: Any, file: Any, **options: Any) -> None:
            if isinstance(state, dict) and state["global_step"] >= self.step:
                whole = io.BytesIO()
                save(state, whole)
                file.write(whole.getvalue()[: int(self.share * len(whole.getvalue()))])
                file.flush()
                die(state["global_step"])
            save(state, file, **options)

        def die_before(source: Path, target: Path) -> None:
            die(heartbeat_step(target.parent))
            link(source, target)

        if self.place == "write":
            checkpoint_io.torch.save = half  # type: ignore[assignment]
        elif self.place == "names":
            checkpoint.link_or_copy = die_before  # type: ignore[assignment]
        else:
            name = "validation_step" if self.place == "validation" else "training_step"
            setattr(ImageClassifier, name, wrapped(name))

    def _die(self, step: int) -> None:
        if step >= self.step or self.place == "first step":
            os.kill(os.getpid(), signal.SIGKILL)


def deaths(kills: int, ranks: int, steps: int, chance: random.Random) -> list[Death]:
    """In the order of their steps; a validation and several saves come after the last."""
    places = [PLACES[(3 * ranks + i) % len(PLACES)] for i in range(kills)]
    starts = places.count("start")
    places = [place for place in places if place != "start"]
    chance.shuffle(places)
    for _ in range(starts):  # not towards the end, which such a leg might reach
        places.insert(chance.randrange(len(places) // 2 + 1), "start")
    at = sorted(chance.randrange(steps - STEPS_PER_EPOCH) for _ in places)
    return [
        Death(
            place,
            step,
            0 if place in ("write", "names") else chance.randrange(ranks),
            chance.random(),
        )
        for place, step in zip(places, at, strict=True)
    ]


def leg(
    folder: Path, environment: dict[str, str], run: Path, death: Death, chance: random.Random,
    *arguments: str, ranks: int,
) -> None:  # fmt: skip
    """One start, killed."""
    processes = start(folder, environment, *arguments, ranks=ranks, prepare=death)
    heartbeat, began, now = run / "heartbeat", time.time_ns(), time.monotonic()
    early, deadline = now + chance.uniform(0, 2), now + 120

    def is_time() -> bool:
        if death.place == "start":
            return time.monotonic() > early
        beats = heartbeat.exists() and heartbeat.stat().st_mtime_ns > began  # in this leg
        return death.place == "moment" and beats and heartbeat_step(run) >= death.step

    try:
        while all(process.is_alive() for process in processes):
            assert time.monotonic() < deadline
            if is_time():
                time.sleep(chance.uniform(0, 0.1))
                os.kill(processes[death.rank].pid or 0, signal.SIGKILL)
                break
            time.sleep(0.002)
        # the others notice, or are killed at that or another moment
        time.sleep(chance.choice((0, 0.05, 0.5)))
    finally:
        for process in processes:
            if process.is_alive():
                os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
    assert processes[death.rank].exitcode == -signal.SIGKILL, (folder / "log-0").read_text()


def check(
    folder: Path, environment: dict[str, str], *, ranks: int, kills: int, epochs: int, seed: int
) -> None:
    chance = random.Random(seed)
    settings = (*SETTINGS, f"trainer.max_epochs={epochs}")
    whole, killed = (folder / "checkpoints" / name for name in ("whole", "killed"))
    train(folder, environment, *settings, "run.name=whole", ranks=ranks)
    arguments = (*settings, "run.name=killed", "run.resume=auto")
    steps = epochs * STEPS_PER_EPOCH
    reached = []
    for death in deaths(kills, ranks, steps, chance):
        leg(folder, environment, killed, death, chance, *arguments, ranks=ranks)
        last = killed / "last.ckpt"
        reached.append(read_state(last)["global_step"] if last.exists() else 0)
    assert reached == sorted(reached)  # it never starts over
    train(folder, environment, *arguments, ranks=ranks)

    for name in ("last.ckpt", "best.ckpt"):
        assert differences(read_state(whole / name), read_state(killed / name)) == [], reached
    state = read_state(killed / "last.ckpt")
    assert state["global_step"] == steps and state["ema_updates"] > 0
    assert len(state["ranks"]) == ranks
    assert rows(whole) == rows(killed)
    summary = json.loads((killed / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert 0 < summary["restarts"] <= kills  # who dies before it has the run does not count
    assert 0 < summary["steps_executed"] - steps <= kills * EVERY_STEPS
    left = {path.name for path in killed.iterdir()} - {path.name for path in whole.iterdir()}
    assert left <= {"wandb"}, left


@pytest.mark.parametrize(("ranks", "kills"), [(1, 3), (2, 3), (3, 2)])
def test_killed_a_few_times(
    tmp_path: Path, environment: dict[str, str], ranks: int, kills: int
) -> None:
    check(tmp_path, environment, ranks=ranks, kills=kills, epochs=2, seed=ranks)


@pytest.mark.soak
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_killed_thirty_times(tmp_path: Path, environment: dict[str, str], ranks: int) -> None:
    check(tmp_path, environment, ranks=ranks, kills=30, epochs=8, seed=100 + ranks)
