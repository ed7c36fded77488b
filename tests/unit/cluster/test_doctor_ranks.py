"""Ranks that look at each other, one of which differs, lags or dies: real processes, real sockets.

The same between nodes of SLURM: tests/cluster/test_doctor.py.
"""

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import ranks
from res2net.cluster.doctor import Check, meeting, packages, together
from res2net.cluster.doctor.launched import Launched, first_node, launched
from res2net.cluster.doctor.meeting import Meeting, MeetingError

WORLD = 3


def nothing(rank: int) -> None:
    pass


def old_torch(rank: int) -> None:
    if rank == 1:
        versions = packages.versions()
        packages.versions = lambda: versions | {"torch": "1.0"}


def fast_clock(rank: int) -> None:
    if rank == 2:
        clock = time.time
        together.time = type(
            "time",
            (),
            {"time": lambda: clock() + 7, "monotonic": time.monotonic, "sleep": time.sleep},
        )


def own_folder(rank: int) -> None:
    together.SEEN_WITHIN = 0.3
    if rank == 1:
        read = Path.read_text

        def blind(path: Path, *arguments: object, **options: object) -> str:
            if path.name.startswith(".doctor-"):
                raise FileNotFoundError(path)
            return read(path, *arguments, **options)

        Path.read_text = blind  # type: ignore[assignment, method-assign]


def wrong_sum(rank: int) -> None:
    from torch import distributed

    distributed.all_reduce = lambda numbers: numbers.fill_(5)


def broken_gloo(rank: int) -> None:
    meeting.WAIT = 6.0
    if rank == 2:

        def broken(*arguments: object) -> float:
            raise RuntimeError("no interface")

        together._reduce = broken  # type: ignore[assignment]


def dies(rank: int) -> None:
    meeting.WAIT = 3.0
    if rank == 1:
        together._versions = lambda meeting: os._exit(0)  # type: ignore[assignment]


def dies_in_gloo(rank: int) -> None:
    meeting.WAIT = 3.0
    if rank == 1:
        together._reduce = lambda *_: os._exit(0)  # type: ignore[assignment]


def other_job(rank: int) -> None:
    os.environ["SLURM_JOB_NODELIST"] = "n[1-3]" if rank else "n[1-2]"


def look(rank: int, folder: Path, port: int, prepare: Callable[[int], None]) -> None:
    prepare(rank)
    own = [Check("disk", "fail" if rank else "ok", "full" if rank else "", "make room")]
    findings: list[Check] = []
    try:
        met = Meeting(Launched(rank, WORLD, f"host{rank}", "127.0.0.1", port))
        for check in together.examine(met, own, folder):
            findings.append(check)
    except MeetingError as error:
        findings.append(Check("meeting", "fail", str(error), error.advice))
    lines = [[check.name, check.status, check.value] for check in findings]
    (folder / f"found-{rank}").write_text(json.dumps(lines))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def found(
    folder: Path, prepare: Callable[[int], None], *, alone: str = ""
) -> dict[str, tuple[str, str]]:
    """What rank 0 found, by name; the others find nothing."""
    ranks.call(look, folder, free_port(), prepare, ranks=WORLD)
    for rank in range(1, WORLD):
        file = folder / f"found-{rank}"
        if not alone:
            assert json.loads(file.read_text()) == []
    lines = json.loads((folder / "found-0").read_text())
    return {name: (status, value) for name, status, value in lines}


def test_all_is_well_but_two_disks(tmp_path):
    checks = found(tmp_path, nothing)
    assert checks.pop("disk") == ("fail", "rank 1 (host1), rank 2 (host2): full")
    assert {status for status, _ in checks.values()} == {"ok"}
    assert checks["ranks"][1] == "3 ranks on 3 hosts (host0: 1, host1: 1, host2: 1)"
    assert float(checks["clocks"][1].split()[2]) < 500
    assert "16 MiB" in checks["gloo"][1]
    assert "nccl" not in checks
    assert not list(tmp_path.glob(".doctor*"))


@pytest.mark.parametrize(
    ("prepare", "name", "status", "words"),
    [
        (old_torch, "versions", "fail", "1.0 on rank 1 (host1)"),
        (fast_clock, "clocks", "warn", "rank 2 (host2) is +7.0 s from rank 0"),
        (own_folder, "shared folder", "fail", "rank 1 (host1): does not see within 0 s"),
        (wrong_sum, "gloo", "fail", "wrong sum: 5 instead of 6"),
        (broken_gloo, "gloo", "fail", "rank 2 (host2): no interface"),
        (other_job, "ranks", "fail", "host list or MASTER_ADDR on rank 1 (host1), rank 2 (host2)"),
    ],
)
def test_one_thing_is_wrong(tmp_path, prepare, name, status, words):
    checks = found(tmp_path, prepare)
    assert checks[name][0] == status
    assert words in checks[name][1]
    others = {other: what for other, (what, _) in checks.items() if other not in (name, "disk")}
    assert set(others.values()) == {"ok"}


@pytest.mark.parametrize(("prepare", "where"), [(dies, "versions"), (dies_in_gloo, "gloo")])
def test_a_rank_dies(tmp_path, prepare, where):
    start = time.monotonic()
    checks = found(tmp_path, prepare, alone="rank 0")
    assert time.monotonic() - start < 25
    status, value = checks["meeting"]
    assert status == "fail"
    assert "2 of 3 ranks answered at 127.0.0.1:" in value
    assert value.endswith(f"within 3 s ({where}); not rank 1 (host1)")


def only_two(rank: int, folder: Path, port: int) -> None:
    look(rank, folder, port, dies)


def test_a_rank_never_comes(tmp_path):
    ranks.call(only_two, tmp_path, free_port(), ranks=1)
    ((name, _, value),) = json.loads((tmp_path / "found-0").read_text())
    assert name == "meeting"
    assert value.startswith("1 of 3 ranks answered at 127.0.0.1:")
    assert value.endswith("within 3 s (host); not rank 1, rank 2")


def without_rank_zero(rank: int, folder: Path, port: int) -> None:
    meeting.WAIT = 1.0
    look(2, folder, port, nothing)


def test_rank_0_never_comes(tmp_path):
    port = free_port()
    ranks.call(without_rank_zero, tmp_path, port, ranks=1)
    ((_, _, value),) = json.loads((tmp_path / "found-2").read_text())
    assert value.startswith(f"127.0.0.1:{port}: nobody answers (1 s)")
    assert "\n" not in value


# --- Who this process is -------------------------------------------------------------------------


def test_who_this_is(monkeypatch, tmp_path):
    for name in [*os.environ]:
        if name.startswith(("SLURM", "MASTER_", "LOCAL_", "RANK", "WORLD_SIZE")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (launched().rank, launched().world_size) == (0, 1)
    for name, value in {
        "SLURM_JOB_ID": "1234567",
        "SLURM_NTASKS": "4",
        "SLURM_PROCID": "3",
        "SLURM_JOB_NODELIST": "n[07-09,12],m1",
        "SLURMD_NODENAME": "n09",
    }.items():
        monkeypatch.setenv(name, value)
    assert launched().world_size == 1, "a batch script is one process"
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert launched() == Launched(3, 4, "n09", "n07", 29567)
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    assert launched().address == "10.0.0.1"


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("n1", "n1"), ("a,b", "a"), ("n[07-09,12],m1", "n07"), ("r[1-2]n[3-4]", "r1n3")],
)
def test_the_first_node(monkeypatch, tmp_path, nodes, first):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert first_node(nodes) == first
