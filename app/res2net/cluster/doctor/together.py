"""What there is between ranks: versions, clocks, files, and what they send each other by."""

from __future__ import annotations

import atexit
import os
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

from res2net.cluster.doctor import packages
from res2net.cluster.doctor.check import Check, one_line
from res2net.cluster.doctor.meeting import Answer, Meeting
from res2net.cluster.doctor.resources import existing

SKEW = 1.0
"""Seconds between two clocks that are worth a warning."""
SEEN_WITHIN = 15.0
"""Seconds in which a new file must be seen on all hosts: NFS looks at a folder rarely."""
MIB = 2**20


def examine(meeting: Meeting, own: list[Check], runs: Path) -> Iterator[Check]:
    """All of it; every rank runs it, rank 0 gets the findings.

    Raises:
        MeetingError: a rank does not answer.
    """
    checks = (
        lambda: _elsewhere(meeting, own),
        lambda: _ranks(meeting),
        lambda: _versions(meeting),
        lambda: _clocks(meeting),
        lambda: _shared_folder(meeting, runs),
        lambda: _all_reduce(meeting, "gloo", 16 * MIB),
        lambda: _nccl(meeting),
    )
    for check in checks:
        yield from check()
    # rank 0 holds the store: it stays until all have heard the last word
    meeting.exchange("end", lambda: True)


def _elsewhere(meeting: Meeting, own: list[Check]) -> Iterator[Check]:
    """What is not well on other ranks. A warning that rank 0 has too is told once."""
    answers = meeting.exchange("findings", lambda: [asdict(check) for check in own])
    warned = {check.name for check in own if check.status != "ok"}
    where: dict[Check, list[int]] = {}
    for answer in answers[1:]:
        for found in answer.value:
            check = Check(**found)
            if check.status == "fail" or (check.status == "warn" and check.name not in warned):
                where.setdefault(check, []).append(answer.rank)
    for check, ranks in where.items():
        value = f"{meeting.names(ranks)}: {check.value}"
        yield Check(check.name, check.status, value, check.advice)


def _ranks(meeting: Meeting) -> Iterator[Check]:
    keys = ("SLURM_JOB_ID", "SLURM_JOB_NODELIST", "MASTER_ADDR")
    answers = meeting.exchange("place", lambda: {key: os.environ.get(key) for key in keys})
    if not answers:
        return
    first = answers[0].value
    differing = [answer.rank for answer in answers if answer.value != first]
    hosts = Counter(meeting.hosts)
    shown = ", ".join(f"{host}: {count}" for host, count in list(hosts.items())[:8])
    plural = "s" if len(hosts) > 1 else ""
    value = f"{meeting.world_size} ranks on {len(hosts)} host{plural} ({shown})"
    if differing:
        value += f"; another job, host list or MASTER_ADDR on {meeting.names(differing)}"
        advice = "start all by one srun or torchrun, with the same variables"
        yield Check("ranks", "fail", value, advice)
    elif len(set(hosts.values())) > 1:
        advice = "every host must have the same number: give --ntasks-per-node"
        yield Check("ranks", "fail", value, advice)
    else:
        yield Check("ranks", "ok", value)


def _versions(meeting: Meeting) -> Iterator[Check]:
    answers = meeting.exchange("versions", packages.versions)
    if failed := _failed(meeting, "versions", answers, "install the same on all hosts"):
        yield failed
    elif answers:
        differences = []
        for name in {name: None for answer in answers for name in answer.value}:
            ranks: dict[str, list[int]] = {}
            for answer in answers:
                ranks.setdefault(answer.value.get(name, "missing"), []).append(answer.rank)
            if len(ranks) > 1:
                has = "; ".join(f"{found} on {meeting.names(on)}" for found, on in ranks.items())
                differences.append(f"{name} is {has}")
        if differences:
            advice = "install the same on all hosts"
            yield Check("versions", "fail", ". ".join(differences), advice)
        else:
            count = len(answers[0].value)
            yield Check("versions", "ok", f"{count} packages, the same on all ranks")


def _clocks(meeting: Meeting) -> Iterator[Check]:
    """Rank 0 calls, all look at their clocks; the promptest of some calls counts for each rank."""
    best: list[float] = []
    for number in range(5):
        meeting.exchange(f"ready {number}", lambda: True)
        called = f"call {number}"
        meeting.tell(called)
        answers = meeting.exchange(f"clock {number}", time.time)
        apart = [answer.value - answers[0].value for answer in answers]
        best = [min(pair, key=abs) for pair in zip(best or apart, apart, strict=True)]
    if not best:
        return
    spread = max(best) - min(best)
    value = f"at most {1000 * spread:.1f} ms apart"
    if spread <= SKEW:
        yield Check("clocks", "ok", value)
    else:
        worst = max(range(len(best)), key=lambda rank: abs(best[rank]))
        value += f": {meeting.names([worst])} is {best[worst]:+.1f} s from rank 0"
        advice = "let NTP set the clocks: times of files and logs are compared between hosts"
        yield Check("clocks", "warn", value, advice)


