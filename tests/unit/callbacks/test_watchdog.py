"""Processes that stand still for real, in Python, in C and under Python's lock; and such as do not.

Each case is a process, or two: what is watched for is how they end.
"""

import ctypes
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch

import ranks
from res2net.callbacks import watchdog
from res2net.callbacks.watchdog import Watchdog
from res2net.files.runs import RunDirectory

MINUTES = 0.02
LONG = 30


def begin(
    rank: int, folder: Path, *, world_size: int = 1, minutes: float = MINUTES
) -> tuple[Watchdog, SimpleNamespace]:
    """In a new process: what it says goes to a file; it watches itself from step 5 on."""
    log = os.open(folder / f"stderr-{rank}", os.O_CREAT | os.O_WRONLY)
    os.dup2(log, 2)
    watchdog.GRACE = watchdog.BACKSTOP = 1.0
    watchdog.RANK_ZERO_FIRST = 2.0
    trainer = SimpleNamespace(global_step=5, global_rank=rank, world_size=world_size)

    def leave(requeue: bool) -> None:
        (folder / f"left-{rank}").write_text(str(requeue))

    dog = Watchdog(RunDirectory(folder), minutes=minutes, leave=leave)
    dog.setup(trainer, None, "fit")
    dog.on_train_start(trainer, None)
    return dog, trainer


def step(dog: Watchdog, trainer: SimpleNamespace) -> None:
    dog.on_train_batch_start(trainer, None, None, 0)
    trainer.global_step += 1
    dog.on_train_batch_end(trainer, None, None, None, 0)


def stand_still_in_python() -> None:
    time.sleep(LONG)


def stand_still_in_c() -> None:
    ctypes.CDLL(None).sleep(LONG)


def stand_still_with_the_lock() -> None:
    ctypes.PyDLL(None).sleep(LONG)


def stall(rank: int, folder: Path, steps: int, how: Callable[[], None], minutes: float) -> None:
    dog, trainer = begin(rank, folder, minutes=minutes)
    for _ in range(steps):
        step(dog, trainer)
    how()


def read(folder: Path, name: str) -> str:
    file = folder / name
    return file.read_text() if file.exists() else ""


# --- It stands still -----------------------------------------------------------------------------


@pytest.mark.parametrize("how", [stand_still_in_python, stand_still_in_c])
def test_stacks_then_leave_then_exit(tmp_path, how):
    ranks.call(stall, tmp_path, 3, how, MINUTES, ranks=1, exit_code=75)
    assert read(tmp_path, "left-0") == "True"
    written = read(tmp_path, "stalled-rank0.txt")
    head = written.splitlines()[0]
    assert f"host {os.uname().nodename}, pid " in head
    assert re.search(r"rank 0, .*, step 8: no progress for [1-9]\d* s$", head)
    assert how.__name__ in written
    assert "(most recent call first)" in written
    (line,) = read(tmp_path, "stderr-0").splitlines()
    assert "no progress for 0.02 minutes at step 8" in line
    assert "exit code 75" in line

    ranks.call(stall, tmp_path, 3, how, MINUTES, ranks=1, exit_code=75)
    again = read(tmp_path, "stalled-rank0.txt")
    assert again.startswith(written)
    assert again.count("no progress for") == 2


def test_without_a_step_it_is_not_requeued(tmp_path):
    ranks.call(stall, tmp_path, 0, stand_still_in_python, MINUTES, ranks=1, exit_code=1)
    assert read(tmp_path, "left-0") == "False"
    assert "exit code 1" in read(tmp_path, "stderr-0")


def test_a_call_that_keeps_pythons_lock(tmp_path):
    ranks.call(stall, tmp_path, 3, stand_still_with_the_lock, MINUTES, ranks=1, exit_code=1)
    said = read(tmp_path, "stderr-0")
    assert said.startswith("Timeout (")
    assert "stand_still_with_the_lock" in said
    assert not read(tmp_path, "left-0")


def hanging_files(rank: int, folder: Path) -> None:
    """The disk stands still, and so does what is done on leaving."""
    watchdog.PATIENCE = watchdog.LEAVE = 0.2
    dog, trainer = begin(rank, folder)
    step(dog, trainer)
    dog._dump = lambda *_: time.sleep(LONG)  # type: ignore[method-assign]
    dog.leave = lambda _: time.sleep(LONG)
    time.sleep(LONG)


def test_files_that_hang_do_not_keep_it(tmp_path):
    ranks.call(hanging_files, tmp_path, ranks=1, exit_code=75)


def test_a_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "stalled-rank0.txt").mkdir()
    ranks.call(stall, tmp_path, 3, stand_still_in_python, MINUTES, ranks=1, exit_code=75)
    assert "stand_still_in_python" in read(tmp_path, "stderr-0")


def only_one_stalls(rank: int, folder: Path) -> None:
    """Rank 1 stands still; rank 0 is in a long validation."""
    dog, trainer = begin(rank, folder, world_size=2)
    step(dog, trainer)
    while rank == 0:
        dog.on_validation_batch_end(trainer, None, None, None, 0)
        time.sleep(0.01)
    time.sleep(LONG)


