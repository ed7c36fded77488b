"""The loader against the DALI pipeline in it and against torchvision's, in turn in one run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any

from res2net.bench.contender import CONTENDERS, Contender, Turn
from res2net.bench.machine import machine
from res2net.bench.work import Work, alone
from res2net.config.schema import Config
from res2net.data.sources.source import Source
from res2net.training.data import check_global_batch, open_data
from res2net.training.plan import make_plan

SECONDS = 3.0
"""Of a turn, where the number of images is not given."""


def compare_loaders(
    config: Config,
    *,
    pairs: int = 7,
    images: int = 0,
    original: str = "",
    contenders: Sequence[str] = tuple(CONTENDERS),
    progress: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Training images per second of each contender, and ratios within each round.

    All do the work that `config` describes, on as many threads or workers, and give normalised
    float32 images. In every round each has one turn, in the opposite order to the round before.

    Args:
        pairs: rounds.
        images: of each turn, rounded up to batches; 0: for `SECONDS`.
        original: folder of class folders that torchvision reads instead of `data.root`.
        progress: is called after each turn.

    Raises:
        InputError: something in the configuration or the data cannot be used.
        WorkError: a contender failed on the way.
    """
    work = _work(config, original)
    turns: dict[str, list[Turn]] = {name: [] for name in contenders}
    with ExitStack() as stack:
        # one after the other: a start takes all cores for seconds
        running = [stack.enter_context(Contender(name, work)) for name in contenders]
        for number in range(pairs):
            for contender in running[:: -1 if number % 2 else 1]:
                turn = contender.turn(images=images, seconds=SECONDS)
                turns[contender.name].append(turn)
                progress()
    first, *others = contenders
    return {
        "schema": 1,
        "machine": machine(),
        "work": _described(work, original),
        "contenders": {name: _summary(turns[name]) for name in contenders},
        "ratios": {f"{first}/{other}": _ratio(turns[first], turns[other]) for other in others},
    }


def _work(config: Config, original: str) -> Work:
    config = alone(config)
    plan = make_plan(config.trainer, workers=config.data.workers)
    plan.batch_size(config)
    source, _ = open_data(config.data)
    check_global_batch(config.data, source)
    return Work(
        config, plan.accelerator, plan.threads, source, _original(config, original) or source
    )


def _original(config: Config, directory: str) -> Source | None:
    if not directory:
        return None
    data = replace(config.data, source="folder", root=directory)
    source, _ = open_data(data)
    check_global_batch(data, source)
    return source


def _described(work: Work, original: str) -> dict[str, Any]:
    data, augment = work.config.data, work.config.augment
    return {
        "source": data.source,
        "root": data.root,
        "original": original or None,
        "files": len(work.source),
        "image_size": data.image_size,
        "batch_size": work.batch_size,
        "threads": work.threads,
        "device": work.device,
        "augment": {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in vars(augment).items()
        },
        "output": "float32 (N, 3, H, W), normalised, on the device",
    }


def _summary(turns: Sequence[Turn]) -> dict[str, Any]:
    return {
        "images_per_second": statistics.median(turn.images_per_second for turn in turns),
        "cpu_ms_per_image": statistics.median(1e3 * t.cpu_seconds / t.images for t in turns),
        "memory_mb": max(turn.memory_mb for turn in turns),
        "rss_mb": max(turn.rss_mb for turn in turns),
        "cores_used_elsewhere": statistics.median(
            turn.cpu_seconds_elsewhere / turn.seconds for turn in turns
        ),
        "turns": [asdict(turn) | {"images_per_second": turn.images_per_second} for turn in turns],
    }


def _ratio(ours: Sequence[Turn], theirs: Sequence[Turn]) -> dict[str, Any]:
    pairs = [
        one.images_per_second / other.images_per_second
        for one, other in zip(ours, theirs, strict=True)
    ]
    cpu = [
        (other.cpu_seconds / other.images) / (one.cpu_seconds / one.images)
        for one, other in zip(ours, theirs, strict=True)
    ]
    return {"median": statistics.median(pairs), "pairs": pairs, "by_cpu": statistics.median(cpu)}