def _shared_folder(meeting: Meeting, runs: Path) -> Iterator[Check]:
    text, probe, problem = secrets.token_hex(16), Path(), ""
    if meeting.rank == 0:
        probe = existing(runs) / f".doctor-{os.getpid()}-{text[:8]}"
        try:
            probe.write_text(text)
        except OSError as error:
            problem = one_line(error)
    place = meeting.tell("shared file", {"path": str(probe), "text": text, "problem": problem})
    try:
        answers = meeting.exchange("shared file seen", lambda: _see(place))
    finally:
        if meeting.rank == 0:
            probe.unlink(missing_ok=True)
    if not answers:
        return
    folder, advice = probe.parent, "runs need a folder that all hosts share: run.dir=PATH"
    blind = [answer.rank for answer in answers if answer.error or not answer.value["seen"]]
    if problem:
        yield Check("shared folder", "fail", f"rank 0 cannot write in {folder}: {problem}", advice)
    elif blind:
        who = meeting.names(blind)
        value = f"{who}: does not see within {SEEN_WITHIN:.0f} s what rank 0 wrote in {folder}"
        yield Check("shared folder", "fail", value, advice)
    else:
        slowest = max(answer.value["seconds"] for answer in answers)
        value = f"{folder}: all ranks read what rank 0 wrote, within {slowest:.1f} s"
        yield Check("shared folder", "ok", value)


def _see(place: dict[str, str]) -> dict[str, Any]:
    file, start = Path(place["path"]), time.monotonic()
    while not place["problem"]:
        try:
            seen = file.read_text() == place["text"]
        except OSError:
            seen = False
        passed = time.monotonic() - start
        if seen or passed > SEEN_WITHIN:
            return {"seen": seen, "seconds": passed}
        time.sleep(0.1)
    return {"seen": False, "seconds": 0.0}


def _nccl(meeting: Meeting) -> Iterator[Check]:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    answers = meeting.exchange("gpus", lambda: count)
    if meeting.tell("all have gpus", all(answer.value for answer in answers)):
        yield from _all_reduce(meeting, "nccl", 256 * MIB)


def _all_reduce(meeting: Meeting, backend: str, size: int) -> Iterator[Check]:
    """A sum over all ranks, checked, and how fast it is."""
    advice = {
        "gloo": "GLOO_SOCKET_IFNAME=... names the network between the hosts",
        "nccl": "NCCL_DEBUG=INFO says more; NCCL_SOCKET_IFNAME=... names the network",
    }[backend]
    answers = meeting.exchange(backend, lambda: _within_wait(meeting, backend, size))
    if failed := _failed(meeting, backend, answers, advice):
        yield failed
    elif answers:
        seconds = max(answer.value for answer in answers)
        # what each link carries in a ring
        rate = 2 * (meeting.world_size - 1) / meeting.world_size * size / seconds / 1e9
        value = (
            f"all_reduce of {size // MIB} MiB in {1000 * seconds:.1f} ms, {rate:.2f} GB/s a rank"
        )
        yield Check(backend, "ok", value)


def _within_wait(meeting: Meeting, backend: str, size: int) -> float:
    """In a thread: neither backend gives up for certain when another rank has gone."""
    said: list[float | Exception] = []

    def work() -> None:
        try:
            said.append(_reduce(meeting, backend, size))
        except Exception as error:
            said.append(error)

    thread = Thread(target=work, daemon=True)
    thread.start()
    limit = 0.8 * meeting.wait  # rank 0 waits longer for the answer
    thread.join(limit)
    if not said:
        atexit.register(os._exit, 1)  # its libraries may wait for that thread for ever
        raise TimeoutError(f"not done in {limit:.0f} s")
    if isinstance(said[0], Exception):
        raise said[0]
    return said[0]


def _reduce(meeting: Meeting, backend: str, size: int) -> float:
    """Median seconds of some sums.

    Raises:
        ValueError: the sum is wrong.
    """
    import torch
    from torch import distributed

    on_gpu = backend == "nccl"
    device = torch.device("cpu")
    if on_gpu:
        local = meeting.rank % torch.cuda.device_count()
        local = int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or local)
        device = torch.device("cuda", local % torch.cuda.device_count())
        torch.cuda.set_device(device)
    distributed.init_process_group(
        backend,
        store=distributed.PrefixStore(backend, meeting.store),
        rank=meeting.rank,
        world_size=meeting.world_size,
        timeout=timedelta(seconds=0.7 * meeting.wait),
        device_id=device if on_gpu else None,
    )
    expected = meeting.world_size * (meeting.world_size + 1) / 2
    times = []
    try:
        for _ in range(4):
            numbers = torch.full((size // 4,), float(meeting.rank + 1), device=device)
            distributed.barrier()
            start = time.monotonic()
            distributed.all_reduce(numbers)
            found = (numbers[0].item(), numbers[-1].item())  # waits for the GPU
            times.append(time.monotonic() - start)
            if found != (expected, expected) or not bool((numbers == expected).all()):
                raise ValueError(f"wrong sum: {found[0]:g} instead of {expected:g}")
    finally:
        distributed.destroy_process_group()
    return sorted(times[1:])[1]  # the first one makes the connections


def _failed(meeting: Meeting, name: str, answers: list[Answer], advice: str) -> Check | None:
    """If it went wrong on any rank: why, and where. Of many reasons the first three."""
    reasons: dict[str, list[int]] = {}
    for answer in answers:
        if answer.error:
            reasons.setdefault(answer.error, []).append(answer.rank)
    if not reasons:
        return None
    # the rarest first: the rank that it goes wrong on, not those that wait for it
    told = sorted(reasons.items(), key=lambda reason: len(reason[1]))[:3]
    value = "; ".join(f"{meeting.names(ranks)}: {error[:150]}" for error, ranks in told)
    return Check(name, "fail", value, advice)
