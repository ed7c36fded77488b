"""The log on the disk: its rows, and that a resume leaves those of a run that was never killed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from disks import SmallDisk
from res2net.callbacks.metrics_csv import HEADER, MetricsCSV
from res2net.errors import WorkError


@pytest.fixture(autouse=True)
def rank_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def rows(tmp_path: Path) -> MetricsCSV:
    return MetricsCSV(tmp_path / "metrics.csv")


def test_a_row_a_value_with_all_digits(rows: MetricsCSV) -> None:
    rows.start()
    rows.log_metrics({"train/loss": 0.1 + 0.2, "train/lr": 1e-05, "epoch": 3.0}, step=17)
    rows.log_metrics({"val_ema/top1": 1.0, "epoch": 4}, step=20)
    assert rows.path.read_text() == (
        "step,epoch,split,key,value\n"
        "17,3,train,loss,0.30000000000000004\n"
        "17,3,train,lr,1e-05\n"
        "20,4,val_ema,top1,1.0\n"
    )


def test_rows_are_in_the_file_at_once_and_the_metrics_stay_as_they_are(rows: MetricsCSV) -> None:
    rows.start()
    metrics = {"train/loss": 0.5, "epoch": 0}
    for step in range(3):
        rows.log_metrics(metrics, step)
        assert len(rows.path.read_text().splitlines()) == step + 2
    assert metrics == {"train/loss": 0.5, "epoch": 0}


def test_start_empties_the_file(rows: MetricsCSV) -> None:
    rows.path.write_text("old\n")
    rows.start()
    assert rows.path.read_text() == "step,epoch,split,key,value\n"


def write(rows: MetricsCSV, steps: range) -> None:
    for step in steps:
        rows.log_metrics({"train/loss": step / 7, "epoch": step // 10}, step)


@pytest.mark.parametrize("torn", ["", "12,1,tra"])
def test_a_resume_cuts_what_came_after_the_checkpoint(rows: MetricsCSV, torn: str) -> None:
    rows.start()
    write(rows, range(12))
    whole = rows.path.read_bytes()
    rows.path.unlink()

    rows.start()
    write(rows, range(8))
    states = [rows.resume_state(), {}]
    assert states[0] == {"bytes": rows.path.stat().st_size, "pending": ""}
    write(rows, range(8, 11))
    with rows.path.open("a") as file:
        file.write(torn)  # killed within a row
    again = MetricsCSV(rows.path)
    again.load_resume_state(states, 0)
    write(again, range(8, 12))
    assert rows.path.read_bytes() == whole
    # cut into other ranks, it is the same file
    again.load_resume_state(states, None)
    assert rows.path.stat().st_size == states[0]["bytes"]


def test_a_file_shorter_than_stored_is_set_aside(
    rows: MetricsCSV, capsys: pytest.CaptureFixture[str]
) -> None:
    rows.start()
    write(rows, range(3))
    before = rows.path.read_bytes()
    rows.load_resume_state([{"bytes": len(before) + 1000}], 0)
    assert rows.path.with_name("metrics.damaged.csv").read_bytes() == before
    assert rows.path.read_text() == "step,epoch,split,key,value\n"
    assert "lacks rows: kept as metrics.damaged.csv" in capsys.readouterr().err


def test_in_a_new_directory_a_file_begins(rows: MetricsCSV) -> None:
    rows.load_resume_state([{"bytes": 1000}], 0)
    assert rows.path.read_text() == "step,epoch,split,key,value\n"


def test_other_ranks_do_not_touch_the_file(
    rows: MetricsCSV, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows.start()
    write(rows, range(3))
    before = rows.path.read_bytes()
    monkeypatch.setenv("RANK", "1")
    assert rows.resume_state() == {}
    rows.load_resume_state([{"bytes": 10}], 1)
    assert rows.path.read_bytes() == before
    rows.path.unlink()
    rows.load_resume_state([{"bytes": 10}], 1)
    assert not rows.path.exists()


# A disk that is full for a while

Mount = Callable[[float], SmallDisk]
STEPS = 400  # 11 kB of rows: more than the page that a full disk still has


def undisturbed(folder: Path) -> bytes:
    rows = MetricsCSV(folder / "undisturbed.csv")
    rows.start()
    write(rows, range(STEPS))
    return rows.path.read_bytes()


def test_after_a_full_disk_the_file_is_the_same(small_disk: Mount, tmp_path: Path) -> None:
    disk = small_disk(1)
    rows = MetricsCSV(disk.path / "metrics.csv")
    rows.start()
    write(rows, range(50))
    disk.fill()
    write(rows, range(50, 350))
    on_disk = rows.path.read_bytes()
    assert on_disk.count(b"\n") < 300
    assert on_disk.endswith(b"\n")
    with pytest.raises(WorkError, match=r"lacks \d+ rows.*run\.resume=auto"):
        rows.complete()
    disk.free()
    write(rows, range(350, STEPS))
    rows.complete()
    assert rows.path.read_bytes() == undisturbed(tmp_path)


@pytest.mark.parametrize("begin", [True, False], ids=["full from the start", "full later"])
def test_a_checkpoint_keeps_the_rows_that_the_disk_did_not_take(
    small_disk: Mount, tmp_path: Path, begin: bool
) -> None:
    disk = small_disk(1)
    rows = MetricsCSV(disk.path / "metrics.csv")
    if begin:
        disk.fill()
    rows.start()
    write(rows, range(50))
    disk.fill()
    write(rows, range(50, 300))
    state = rows.resume_state()
    on_disk = rows.path.read_bytes() if rows.path.exists() else b""
    assert state["pending"]
    assert state["bytes"] == len(on_disk)
    kept = on_disk + state["pending"].encode()
    assert kept.count(b"\n") == 301
    assert undisturbed(tmp_path).startswith(kept)
    write(rows, range(300, 310))  # and it is killed

    again = MetricsCSV(rows.path)  # while the disk is still full
    again.load_resume_state([state], 0)
    write(again, range(300, 330))
    disk.free()
    write(again, range(330, 340))  # written by now, and killed once more
    once_more = MetricsCSV(rows.path)
    once_more.load_resume_state([state], 0)
    write(once_more, range(300, STEPS))
    assert rows.path.read_bytes() == undisturbed(tmp_path)


def test_a_state_is_given_on_a_read_only_disk(small_disk: Mount) -> None:
    disk = small_disk(1)
    rows = MetricsCSV(disk.path / "metrics.csv")
    rows.start()
    disk.read_only()
    write(rows, range(2))
    row = "0,0,train,loss,0.0\n1,0,train,loss,0.14285714285714285\n"
    assert rows.resume_state() == {"bytes": len(HEADER), "pending": row}
    disk.read_only(False)
    assert rows.resume_state() == {"bytes": len(HEADER + row), "pending": ""}


def test_a_state_of_an_older_version_has_no_waiting_rows(rows: MetricsCSV) -> None:
    rows.start()
    write(rows, range(3))
    rows.load_resume_state([{"bytes": len(HEADER)}], 0)
    assert rows.path.read_text() == HEADER


def test_rows_of_a_run_whose_file_was_never_made(small_disk: Mount, tmp_path: Path) -> None:
    disk = small_disk(1)
    disk.read_only()
    rows = MetricsCSV(disk.path / "metrics.csv")
    rows.start()
    write(rows, range(100))
    state = rows.resume_state()
    assert state["bytes"] == 0
    assert not rows.path.exists()
    disk.read_only(False)
    again = MetricsCSV(rows.path)
    again.load_resume_state([state], 0)
    write(again, range(100, STEPS))
    assert rows.path.read_bytes() == undisturbed(tmp_path)
