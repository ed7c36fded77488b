"""A variant against timm's same network and torchvision's ResNet-50, in turn in one process."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from res2net.bench.ceilings import Ceilings, measure_ceilings, synchronise
from res2net.bench.machine import cpu_seconds, machine, machine_seconds, memory
from res2net.bench.networks import DTYPES, PASSES, ModelWork, Network, Pass, open_networks
from res2net.bench.traffic import Traffic, count_traffic
from res2net.errors import WorkError


@dataclass(frozen=True)
class Turn:
    """One measurement of one network."""

    passes: int
    seconds: float
    peak_mb: float
    """On a GPU what the pass allocated at most, weights included; on a CPU by how much the process
    grew at most."""
    cores_used_elsewhere: float

    @property
    def seconds_per_pass(self) -> float:
        return self.seconds / self.passes


def compare_models(
    work: ModelWork,
    *,
    passes: Sequence[Pass] = tuple(PASSES),
    rounds: int,
    seconds: float,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Images per second of each network and pass, and ratios within each round.

    In every round each network has one turn, in the opposite order to the round before.

    Args:
        seconds: of a turn, at least; a pass that takes longer is measured once a turn.
        progress: is called after each turn.

    Raises:
        InputError: no variant has that name.
        WorkError: the device's memory does not suffice.
    """
    ceilings = measure_ceilings(work.device, DTYPES[work.precision])
    return {
        "schema": 1,
        "machine": machine(),
        "work": {**asdict(work), "threads": torch.get_num_threads()},
        "ceilings": asdict(ceilings),
        "passes": {
            which: _compare(work, which, rounds, seconds, ceilings, progress) for which in passes
        },
    }


def _compare(
    work: ModelWork,
    which: Pass,
    rounds: int,
    seconds: float,
    ceilings: Ceilings,
    progress: Callable[[], None],
) -> dict[str, Any]:
    networks = list(open_networks(work, which))
    first: dict[str, float] = {}
    turns: dict[str, list[Turn]] = {network.name: [] for network in networks}
    try:
        for network in networks:
            first[network.name] = _first_pass(network, which)
        for number in range(rounds):
            for network in networks[:: -1 if number % 2 else 1]:
                turns[network.name].append(_turn(network, which, seconds))
                progress()
    except torch.OutOfMemoryError as error:
        raise WorkError(
            f"{work.device}: out of memory at batch {work.batch_size}, {work.image_size} px "
            f"({PASSES[which]}); nothing is kept: try a smaller --batch"
        ) from error
    counted = {network.name: _count(network, which) for network in networks}
    ours = turns[networks[0].name]
    result = {
        "networks": {
            name: _summary(taken, counted[name], work, ceilings)
            | {"first_pass_seconds": first[name]}
            for name, taken in turns.items()
        },
        "ratios": {name: _ratios(taken, ours) for name, taken in turns.items()},
    }
    del networks
    gc.collect()
    return result


def _count(network: Network, which: Pass) -> Traffic:
    twin = network.on_meta()
    return count_traffic(lambda: twin.run(which))


def _first_pass(network: Network, which: Pass) -> float:
    """Seconds, compilation included; and a second pass, which may compile again."""
    network.ready(which)
    start = time.perf_counter()
    network.run(which)
    synchronise(network.work.device)
    seconds = time.perf_counter() - start
    network.run(which)
    return seconds


def _turn(network: Network, which: Pass, seconds: float) -> Turn:
    device = network.work.device
    network.ready(which)
    network.run(which)
    synchronise(device)
    before = _start_of_peak(device)
    elsewhere, own, start = machine_seconds(), cpu_seconds(), time.perf_counter()
    passes, elapsed = 0, 0.0
    while not passes or elapsed < seconds:
        network.run(which)
        passes += 1
        if device == "cuda" and passes % 8:  # the host runs ahead, as in training
            continue
        synchronise(device)
        elapsed = time.perf_counter() - start
    elsewhere, own = machine_seconds() - elsewhere, cpu_seconds() - own
    return Turn(passes, elapsed, _peak(device) - before, max(0.0, elsewhere - own) / elapsed)


def _start_of_peak(device: str) -> float:
    """Begin to watch for the most memory; what is in use at the start, in MB."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return 0.0
    with suppress(OSError):  # the kernel's way to reset the peak
        Path("/proc/self/clear_refs").write_text("5")
    return memory()[1]


def _peak(device: str) -> float:
    """The most memory since then, in MB."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(kilobytes) * 1024 / 1e6


def _summary(
    turns: Sequence[Turn], traffic: Traffic, work: ModelWork, ceilings: Ceilings
) -> dict[str, Any]:
    seconds = statistics.median(turn.seconds_per_pass for turn in turns)
    tflops, moved = traffic.flops / seconds / 1e12, traffic.bytes / seconds / 1e9
    return {
        "images_per_second": work.batch_size / seconds,
        "milliseconds": 1e3 * seconds,
        "tflops": tflops,
        "of_tflops_ceiling": tflops / ceilings.tflops,
        "gb_per_second": moved,
        "of_gb_ceiling": moved / ceilings.gb_per_second,
        "peak_memory_mb": max(turn.peak_mb for turn in turns),
        "cores_used_elsewhere": statistics.median(turn.cores_used_elsewhere for turn in turns),
        "turns": [asdict(turn) for turn in turns],
    }


def _ratios(turns: Sequence[Turn], ours: Sequence[Turn]) -> dict[str, Any]:
    """How many times as fast a network is as ours, within each round."""
    pairs = [
        mine.seconds_per_pass / turn.seconds_per_pass
        for mine, turn in zip(ours, turns, strict=True)
    ]
    return {"median": statistics.median(pairs), "pairs": pairs}
