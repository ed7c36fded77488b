"""A checkpoint is whole or not there, and opening one runs no code."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from res2net.errors import InputError, WorkError
from res2net.files.runs import is_sound
from res2net.training.checkpoint_io import AtomicCheckpointIO


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


class Bomb:
    """Cannot be pickled: it goes off in the middle of the writing."""

    def __reduce__(self) -> tuple:
        raise KeyboardInterrupt


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    state = {"step": 3, "state_dict": {"weight": torch.arange(6.0).view(2, 3)}, "raw": b"\0\1"}
    path = tmp_path / "last.ckpt"
    checkpoints = AtomicCheckpointIO()
    checkpoints.save_checkpoint(state, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]
    assert is_sound(path)
    read = checkpoints.load_checkpoint(path)
    assert torch.equal(read["state_dict"]["weight"], state["state_dict"]["weight"])
    assert (read["step"], read["raw"]) == (3, b"\0\1")
    checkpoints.remove_checkpoint(path)
    checkpoints.remove_checkpoint(path)
    assert not path.exists()


@pytest.mark.parametrize("weights_only", [None, True, False])
def test_a_file_with_code_is_not_opened(tmp_path: Path, weights_only: bool | None) -> None:
    path, trace = tmp_path / "last.ckpt", tmp_path / "trace"
    torch.save({"state_dict": Trap(trace)}, path)
    with pytest.raises(
        InputError, match=r"carries the Python object posix\.mkdir, which could run"
    ):
        AtomicCheckpointIO().load_checkpoint(path, weights_only=weights_only)
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists()  # the trap was a real one


def test_an_interruption_while_writing_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    with pytest.raises(KeyboardInterrupt):
        AtomicCheckpointIO().save_checkpoint({"a": torch.zeros(9999), "b": Bomb()}, path)
    assert AtomicCheckpointIO().load_checkpoint(path) == {"step": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.fixture
def full_disk() -> Iterator[Callable[[int], None]]:
    """Lets no file grow over so many bytes: writing fails in the places where a full disk does."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_one_line_and_keeps_the_old_file(
    tmp_path: Path, full_disk: Callable[[int], None]
) -> None:
    path = tmp_path / "last.ckpt"
    checkpoints = AtomicCheckpointIO()
    checkpoints.save_checkpoint({"step": 1}, path)
    full_disk(100_000)
    with pytest.raises(WorkError) as caught:
        checkpoints.save_checkpoint({"step": 2, "weights": torch.zeros(1_000_000)}, path)
    assert str(caught.value) == f"cannot write the checkpoint {path}: [Errno 27] File too large"
    assert checkpoints.load_checkpoint(path) == {"step": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]
    checkpoints.save_checkpoint({"step": 3}, path)
    assert checkpoints.load_checkpoint(path) == {"step": 3}


def test_a_folder_that_is_gone_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "last.ckpt"
    with pytest.raises(WorkError, match=f"^cannot write the checkpoint {path}: .*No such file"):
        AtomicCheckpointIO().save_checkpoint({"step": 1}, path)


def test_an_interruption_in_the_middle_of_a_save_stays_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(checkpoint: object, file: object) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("unexpected pos 64 vs 0")  # as torch.save's zip writer does

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        AtomicCheckpointIO().save_checkpoint({}, tmp_path / "last.ckpt")
    assert not list(tmp_path.iterdir())
