"""Files of a run that are cut off, changed or not writable: one line, and nothing more lost."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from disks import SmallDisk
from res2net.cli.main import main
from res2net.files.runs import RunDirectory
from res2net.training.classifier import ImageClassifier
from runs import differences, read_state, rows
from schemas import fits

pytestmark = pytest.mark.usefixtures("undrawn")

SETTINGS = (
    "quickstart",
    "trainer.max_epochs=1",
    "data.global_batch_size=96",
    "augment.mixup=0.4",
    "optim.ema_decay=0.9",
    "checkpoint.every_steps=4",
    "logging.every_steps=3",
)
STEPS = 14
GARBAGE = bytes(range(128, 256)) * 4


def train(name: str) -> int:
    return main(["train", *SETTINGS, f"run.name={name}", "run.resume=auto"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the runs `whole`, and `stopped` after step 9."""
    folder = tmp_path_factory.mktemp("runs")
    step = ImageClassifier.training_step

    def stop(self: ImageClassifier, batch: object, batch_idx: int) -> object:
        if self.trainer.global_step == 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, batch_idx)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert train("whole") == 0
        patch.setattr(ImageClassifier, "training_step", stop)
        assert train("stopped") == 75
    return folder / "checkpoints"


@pytest.fixture
def copy(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], RunDirectory]:
    """One of the two, to be damaged; the working directory is where its name means it."""
    monkeypatch.chdir(tmp_path)

    def copy(name: str) -> RunDirectory:
        run = RunDirectory(Path("checkpoints") / name)
        shutil.copytree(folder / name, run.path)
        return run

    return copy


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def check_end(folder: Path, run: RunDirectory) -> None:
    """As if nothing had happened."""
    whole = folder / "whole"
    for name in ("last.ckpt", "best.ckpt"):
        assert differences(read_state(whole / name), read_state(run.path / name)) == []
    assert rows(whole) == rows(run.path)
    summaries = json.loads((whole / "summary.json").read_text()), run.read_summary()
    for key in (*(key for key in summaries[0] if "/" in key), "status", "best", "steps"):
        assert summaries[0][key] == summaries[1][key], key


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


# Checkpoints


def damages(whole: bytes) -> list[tuple[str, bytes]]:
    """Cut at 50 lengths, and 50 bits flipped anywhere and 50 in the table of contents."""
    chance = np.random.default_rng(6)
    lengths = chance.integers(0, len(whole), 50)
    found = [(f"cut to {length}", whole[:length]) for length in lengths]
    table = whole.index(b"PK\x01\x02")
    for first in (0, table):
        for place in chance.integers(first, len(whole), 50).tolist():
            bit = int(chance.integers(8))
            flipped = bytearray(whole)
            flipped[place] ^= 1 << bit
            found.append((f"bit {bit} of byte {place}", bytes(flipped)))
    return found


def test_a_checkpoint_cut_or_changed_anywhere(copy: Callable[[str], RunDirectory]) -> None:
    run = copy("stopped")
    state = torch.load(run.last, weights_only=True)
    assert (state["global_step"], read_state(run.previous)["global_step"]) == (9, 8)
    passed_over = 0
    all_damages = damages(run.last.read_bytes())
    for what, content in all_damages:
        run.last.write_bytes(content)
        chosen, message = run.newest_checkpoint()
        if chosen == run.previous:
            assert message == f"{run.last} is damaged: going on from previous.ckpt"
            passed_over += 1
        else:  # it hit the words before the checksum
            assert (chosen, message) == (run.last, ""), what
            assert differences(state, torch.load(run.last, weights_only=True)) == [], what
    assert passed_over >= len(all_damages) - 3


