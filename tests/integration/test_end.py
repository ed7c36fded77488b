"""The end of a run, killed at every place: what is left after a resume is what would have been.

One run is killed in its last validation. Copies of it go on: one undisturbed, the others killed
just before they change the directory for the n-th time, and resumed. All must leave the same files
with the same bytes. `make test` kills while the last picture is written, and between the last word
and the release of the lock; `make soak` at every change, and of two ranks at each fourth.
"""

import errno
import json
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ranks import start, train

STEPS = 1437 // 96
SETTINGS = (
    "quickstart",
    "trainer.max_epochs=1",
    "data.global_batch_size=96",
    "optim.ema_decay=0.9",
    "logging.every_steps=3",  # not at the last step: rows of speed differ
    "checkpoint.every_minutes=0",
    "logging.wandb=disabled",
    "run.name=mine",
    "run.resume=auto",
)
PICTURES = {f"{name}.png" for name in ("confusion", "curves", "per_class", "throughput", "worst")}
CHANGES = ("os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.truncate")


@dataclass(frozen=True)
class Changes:
    """Numbers the changes of the run directory since the last validation began, on rank 0."""

    kill_at: int = -1
    """The change before which the process is killed."""
    before: str = ""
    """Or the kind of change and the file's name."""

    def __call__(self) -> None:
        """In the rank, before it begins."""
        if int(os.environ.get("LOCAL_RANK", 0)):
            return
        from res2net.training.classifier import ImageClassifier

        validate, counting, count = ImageClassifier.validation_step, bool(self.before), 0
        log = os.open("changes", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

        def validation_step(module: ImageClassifier, *arguments: Any) -> Any:
            nonlocal counting
            counting = module.trainer.global_step == STEPS
            return validate(module, *arguments)

        def hear(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            if not counting:
                return
            opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
            if not opened and event not in CHANGES:
                return
            path = str(arguments[1] if event in ("os.rename", "os.link") else arguments[0])
            if "checkpoints/mine" not in path or "/wandb" in path:
                return
            change = f"{event} {Path(path).name}"
            if count == self.kill_at or change == self.before:
                os.kill(os.getpid(), signal.SIGKILL)
            os.write(log, f"{change}\n".encode())
            count += 1

        ImageClassifier.validation_step = validation_step  # type: ignore[method-assign]
        sys.addaudithook(hear)


def killed_in_its_last_validation() -> None:
    from res2net.training.classifier import ImageClassifier

    validate = ImageClassifier.validation_step

    def validation_step(module: ImageClassifier, *arguments: Any) -> Any:
        if module.trainer.global_step == STEPS:
            os.kill(os.getpid(), signal.SIGKILL)
        return validate(module, *arguments)

    ImageClassifier.validation_step = validation_step  # type: ignore[method-assign]


def full_for_a_picture() -> None:
    """The disk has room again when the next one is drawn."""
    from res2net.plots import figure

    write = figure.atomic_write

    def atomic_write(path: Path) -> Any:
        if path.name == "confusion.png":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path)

    figure.atomic_write = atomic_write  # type: ignore[assignment]


def leg(
    folder: Path,
    environment: dict[str, str],
    prepare: Any,
    *settings: str,
    ranks: int,
    code: int = -signal.SIGKILL,
) -> str:
    """One start that is killed, or fails; what it said."""
    (folder / "log-0").unlink(missing_ok=True)
    processes = start(
        folder, environment, *SETTINGS, *settings, ranks=ranks, prepare=prepare, drawn=True
    )
    processes[0].join(100)
    for process in processes:
        if process.is_alive():
            os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
    log = (folder / "log-0").read_text()
    assert processes[0].exitcode == code, log
    return log


def copy(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)  # two names of one file become two files: they stay the same
    return target


def left_by(folder: Path) -> dict[str, bytes]:
    """All files but W&B's; of those that tell of time and starts, what they say of the run."""
    run = folder / "checkpoints/mine"
    files = {
        str(path.relative_to(run)): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file() and "wandb" not in str(path.relative_to(run))
    }
    summary = json.loads(files.pop("summary.json"))
    for name in ("wall_seconds", "restarts", "steps_executed"):
        assert summary.pop(name) > 0
    files["summary.json"] = json.dumps(summary).encode()
    files["heartbeat"] = files["heartbeat"].split()[1]
    return files


def check(whole: dict[str, bytes], folder: Path, what: str) -> None:
    found = left_by(folder)
    assert found.keys() == whole.keys(), what
    assert [name for name in whole if whole[name] != found[name]] == [], what


def whole_of(folder: Path, environment: dict[str, str], *settings: str, ranks: int) -> tuple:
    """The run as it is in its last validation, what an undisturbed end leaves, and its changes."""
    base = folder / "base"
    base.mkdir()
    leg(base, environment, killed_in_its_last_validation, *settings, ranks=ranks)
    undisturbed = copy(base, folder / "undisturbed")
    train(
        undisturbed,
        environment,
        *SETTINGS,
        *settings,
        ranks=ranks,
        prepare=Changes(),
        drawn=True,
    )
    whole = left_by(undisturbed)
    assert {Path(name).name for name in whole if name.endswith(".png")} == PICTURES
    assert json.loads(whole["summary.json"])["status"] == "completed"
    assert not [name for name in whole if Path(name).name.startswith(".") or name == "lock"]
    return base, whole, (undisturbed / "changes").read_text().splitlines()


def test_killed_while_the_last_picture_is_written_and_before_the_lock_is_released(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    base, whole, changes = whole_of(tmp_path, environment, ranks=1)
    # the last word comes when all else is there, and only then others may have the run
    kinds = [change.split()[-1] for change in changes]
    assert kinds[-2:] == ["summary.json", "lock"]
    assert max(kinds.index(picture) for picture in PICTURES) < len(kinds) - 2
    killed = copy(base, tmp_path / "killed")
    log = leg(killed, environment, full_for_a_picture, ranks=1, code=1)
    *_, last = log.splitlines()
    assert last.startswith("error: trained to the end, but cannot write ") and "confusion" in last
    assert "No space left" in last and last.endswith("finish the run with run.resume=auto")
    leg(killed, environment, Changes(before="os.rename worst.png"), ranks=1)
    log = leg(killed, environment, Changes(before="os.remove lock"), ranks=1)
    assert "already complete" not in log
    train(killed, environment, *SETTINGS, ranks=1, drawn=True)
    assert "already complete" in (killed / "log-0").read_text()
    check(whole, killed, "killed twice")


@pytest.mark.soak
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(
    ("ranks", "each", "settings"), [(1, 1, ()), (2, 4, ("logging.wandb=offline",))]
)
def test_killed_before_every_change(
    tmp_path: Path, environment: dict[str, str], ranks: int, each: int, settings: tuple[str, ...]
) -> None:
    base, whole, changes = whole_of(tmp_path, environment, *settings, ranks=ranks)
    assert len(changes) >= 30
    for number, change in list(enumerate(changes))[::each]:
        killed = copy(base, tmp_path / "killed")
        leg(killed, environment, Changes(kill_at=number), *settings, ranks=ranks)
        train(killed, environment, *SETTINGS, *settings, ranks=ranks, drawn=True)
        check(whole, killed, f"{number}: {change}")
        shutil.rmtree(killed)
    print(f"{len(changes[::each])} places, {ranks} ranks")
