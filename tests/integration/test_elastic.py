"""A run that goes on with another number of ranks, and again: each sample of an epoch once.

What a step was trained on is told by the batches themselves: in place of its label each image takes
its number through DALI, and a training step puts the label back.
"""

import csv
import json
import math
import os
import signal
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ranks import start
from runs import clean_environment, differences, read_state
from sharding import make

COUNT, BATCH, EPOCHS = 96, 8, 2
PER_EPOCH = COUNT // BATCH
STEPS = EPOCHS * PER_EPOCH
EVERY_STEPS, LOG_EVERY, EMA_EVERY = 3, 3, 2
SETTINGS = (
    "quickstart",
    "data.source=folder",
    "data.root=images",
    f"data.global_batch_size={BATCH}",
    "data.eval_batch_size=8",
    "data.image_size=32",
    "augment.crop=random_resized",
    "augment.policy=rand_augment",
    "augment.mixup=0.4",
    "optim.lr=0.01",
    "optim.ema_decay=0.9",
    f"optim.ema_every={EMA_EVERY}",
    f"trainer.max_epochs={EPOCHS}",
    f"checkpoint.every_steps={EVERY_STEPS}",
    f"logging.every_steps={LOG_EVERY}",
    "run.resume=auto",
)


class Numbered:
    """A source whose labels are the places of its images."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self.labels = np.arange(len(source))

    def __len__(self) -> int:
        return len(self._source)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


@dataclass(frozen=True)
class Leg:
    """One start of the run, which gets a signal in a step; `until` 0: it goes to the end."""

    ranks: int
    accumulate: int = 1
    until: int = 0
    by: int = signal.SIGTERM


@dataclass(frozen=True)
class Watched:
    """In each rank: write down what each step is trained on, and how great its loss is."""

    leg: Leg
    name: str

    def __call__(self) -> None:
        from res2net.data.dali.stream import Stream
        from res2net.training.classifier import ImageClassifier

        rank = int(os.environ.get("LOCAL_RANK", 0))
        log = Path(f"{self.name}-{rank}.jsonl")
        begin, step = Stream.__init__, ImageClassifier.training_step

        def numbered(stream: Stream, source: Any, order: Any, **options: Any) -> None:
            begin(stream, Numbered(source) if order.training else source, order, **options)

        def watched(module: ImageClassifier, batch: Any, batch_idx: int) -> Any:
            images, places = batch
            data: Any = module.trainer.datamodule  # type: ignore[attr-defined]
            labels = torch.from_numpy(data.train.labels)[places]
            outputs = step(module, (images, labels), batch_idx)
            number = module.trainer.global_step + 1
            loss = outputs["batch_loss"].item()
            with log.open("a") as file:  # whole before a kill
                row = {"step": number, "samples": places.tolist(), "loss": loss}
                file.write(json.dumps(row) + "\n")
            if number == self.leg.until and rank == self.leg.ranks - 1:
                os.kill(os.getpid(), self.leg.by)
            return outputs

        Stream.__init__ = numbered  # type: ignore[method-assign,assignment]
        ImageClassifier.training_step = watched  # type: ignore[method-assign,assignment]


Steps = dict[int, list[dict[str, Any]]]


def train_leg(folder: Path, environment: dict[str, str], run: str, number: int, leg: Leg) -> Steps:
    """What its steps, by number, were trained on: a row for each rank and batch."""
    name = f"{run}-{number}"
    arguments = (*SETTINGS, f"run.name={run}", f"trainer.accumulate={leg.accumulate}")
    processes = start(folder, environment, *arguments, ranks=leg.ranks, prepare=Watched(leg, name))
    try:
        # a rank that loses another may wait for it as long as it likes
        processes[leg.ranks - 1].join(100)
        if leg.by != signal.SIGKILL:
            processes[0].join(100)
    finally:
        for process in processes:
            if process.is_alive():
                os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
    said = (folder / "log-0").read_text()
    expected = {0: 0, signal.SIGTERM: 75, signal.SIGKILL: -signal.SIGKILL}
    ended = processes[leg.ranks - 1 if leg.by == signal.SIGKILL else 0]
    assert ended.exitcode == expected[leg.by if leg.until else 0], said
    done: Steps = defaultdict(list)
    for rank in range(leg.ranks):
        lines = (folder / f"{name}-{rank}.jsonl").read_text().splitlines()
        for line in lines:
            row = json.loads(line)
            done[row["step"]].append(row)
    return done


def lineage(folder: Path, environment: dict[str, str], run: str, *legs: Leg) -> Steps:
    """What the run came of: of a step that was made again only the last time counts."""
    steps: Steps = {}
    for number, leg in enumerate(legs):
        done = train_leg(folder, environment, run, number, leg)
        first, last = min(done), max(done)
        assert sorted(done) == list(range(first, last + 1))
        if number:
            assert legs[number - 1].by == signal.SIGKILL or first == max(steps) + 1
            assert max(steps) + 1 - EVERY_STEPS <= first <= max(steps) + 1
        if leg.until:
            assert last % PER_EPOCH, "it ended between two epochs"
            assert leg.until <= last <= leg.until + 1
        steps |= done
        for step in done if leg.by == signal.SIGTERM else ():
            assert len(done[step]) == leg.ranks * leg.accumulate
    return steps


def table(run: Path) -> dict[tuple[int, int, str, str], float]:
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    values = {
        (int(row["step"]), int(row["epoch"]), row["split"], row["key"]): float(row["value"])
        for row in rows
    }
    assert len(values) == len(rows)  # none twice
    return values


def mean_loss(steps: Steps, first: int, last: int) -> float:
    rows = [row for step in range(first, last + 1) for row in steps[step]]
    images = sum(len(row["samples"]) for row in rows)
    return math.fsum(row["loss"] * len(row["samples"]) for row in rows) / images


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Steps]:
    """A folder with `images` and the run `same`, on two ranks to its end."""
    folder = tmp_path_factory.mktemp("elastic")
    make(folder / "images", {"train/ant": 40, "train/bee": 32, "train/cat": 24})
    make(folder / "images", {"val/ant": 5, "val/bee": 4, "val/cat": 4})
    return folder, lineage(folder, clean_environment(), "same", Leg(2))


@pytest.mark.parametrize(
    "legs",
    [
        # both changes within the first epoch
        (Leg(2, until=3), Leg(1, until=8), Leg(2)),
        # in the first epoch, and in the second by a kill, after which two steps are made again
        (Leg(2, until=5), Leg(1, accumulate=2, until=17, by=signal.SIGKILL), Leg(2)),
    ],
    ids=["stopped", "killed"],
)
def test_two_ranks_one_rank_two_ranks(
    legs: tuple[Leg, ...], same: tuple[Path, Steps], tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "images").symlink_to(same[0] / "images")
    steps = lineage(tmp_path, environment, "changed", *legs)
    killed = any(leg.by == signal.SIGKILL for leg in legs)

    assert sorted(steps) == list(range(1, STEPS + 1))
    used = {step: sorted(n for row in rows for n in row["samples"]) for step, rows in steps.items()}
    for epoch in range(EPOCHS):
        its = range(epoch * PER_EPOCH + 1, (epoch + 1) * PER_EPOCH + 1)
        assert sorted(n for step in its for n in used[step]) == list(range(COUNT))
    for step, rows in same[1].items():
        assert used[step] == sorted(n for row in rows for n in row["samples"])

    one, other = same[0] / "checkpoints/same", tmp_path / "checkpoints/changed"
    whole, state = read_state(one / "last.ckpt"), read_state(other / "last.ckpt")
    assert state["global_step"] == STEPS
    assert state["ema_updates"] == STEPS // EMA_EVERY
    assert state["layout"] == {"world_size": 2, "accumulate": 1}
    for key in ("epoch", "loops", "lr_schedulers"):  # Lightning's counts of all that was done
        assert differences(whole[key], state[key]) == [], key
    assert state.keys() == whole.keys()
    assert [rank.keys() for rank in state["ranks"]] == [rank.keys() for rank in whole["ranks"]]
    assert [rank["data"]["steps"] for rank in state["ranks"]] == [STEPS, STEPS]
    assert len({rank["data"]["fingerprint"] for rank in (*state["ranks"], *whole["ranks"])}) == 1
    generators = [rank["generators"]["torch"] for rank in state["ranks"]]
    assert not torch.equal(*generators)
    average = state["ema_state_dict"]
    assert average.keys() == state["state_dict"].keys()
    assert all(value.isfinite().all() for value in average.values())

    expected, values = table(one), table(other)
    assert list(values) == list(expected)
    assert {key[:3] for key in values if key[2] == "val"} == {
        (PER_EPOCH * (epoch + 1), epoch, "val") for epoch in range(EPOCHS)
    }
    assert sorted(step for step, _, split, key in values if (split, key) == ("train", "loss")) == [
        *range(LOG_EVERY, STEPS + 1, LOG_EVERY)
    ]
    for (step, _, split, key), value in values.items():
        if (split, key) == ("train", "lr"):
            assert value == expected[step, (step - 1) // PER_EPOCH, "train", "lr"]
        if (split, key) == ("train", "loss"):
            assert value == pytest.approx(mean_loss(steps, step - LOG_EVERY + 1, step), rel=1e-6)
        if (split, key) == ("train", "epoch_loss"):
            assert value == pytest.approx(mean_loss(steps, step - PER_EPOCH + 1, step), rel=1e-6)

    summary = json.loads((other / "summary.json").read_text())
    assert (summary["status"], summary["restarts"]) == ("completed", len(legs) - 1)
    redone = summary["steps_executed"] - STEPS
    assert 0 < redone <= EVERY_STEPS if killed else redone == 0