def test_the_run_goes_on_from_the_one_before(
    folder: Path, copy: Callable[[str], RunDirectory], capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy("stopped")
    halve(run.last)
    assert train("stopped") == 0
    lines = said(capsys)
    assert f"{run.last} is damaged: going on from previous.ckpt" in lines
    assert f"resuming from {run.previous}" in lines
    check_end(folder, run)
    # 9 steps, and from 8 to the end
    assert run.read_summary()["steps_executed"] == STEPS + 1


def test_no_checkpoint_is_whole(
    copy: Callable[[str], RunDirectory], capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy("stopped")
    halve(run.last)
    halve(run.previous)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    assert train("stopped") == 2
    (line,) = said(capsys)
    assert line.startswith(f"error: neither {run.last} nor previous.ckpt can be read")
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_the_best_one_is_damaged(
    copy: Callable[[str], RunDirectory], capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy("whole")
    whole = bytearray(run.best.read_bytes())
    whole[whole.rindex(b"PK\x01\x02") + 38] ^= 16
    for content in (b"", whole[: len(whole) // 2], whole):
        run.best.unlink()  # not in both names of the file
        run.best.write_bytes(content)
        assert main(["test", str(run.path), "--checkpoint", "best"]) == 2
        (line,) = said(capsys)
        assert line.startswith("error: ") and str(run.best) in line, line


# Small files


@pytest.mark.parametrize("content", [b"", b"half", b"lines", GARBAGE, b"[]\n", b"trainer: 3\n"])
def test_a_damaged_configuration(
    content: bytes, copy: Callable[[str], RunDirectory], capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy("stopped")
    if content == b"half":
        halve(run.config)
    elif content == b"lines":  # a YAML without its last groups
        text = run.config.read_text()
        run.config.write_text(text[: text.index("checkpoint:\n")])
    else:
        run.config.write_bytes(content)
    assert train("stopped") == 2
    (line,) = said(capsys)
    assert line.startswith(f"error: {run.config} is damaged: ")
    assert not run.lock.exists()
    code = main(["status", str(run.path)])
    assert code == 0 or (code == 2 and len(said(capsys)) == 1)


def test_a_damaged_configuration_is_in_the_checkpoints_too(
    folder: Path, copy: Callable[[str], RunDirectory], capsys: pytest.CaptureFixture[str]
) -> None:
    """What the message advises."""
    run = copy("stopped")
    run.config.write_bytes(b"")
    assert train("stopped") == 2
    words = said(capsys)[-1].split()
    assert main(["train", *SETTINGS, "run.name=other", words[-1]]) == 0
    other = read_state(Path("checkpoints/other/last.ckpt"))
    assert differences(read_state(folder / "whole/last.ckpt"), other) == []


@pytest.mark.parametrize("name", ["summary.json", "heartbeat", "lock", "metrics.csv"])
@pytest.mark.parametrize("content", [b"", b"half", GARBAGE, b"[]\n"])
def test_status_of_a_run_with_a_damaged_file(
    name: str,
    content: bytes,
    copy: Callable[[str], RunDirectory],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = copy("stopped")
    capsys.readouterr()
    path = run.path / name
    halve(path) if content == b"half" and path.exists() else path.write_bytes(content)
    assert main(["status", str(run.path), "--json"]) == 0
    (status,) = fits("status", capsys.readouterr().out)["runs"]
    assert status["checkpoint"]["step"] == 9


def test_a_damaged_lock_counts_for_three_minutes(
    copy: Callable[[str], RunDirectory], capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy("stopped")
    run.lock.write_bytes(GARBAGE)
    assert train("stopped") == 2
    (line,) = said(capsys)
    assert "is being trained by an unknown process" in line


def test_all_of_them_at_once(
    folder: Path, copy: Callable[[str], RunDirectory], capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy("stopped")
    halve(run.summary)
    run.heartbeat.write_bytes(GARBAGE)
    run.lock.write_bytes(GARBAGE)
    os.utime(run.lock, (time.time() - 3600, time.time() - 3600))
    assert train("stopped") == 0
    lines = said(capsys)
    assert f"{run.summary} is damaged: restarts and time are counted anew" in lines
    check_end(folder, run)
    assert not run.lock.exists()


@pytest.mark.parametrize("content", [b"{", None])
def test_the_summary_of_a_run_that_has_ended(
    content: bytes | None, folder: Path, copy: Callable[[str], RunDirectory]
) -> None:
    run = copy("whole")
    run.summary.write_bytes(content) if content else run.summary.unlink()
    assert train("whole") == 0
    check_end(folder, run)


# A disk that takes nothing


def test_a_run_that_can_only_be_read(
    copy: Callable[[str], RunDirectory],
    small_disk: Callable[[float], SmallDisk],
    capsys: pytest.CaptureFixture[str],
) -> None:
    copied = copy("stopped")
    disk = small_disk(16)
    run = RunDirectory(disk.path / "stopped")
    shutil.copytree(copied.path, run.path)
    run.lock.write_text("of a process that was killed")
    os.utime(run.lock, (0, 0))
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save("image.png")
    disk.read_only()

    assert main(["train", *SETTINGS, f"run.dir={disk.path}", "run.name=stopped"]) == 2
    (line,) = said(capsys)
    assert line.startswith("error: cannot write to ")
    again = [*SETTINGS, f"run.dir={disk.path}", "run.name=stopped", "run.resume=auto"]
    assert main(["train", *again]) == 2
    (line,) = said(capsys)
    assert line.startswith(f"error: cannot write to {run.path}")

    assert main(["test", str(run.path), "--json"]) == 0
    fits("test", capsys.readouterr().out)
    assert main(["predict", str(run.path), "image.png", "--json"]) == 0
    assert fits("predict", capsys.readouterr().out)
    assert main(["status", str(run.path), "--json"]) == 0
    (status,) = fits("status", capsys.readouterr().out)["runs"]
    assert (status["state"], status["step"]) == ("stopped", 9)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before

    disk.read_only(False)
    assert main(["train", *again]) == 0


@pytest.mark.parametrize("pages", [0, 1])  # none, and one for the lock but none for config.yaml
def test_a_disk_that_is_full_at_the_very_start(
    pages: int,
    tmp_path: Path,
    small_disk: Callable[[float], SmallDisk],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    disk = small_disk(1)
    disk.fill()
    (filler,) = disk.path.iterdir()
    os.truncate(filler, filler.stat().st_size - 4096 * pages)
    monkeypatch.chdir(tmp_path)
    where = f"run.dir={disk.path / 'new'}"
    assert main(["train", *SETTINGS, where, "run.name=mine", "run.resume=auto"]) == 2
    *_, line = said(capsys)
    assert line == (
        f"error: cannot write to {disk.path / 'new/mine'} (No space left on device): make room "
        "or access, or choose another run.dir"
    )
    assert list(disk.path.iterdir()) == [filler]
