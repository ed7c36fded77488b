"""A disk of a few megabytes, to be filled, freed and made read-only: a tmpfs of the test's own."""

import errno
import os
import subprocess
from pathlib import Path

import pytest


class SmallDisk:
    """Mounted at `path`, which must be a new folder.

    A file that ends within a page of 4 KiB has the rest of that page, also on the full disk: what
    is written there is cut short, as on other file systems.
    """

    def __init__(self, path: Path, megabytes: float) -> None:
        path.mkdir()
        size = f"size={round(megabytes * 1024)}k"
        command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no disk can be mounted: {done.stderr.strip()}; unshare -rm make test")
        self.path = path

    def fill(self) -> None:
        fill(self.path)

    def free(self) -> None:
        free(self.path)

    def read_only(self, value: bool = True) -> None:
        """As long as no file is open for writing: the kernel refuses it else."""
        mode = "ro" if value else "rw"
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.path)], check=True)

    def unmount(self) -> None:
        """Also while a process still has files open there."""
        if os.path.ismount(self.path):
            subprocess.run(["umount", "--lazy", str(self.path)], check=True)


FILLER = "of-somebody-else"


def fill(disk: Path) -> None:
    """Leave no page free."""
    with (disk / FILLER).open("ab", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                file.write(bytes(size))
            except OSError as error:
                assert error.errno == errno.ENOSPC
                size //= 2


def free(disk: Path) -> None:
    """Take away what `fill` brought."""
    (disk / FILLER).unlink(missing_ok=True)
