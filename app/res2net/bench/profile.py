"""Where the time of a training step goes, kernel by kernel."""

from __future__ import annotations

from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from res2net.bench.ceilings import synchronise
from res2net.bench.networks import Network, Pass

STEPS = 3


def profile_pass(network: Network, which: Pass, *, most: int = 12) -> list[dict[str, Any]]:
    """The `most` costly kernels (operators on a CPU): name, calls and share of the time."""
    network.ready(which)
    network.run(which)
    on_gpu = network.work.device == "cuda"
    activities = [ProfilerActivity.CUDA] if on_gpu else [ProfilerActivity.CPU]
    with profile(activities=activities) as profiler:
        for _ in range(STEPS):
            network.run(which)
        synchronise(network.work.device)
    rows = [
        (each.key, each.count, each.self_device_time_total if on_gpu else each.self_cpu_time_total)
        for each in profiler.key_averages()
        if on_gpu == (each.device_type == DeviceType.CUDA)
    ]
    total = sum(time for _, _, time in rows)
    rows.sort(key=lambda row: -row[2])
    return [
        {"name": name, "calls": count // STEPS, "share": time / total, "ms": time / 1e3 / STEPS}
        for name, count, time in rows[:most]
    ]
