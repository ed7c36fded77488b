"""The command as a user starts it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from disks import SmallDisk
from runs import COMMAND, Run, clean_environment
from undrawn import draw_nothing

# Tests run side by side, and OpenMP's threads spin while they wait: one each is faster. Nothing has
# imported torch yet, and the commands that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
# A shell that starts the tests in the background has Ctrl-C ignored, by all that they start, too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def environment() -> dict[str, str]:
    """Of a process that no launcher started and that is logged in nowhere."""
    return clean_environment()


@pytest.fixture
def command(tmp_path: Path, environment: dict[str, str]) -> Run:
    """Runs `res2net ARGUMENT ...` in the test's folder and returns what it did."""

    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [COMMAND, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=150,
        )
        assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture
def stuck(tmp_path: Path) -> str:
    """For PYTHONPATH: a PyTorch whose import never ends, nor hears a signal in it.

    `stuck/reached` is there once it has begun.
    """
    folder = tmp_path / "stuck"
    folder.mkdir()
    (folder / "torch.py").write_text(
        f"open({str(folder / 'reached')!r}, 'w').close()\n"
        "from stillness import stand_still\n"
        "stand_still()\n"
    )
    return os.pathsep.join([str(folder), *filter(None, sys.path)])


@pytest.fixture(scope="module")
def undrawn() -> Iterator[None]:
    """For a module whose trainings, in this process, are not looked at in pictures."""
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch.setattr)
        yield


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[float], SmallDisk]]:
    """Mounts a disk of so many megabytes, as often as it is called; all go with the test."""
    disks: list[SmallDisk] = []

    def mount(megabytes: float) -> SmallDisk:
        disks.append(SmallDisk(tmp_path / f"disk-{len(disks)}", megabytes))
        return disks[-1]

    yield mount
    for disk in disks:
        disk.unmount()
