"""Readers as the tests of fuzzing call them: of a path alone."""

import os
import pickle
import signal
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch

from fuzzing import FREE, MEGABYTE
from res2net.cli import compare, status
from res2net.config.load import from_dict, load_config
from res2net.config.schema import Config
from res2net.data.sources.cifar import load_cifar
from res2net.errors import InputError, WorkError
from res2net.files.runs import RunDirectory
from res2net.training.start import find_start
from res2net.weights.preprocessing import preprocessing_of
from res2net.zoo import create_model, open_model


def use_run(path: Path) -> None:
    """What verbs read of a run directory: status, compare with the one beside it, resume."""
    run = RunDirectory(path)
    keys = (f"run.dir={path.parent}", f"run.name={path.name}")
    both = [str(path), str(path.with_name("good"))]
    uses: list[Callable[[], object]] = [
        lambda: status.run(Namespace(runs=[str(path)], json=False)),
        lambda: status.run(Namespace(runs=both, json=True)),
        lambda: compare.run(Namespace(runs=both, out=None, json=False)),
        lambda: compare.run(Namespace(runs=both, out=None, json=True)),
        lambda: find_start(_quickstart(*keys), run),
        lambda: find_start(_quickstart(*keys, "run.resume=auto"), run),
    ]
    refused = []
    for use in uses:
        try:
            use()
        except InputError as error:
            refused.append(error)
    # a run that is there and not resumed is refused anyway
    if len(refused) > 1:
        raise max(refused, key=lambda error: len(str(error)))


@cache
def _shapes() -> None:
    """PyTorch's first network of shapes alone imports 900 modules, whatever the file."""
    with torch.device("meta"):
        create_model("res2net20_cifar")


@cache
def _quickstart(*keys: str) -> Config:
    return load_config("quickstart", keys)


def use_weights(path: Path) -> None:
    """What verbs take from a file of weights: the network, and what it says of it."""
    _shapes()
    _, weights = open_model(path)
    assert weights is not None
    preprocessing_of(weights)
    if weights.config:
        from_dict(weights.config)


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
