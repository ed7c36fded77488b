"""Readers as the tests of fuzzing call them: of a path alone."""

import os
import pickle
import signal
import tempfile
import time
from pathlib import Path

import numpy as np

from fuzzing import FREE, MEGABYTE
from res2net.data.sources.cifar import load_cifar
from res2net.errors import InputError, WorkError


def misbehave(path: Path) -> None:
    """Does what the file says: each way in which a reader may end."""
    if path.is_dir():
        names = sorted(str(found.relative_to(path)) for found in path.rglob("*"))
        raise InputError(", ".join(names))
    what = path.read_bytes()[:10].strip(b"\0").decode()
    if what == "refuse":
        raise InputError("no such thing")
    if what == "fail":
        raise WorkError("no room")
    if what == "raise":
        _ = 1 / 0
    if what == "exit":
        raise SystemExit(0)
    if what == "leave":
        os._exit(0)
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "spin":
        while True:
            pass
    if what == "sleep":
        time.sleep(1000)
    if what == "fill":
        np.ones(FREE // 8 + 2 * MEGABYTE)


def read_cifar_batch(path: Path) -> None:
    """An unpacked data set, one of whose batches is the file."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "cifar-10-batches-py"
        folder.mkdir()
        names = {"label_names": [str(number) for number in range(10)]}
        (folder / "batches.meta").write_bytes(pickle.dumps(names, 2))
        batch = {"data": np.zeros((1, 3072), np.uint8), "labels": [0]}
        for name in (*(f"data_batch_{number}" for number in range(2, 6)), "test_batch"):
            (folder / name).write_bytes(pickle.dumps(batch, 2))
        (folder / "data_batch_1").symlink_to(path)
        load_cifar("cifar10", Path(root))
