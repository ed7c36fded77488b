"""The lock of a run directory: one holder, dead ones replaced, by processes that race and die."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from res2net.errors import InputError
from res2net.files import holder as holder_module
from res2net.files import lock as lock_module
from res2net.files.holder import DEAD_AFTER, Holder, from_json, this_process
from res2net.files.lock import Lock, last_holder, living_holder

ELSEWHERE = Holder("node7", 123, started="2026-11-22 22:10:04", boot="b", token="a" * 32)
"""A process of which this machine knows nothing."""


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither a job nor a cluster to ask."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("shutil.which", lambda name: None)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Where the lock of a run belongs; afterwards nothing but it may be there."""
    run = tmp_path / "mine"
    run.mkdir()
    yield run / "lock"
    assert {entry.name for entry in run.iterdir()} <= {"lock"}


def write(path: Path, holder: Holder, *, age: float = 0.0) -> None:
    path.write_text(holder.to_json())
    changed = time.time() - age
    os.utime(path, (changed, changed))


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    start = "import os, sys, time\nfrom pathlib import Path\nfrom res2net.files.lock import Lock\n"
    return subprocess.Popen(
        [sys.executable, "-c", start + textwrap.dedent(code), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


HOLD = """
    lock = Lock(Path(sys.argv[1]))
    lock.acquire()
    print("held", flush=True)
    sys.stdin.read()
"""


# Taking and giving up


def test_one_at_a_time(path: Path) -> None:
    first, second = Lock(path), Lock(path)
    assert living_holder(path) is None and not first.held
    assert first.acquire() is None
    assert first.held and len(path.read_text().splitlines()) == 1
    with pytest.raises(InputError) as refused:
        second.acquire()
    assert not second.held
    now = living_holder(path)
    assert now and (now.pid, now.host) == (os.getpid(), socket.gethostname())
    assert str(refused.value) == (
        f"the run {path.parent} is being trained by {now}: wait for it or end it, or choose "
        f"another run.name; if it is certainly gone, delete {path}"
    )
    second.release()
    assert first.held and path.exists()
    first.release()
    first.release()
    assert not first.held and not path.exists()
    assert second.acquire() is None
    second.release()


def test_it_says_who(path: Path) -> None:
    assert str(ELSEWHERE) == "process 123 on node7, since 2026-11-22 22:10:04 UTC"
    words = "process 123 on node7, SLURM job 77, since 2026-11-22 22:10:04 UTC"
    assert str(replace(ELSEWHERE, job="77")) == words
    assert ELSEWHERE.since == 1795385404  # by `date -u -d '2026-11-22 22:10:04' +%s`
    before = int(time.time())
    since = this_process().since
    assert since is not None and before <= since <= time.time()


def test_no_place_for_it_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Lock(tmp_path / "nowhere" / "lock").acquire()


def test_a_full_disk_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = 0

    def full(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        Lock(path).acquire()
    assert not path.exists()
    # without hard links it is written a second time
    monkeypatch.setattr(os, "link", refuse_links)
    left = 1
    with pytest.raises(OSError, match="No space left"):
        Lock(path).acquire()
    assert left == -1 and not path.exists()


def refuse_links(source: object, destination: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_without_hard_links(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refuse_links)
    first = Lock(path)
    assert first.acquire() is None
    with pytest.raises(InputError, match="is being trained by"):
        Lock(path).acquire()
    first.release()
    write(path, ELSEWHERE, age=DEAD_AFTER + 5)
    second = Lock(path)
    assert second.acquire() == ELSEWHERE
    assert living_holder(path) == last_holder(path) != ELSEWHERE
    second.release()


def test_a_link_whose_answer_was_lost_counts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def twice(source: Path, destination: Path) -> None:
        link(source, destination)
        link(source, destination)

    monkeypatch.setattr(os, "link", twice)
    lock = Lock(path)
    assert lock.acquire() is None and lock.held
    lock.release()


def test_a_forked_child_does_not_hold_it(path: Path) -> None:
    code = """
        lock = Lock(Path(sys.argv[1]))
        lock.acquire()
        if (child := os.fork()) == 0:
            held = lock.held
            lock.release()
            os._exit(int(held))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert lock.held and Path(sys.argv[1]).exists()
        lock.release()
    """
    process = python(code, str(path))
    process.communicate(timeout=60)
    assert process.returncode == 0


# Signs of life, and losing it


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "REFRESH", 0.02)


def wait(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_signs_of_life(path: Path, often: None) -> None:
    lock = Lock(path)
    lock.acquire()
    os.utime(path, (1, 1))
    wait(lambda: path.stat().st_mtime > time.time() - 30)
    assert lock.held and not lock.lost
    lock.release()


@pytest.mark.parametrize("how", ["replaced", "followed", "removed"])
def test_a_holder_that_lost_it_notices_and_leaves_the_other_alone(
    path: Path, often: None, how: str
) -> None:
    lock = Lock(path)
    lock.acquire()
    followed = path.with_name(f".lock.after-{json.loads(path.read_text())['token']}")
    other = path if how == "replaced" else followed
    if how == "removed":
        path.unlink()
    else:
        temporary = path.with_name("new")
        write(temporary, ELSEWHERE)
        temporary.replace(other)
    wait(lambda: lock.lost)
    assert not lock.held
    lock.release()
    if how != "removed":
        assert other.read_text() == ELSEWHERE.to_json()
        assert living_holder(path) == ELSEWHERE
    followed.unlink(missing_ok=True)


def test_release_before_the_loss_is_noticed(path: Path) -> None:
    lock = Lock(path)
    lock.acquire()
    write(path, ELSEWHERE)
    lock.release()
    assert path.read_text() == ELSEWHERE.to_json() and not lock.lost


def test_a_release_is_no_loss(path: Path, often: None, monkeypatch: pytest.MonkeyPatch) -> None:
    look, looked = lock_module._last_claim, threading.Event()

    def released_meanwhile(place: Path) -> object:
        if threading.current_thread().name == "lock" and not looked.is_set():
            looked.set()
            lock.release()
        return look(place)

    monkeypatch.setattr(lock_module, "_last_claim", released_meanwhile)
    lock = Lock(path)
    lock.acquire()
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "lock"]
    thread.join(20)
    assert looked.is_set() and not path.exists() and not lock.lost


# Who is dead


def test_a_killed_process_is_replaced(path: Path) -> None:
    process = python(HOLD, str(path))
    assert process.stdout and process.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=f"is being trained by process {process.pid} on "):
        Lock(path).acquire()
    os.kill(process.pid, signal.SIGSTOP)  # one that stands still is alive, however long
    os.utime(path, (1, 1))
    assert living_holder(path)
    process.kill()
    # not waited for: a zombie is dead, too
    wait(lambda: living_holder(path) is None)
    assert Path(f"/proc/{process.pid}").exists()
    lock = Lock(path)
    replaced = lock.acquire()
    assert replaced and replaced.pid == process.pid
    lock.release()
    process.communicate()


def of_this_machine(**changes: object) -> Holder:
    return replace(this_process(), **changes)  # type: ignore[arg-type]


@pytest.fixture
def gone() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_process_ids_mean_something_on_this_boot_and_in_this_container_only(
    path: Path, gone: int
) -> None:
    def alive(age: float = 0.0, **changes: object) -> bool:
        write(path, of_this_machine(**changes), age=age)
        return living_holder(path) is not None

    assert alive() and alive(age=10 * DEAD_AFTER)
    assert not alive(pid=gone)
    assert not alive(born="1")  # the id was used again
    assert alive(pid=gone, pid_namespace="pid:[1]")
    assert not alive(pid_namespace="pid:[1]", age=DEAD_AFTER + 5)
    assert alive(pid=gone, host="node7")
    assert not alive(host="node7", age=DEAD_AFTER + 5)
    path.unlink()


def test_a_boot_since_the_last_sign_of_life(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, of_this_machine(boot="before"), age=100)
    monkeypatch.setattr(holder_module, "_uptime", lambda: 50.0)
    assert living_holder(path) is None
    # another machine of the same name: it gave a sign of life while this one was up
    monkeypatch.setattr(holder_module, "_uptime", lambda: 1000.0)
    assert living_holder(path)
    write(path, of_this_machine(boot="before"), age=DEAD_AFTER + 5)
    assert living_holder(path) is None
    assert 0 < holder_module._uptime() < float("inf")
    path.unlink()


def test_hidden_processes_of_others(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, of_this_machine(pid=1, born="7"))
    monkeypatch.setattr(holder_module, "_process", lambda pid: None)
    assert living_holder(path)
    path.unlink()


def test_the_clock_is_the_file_systems(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, ELSEWHERE)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    assert living_holder(path) == ELSEWHERE
    path.unlink()


@pytest.mark.parametrize("content", [b"", b"\x00" * 40, b'{"host": "node7"', b"[1, 2]", b"7"])
def test_a_lock_that_is_cut_off(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(InputError, match="by an unknown process"):
        Lock(path).acquire()
    os.utime(path, (1, 1))
    lock = Lock(path)
    replaced = lock.acquire()
    assert replaced and not replaced.host
    lock.release()


def test_what_is_no_claim() -> None:
    good = json.loads(ELSEWHERE.to_json())
    assert from_json(json.dumps(good | {"new": 1}).encode()) == ELSEWHERE
    for bad in ({"pid": "7"}, {"pid": True}, {"pid": -1}, {"token": "../x"}, {"host": ""}):
        assert from_json(json.dumps(good | bad).encode()) is None


# SLURM


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Makes a `scontrol` that gives this answer."""
    monkeypatch.undo()
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    programs = tmp_path / "bin"
    programs.mkdir()

    def answer(text: str, code: int = 0) -> None:
        place = "&2" if code else "&1"
        script = programs / "scontrol"
        script.write_text(f"#!/bin/sh\n[ \"$4\" = 77 ] && echo '{text}' >{place}\nexit {code}\n")
        script.chmod(0o755)

    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return answer


def test_the_same_job_started_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, replace(ELSEWHERE, job="77", restart=1))
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    for count, alive in (("", True), ("1", True), ("2", False)):
        monkeypatch.setenv("SLURM_RESTART_COUNT", count)
        assert (living_holder(path) is not None) == alive
    assert this_process().job == "77" and this_process().restart == 2
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    assert living_holder(path)
    path.unlink()


@pytest.mark.parametrize(
    ("state", "dead"),
    [
        ("RUNNING Reason=None Restarts=1", False),
        ("RUNNING Reason=None Restarts=2", True),
        ("COMPLETING Reason=None Restarts=1", False),
        ("PENDING Reason=BeginTime Restarts=1", True),
        ("CANCELLED Reason=None Restarts=1", True),
        ("TIMEOUT Reason=TimeLimit Restarts=1", True),
    ],
)
def test_slurm_is_asked(
    path: Path,
    scontrol: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    state: str,
    dead: bool,
) -> None:
    other = "JobId=78 ArrayJobId=77 JobName=x JobState=COMPLETED Restarts=9"
    scontrol(f"{other}\nJobId=77 ArrayJobId=77 JobName=x JobState={state} RunTime=00:01:00")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "big")
    holder = replace(ELSEWHERE, job="77", restart=1, cluster="big")
    write(path, holder)
    assert (living_holder(path) is None) == dead
    # of another cluster, where 77 is another job
    write(path, replace(holder, cluster="small"), age=90)
    assert living_holder(path)
    # which cluster this is, is not known: a fresh sign of life counts for more
    monkeypatch.delenv("SLURM_CLUSTER_NAME")
    write(path, holder)
    assert living_holder(path)
    write(path, holder, age=90)
    assert (living_holder(path) is None) == dead
    path.unlink()


def test_a_suspended_job_is_alive(path: Path, scontrol: Callable[[str], None]) -> None:
    scontrol("JobId=77 JobState=SUSPENDED Reason=None Restarts=0")
    write(path, replace(ELSEWHERE, job="77"), age=DEAD_AFTER + 5)
    assert living_holder(path)
    path.unlink()


def test_slurm_that_does_not_know_or_does_not_answer(
    path: Path, scontrol: Callable[[str, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(path, replace(ELSEWHERE, job="77"), age=90)
    scontrol("slurm_load_jobs error: Invalid job id specified", 1)
    assert living_holder(path) is None
    scontrol("slurm_load_jobs error: Unable to contact slurm controller", 1)
    assert living_holder(path)
    scontrol("nothing that can be read", 0)
    assert living_holder(path)
    monkeypatch.setattr("res2net.files.slurm.TIMEOUT", 0.2)
    scontrol("'; exec sleep 5; echo '", 0)
    begun = time.monotonic()
    assert living_holder(path)
    assert time.monotonic() - begun < 3
    path.unlink()


# Chains and races


def test_one_killed_while_taking_over(path: Path) -> None:
    """The claim that followed the first one counts, whether its holder lives or not."""
    write(path, ELSEWHERE, age=DEAD_AFTER + 5)
    second = path.with_name(f".lock.after-{ELSEWHERE.token}")
    claim = replace(ELSEWHERE, host="node8", token="b" * 32)
    write(second, claim)
    assert living_holder(path) == claim
    with pytest.raises(InputError, match="process 123 on node8"):
        Lock(path).acquire()
    write(second, claim, age=DEAD_AFTER + 5)
    lock = Lock(path)
    assert lock.acquire() == claim
    assert json.loads(path.read_text())["pid"] == os.getpid() and not second.exists()
    lock.release()


@pytest.mark.parametrize("ended", [False, True])
def test_another_took_over_while_this_one_was_looking(
    path: Path, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    write(path, ELSEWHERE, age=DEAD_AFTER + 5)
    look = lock_module._is_dead
    other = Lock(path)

    def slowly(claim: lock_module._Claim, lock: Path) -> bool:
        monkeypatch.setattr(lock_module, "_is_dead", look)
        dead = look(claim, lock)
        assert other.acquire() == ELSEWHERE
        if ended:
            other.release()
        return dead

    monkeypatch.setattr(lock_module, "_is_dead", slowly)
    mine = Lock(path)
    if ended:
        assert mine.acquire() is None and mine.held
        mine.release()
    else:
        with pytest.raises(InputError, match=f"process {os.getpid()} on"):
            mine.acquire()
        assert other.held and living_holder(path)
        other.release()


RACE = """
    lock = Lock(Path(sys.argv[1]))
    print("ready", flush=True)
    for start in sys.stdin:  # a round each
        while time.time() < float(start):
            pass
        try:
            print("won" if lock.acquire() is None else "replaced", flush=True)
        except ValueError:
            print("lost", flush=True)
        sys.stdin.readline()
        lock.release()
        print("released", flush=True)
"""


@pytest.mark.parametrize("links", [True, False])
def test_of_many_who_race_one_wins(path: Path, links: bool) -> None:
    without = "" if links else "import errno\ndef no(*_): raise OSError(errno.EPERM, 'no')\n"
    without += "" if links else "os.link = no\n"
    racers = [python(without + textwrap.dedent(RACE), str(path)) for _ in range(8)]
    try:
        for racer in racers:
            assert racer.stdout and racer.stdout.readline() == "ready\n"
        for turn in range(12):
            dead = turn % 3 > 0
            if dead:
                write(path, replace(ELSEWHERE, token=f"{turn:032x}"), age=DEAD_AFTER + 5)
            start = f"{time.time() + 0.03}\n"
            said = [told(racer, start) for racer in racers]
            found = [racer.stdout.readline().strip() for racer in racers if racer.stdout]
            assert len(said) == 8
            assert sorted(found) == ["lost"] * 7 + ["replaced" if dead else "won"], turn
            winner = racers[found.index("replaced" if dead else "won")]
            holder = living_holder(path)
            assert holder and holder.pid == winner.pid
            for racer in racers:
                told(racer, "\n")
            for racer in racers:
                assert racer.stdout and racer.stdout.readline() == "released\n"
            assert not path.exists()
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()


def told(racer: subprocess.Popen[str], line: str) -> None:
    assert racer.stdin
    racer.stdin.write(line)
    racer.stdin.flush()


KILLS = """
    import fcntl, random, signal
    from res2net.errors import InputError
    path, witness, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

    def child(number):
        lock, chance = Lock(path), random.Random(number)
        while True:
            try:
                lock.acquire()
                break
            except InputError:
                time.sleep(chance.random() / 1000)
        # the kernel gives this one back before it makes a zombie of who held it
        file = open(witness)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os._exit(3)
        time.sleep(chance.random() / 500)
        if number % 2:
            os.kill(os.getpid(), signal.SIGKILL)
        file.close()
        lock.release()
        os._exit(0)

    codes, running = [], 0
    for number in range(count):
        if os.fork() == 0:
            child(number)
        running += 1
        while running >= (8 if number < count - 1 else 1):
            codes.append(os.waitstatus_to_exitcode(os.wait()[1]))
            running -= 1
    print(codes.count(0), codes.count(-9), codes.count(3))
"""


def test_never_two_at_once_however_they_end(path: Path, tmp_path: Path) -> None:
    """Every second holder is killed; the kernel's own lock tells whether there were ever two."""
    witness = tmp_path / "witness"
    witness.touch()
    process = python(KILLS, str(path), str(witness), "100")
    out, _ = process.communicate(timeout=120)
    assert out.split() == ["50", "50", "0"]