def test_the_others_hear_of_it_and_rank_0_leaves_first(tmp_path):
    (tmp_path / "stalled-rank1.txt").write_text("an earlier stall\n")
    ranks.call(only_one_stalls, tmp_path, exit_code=75)
    head = read(tmp_path, "stalled-rank1.txt").splitlines()[1]
    assert "rank 1, " in head and "because" not in head, "the earlier stall is no news"
    assert "because stalled-rank1.txt grew" in read(tmp_path, "stalled-rank0.txt")
    assert "in only_one_stalls" in read(tmp_path, "stalled-rank0.txt")
    assert (read(tmp_path, "left-0"), read(tmp_path, "left-1")) == ("True", "")
    assert len(read(tmp_path, "stderr-0").splitlines()) == 1
    assert not read(tmp_path, "stderr-1")


def fails_while_leaving(rank: int, folder: Path) -> None:
    """As where another rank has gone: the call that stood still comes back with an error."""
    dog, trainer = begin(rank, folder)
    step(dog, trainer)
    while not (folder / "stalled-rank0.txt").exists():
        time.sleep(0.01)
    dog.on_exception(trainer, None, RuntimeError())
    os._exit(3)


def test_what_was_decided_holds(tmp_path):
    ranks.call(fails_while_leaving, tmp_path, ranks=1, exit_code=75)
    assert read(tmp_path, "left-0") == "True"


# --- It does not ---------------------------------------------------------------------------------


def nothing_ends_it(rank: int, folder: Path) -> None:
    """Its main function returns while the watchdog watches."""
    begin(rank, folder, minutes=0.1)


def test_the_thread_keeps_no_process_alive(tmp_path):
    ranks.call(nothing_ends_it, tmp_path, ranks=1)  # 1 if it had to be ended by the watchdog
    assert not read(tmp_path, "left-0")


def slow_but_alive(rank: int, folder: Path) -> None:
    before = threading.active_count()
    dog, trainer = begin(rank, folder, world_size=2, minutes=2 * MINUTES)
    for hook in (
        dog.on_validation_batch_end,
        dog.on_validation_batch_start,
        dog.on_save_checkpoint,
        dog.on_train_batch_end,
    ):
        time.sleep(0.8)
        hook(trainer, None)
    assert threading.active_count() == before + 2
    dog.teardown(trainer, None, "fit")
    time.sleep(4)  # longer than it would wait, the backstop too
    assert threading.active_count() == before


def test_any_hook_is_progress_and_the_end_ends_it(tmp_path):
    ranks.call(slow_but_alive, tmp_path, ranks=1)
    assert not read(tmp_path, "stderr-0")
    assert not list(tmp_path.glob("stalled*"))


def fails(rank: int, folder: Path) -> None:
    dog, trainer = begin(rank, folder)
    dog.on_exception(trainer, None, RuntimeError())
    time.sleep(2.5)


def test_an_exception_ends_it(tmp_path):
    ranks.call(fails, tmp_path, ranks=1)


def off(rank: int, folder: Path) -> None:
    before = threading.active_count()
    dog, trainer = begin(rank, folder, minutes=0)
    assert threading.active_count() == before
    dog.teardown(trainer, None, "fit")


def test_off(tmp_path):
    ranks.call(off, tmp_path, ranks=1)


def suspended(rank: int, folder: Path) -> None:
    """Only the time in which the watching thread runs counts; its clock says what it wants."""
    clock, real = [0.0], time.monotonic
    watchdog.time = SimpleNamespace(monotonic=lambda: real() + clock[0], sleep=time.sleep)
    dog, trainer = begin(rank, folder, minutes=0.1)
    step(dog, trainer)
    time.sleep(0.5)
    clock[0] += 3600
    time.sleep(3)
    step(dog, trainer)
    dog.teardown(trainer, None, "fit")


def test_a_suspended_process_has_not_stalled(tmp_path):
    ranks.call(suspended, tmp_path, ranks=1)


# --- In a Trainer --------------------------------------------------------------------------------


class Slow(L.LightningModule):
    """A validation longer than the watchdog's patience, and a step that never ends."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        if self.global_step == 2:
            time.sleep(LONG)
        return self.layer(batch).sum()

    def validation_step(self, batch, batch_idx):
        time.sleep(0.6)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(rank: int, folder: Path, steps: int) -> None:
    dog, _ = begin(rank, folder, minutes=0)
    dog.seconds = 120 * MINUTES
    before = threading.active_count()
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        val_check_interval=2,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[dog],
    )
    trainer.fit(Slow(), torch.zeros(4, 1), torch.zeros(6, 1))
    assert threading.active_count() == before


@pytest.mark.parametrize(("steps", "code"), [(2, 0), (3, 75)])
def test_in_a_trainer(tmp_path, steps, code):
    ranks.call(fit, tmp_path, steps, ranks=1, exit_code=code)
    assert read(tmp_path, "left-0") == ("True" if code else "")
    assert ("in training_step" in read(tmp_path, "stalled-rank0.txt")) == bool(code)
