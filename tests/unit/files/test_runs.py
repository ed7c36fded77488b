"""The run directory: which checkpoint is whole, which is the newest, who may write."""

import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from res2net.errors import InputError
from res2net.files.atomic import atomic_write_json
from res2net.files.runs import RunDirectory, identity, is_rank_zero, is_sound, say


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "whole.ckpt"
    torch.save({"weights": torch.arange(300.0), "steps": 7, "name": "a" * 50}, path)
    return path


# is_sound


def test_a_whole_checkpoint_is_sound(checkpoint: Path) -> None:
    assert is_sound(checkpoint)


def test_a_truncated_checkpoint_is_not(checkpoint: Path) -> None:
    whole = checkpoint.read_bytes()
    lengths = [*range(40), *np.linspace(40, len(whole) - 1, 60).astype(int), len(whole) - 1]
    for length in lengths:
        checkpoint.write_bytes(whole[:length])
        assert not is_sound(checkpoint), length


def test_flipped_bits_never_pass_for_a_checkpoint(checkpoint: Path) -> None:
    """Sound means: it gives what was stored, or `torch.load` refuses it. And nothing raises."""
    whole = bytearray(checkpoint.read_bytes())
    expected = torch.load(checkpoint, weights_only=True)
    found = 0
    rng = np.random.default_rng(0)
    # some anywhere, and all of the table at the end, where zipfile stumbles in many ways
    places = [*rng.integers(0, len(whole), 150), *range(len(whole) - 250, len(whole))]
    for place in places:
        flipped = whole.copy()
        flipped[place] ^= 1 << int(rng.integers(8))
        checkpoint.write_bytes(flipped)
        if not is_sound(checkpoint):
            found += 1
            continue
        try:
            read = torch.load(checkpoint, weights_only=True)
        except Exception:
            continue
        assert torch.equal(read["weights"], expected["weights"]), place
        assert (read["steps"], read["name"]) == (7, "a" * 50), place
    assert found > 0.5 * len(places)


def test_a_flipped_bit_of_the_content_is_found_which_loading_does_not(checkpoint: Path) -> None:
    whole = bytearray(checkpoint.read_bytes())
    place = whole.index(torch.tensor([100.0]).numpy().tobytes())
    whole[place] ^= 1
    checkpoint.write_bytes(whole)
    assert torch.load(checkpoint, weights_only=True)["weights"][100] != 100
    assert not is_sound(checkpoint)


@pytest.mark.parametrize("content", [b"", b"PK", b"no checkpoint" * 99, None])
def test_what_is_no_checkpoint_is_not_sound(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "last.ckpt"
    if content is not None:
        path.write_bytes(content)
    assert not is_sound(path)
    assert not is_sound(tmp_path)


# newest_checkpoint


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory.of(str(tmp_path), "mine")
    run.path.mkdir()
    return run


def put(path: Path, whole: bool = True) -> None:
    torch.save({"weights": torch.zeros(99)}, path)
    if not whole:
        path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("last", "previous", "newest"),
    [
        (None, None, None),
        (True, None, "last.ckpt"),
        (True, True, "last.ckpt"),
        (True, False, "last.ckpt"),
        (False, True, "previous.ckpt"),
        (None, True, "previous.ckpt"),
    ],
)
def test_the_newest_whole_checkpoint_is_chosen_and_nothing_touched(
    run: RunDirectory, last: bool | None, previous: bool | None, newest: str | None
) -> None:
    for path, whole in ((run.last, last), (run.previous, previous)):
        if whole is not None:
            put(path, whole)
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    chosen, message = run.newest_checkpoint()
    assert (chosen and chosen.name) == newest
    why = "is missing" if last is None else "is damaged"
    warned = f"{run.last} {why}: going on from previous.ckpt"
    assert message == (warned if newest == "previous.ckpt" else "")
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before


@pytest.mark.parametrize(("last", "previous"), [(False, False), (False, None), (None, False)])
def test_damaged_checkpoints_alone_are_an_error_and_no_new_start(
    run: RunDirectory, last: bool | None, previous: bool | None
) -> None:
    for path, whole in ((run.last, last), (run.previous, previous)):
        if whole is not None:
            put(path, whole)
    put(run.best)
    with pytest.raises(InputError) as caught:
        run.newest_checkpoint()
    assert str(caught.value) == (
        f"neither {run.last} nor previous.ckpt can be read: they are damaged; start anew with "
        "another run.name, or go on from best.ckpt by run.resume=PATH"
    )


# The rest


def test_a_run_is_known_by_its_configuration(run: RunDirectory) -> None:
    assert run.path.name == "mine"
    assert not run.is_run()
    run.config.touch()
    assert run.is_run()


def test_the_summary_is_empty_before_there_is_one(run: RunDirectory) -> None:
    assert run.read_summary() == {}
    atomic_write_json(run.summary, {"status": "running", "val/top1": 0.5})
    assert run.read_summary() == {"status": "running", "val/top1": 0.5}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, True),
        ({"RANK": "0"}, True),
        ({"RANK": "1"}, False),
        ({"RANK": ""}, True),
        ({"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, True),
        ({"SLURM_PROCID": "3"}, False),
        ({"LOCAL_RANK": "1"}, False),  # as Lightning's launcher tells its children
        ({"LOCAL_RANK": "0", "RANK": "2"}, False),  # first process of another node
        ({"LOCAL_RANK": "0", "RANK": "0", "SLURM_PROCID": "0"}, True),
        ({"NODE_RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),  # nodes that were started by hand
        ({"NODE_RANK": "1"}, True),  # before anything is started there
        ({"NODE_RANK": "0", "LOCAL_RANK": "1"}, False),
    ],
)
def test_rank_zero_is_told_by_the_environment(
    environment: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_rank_zero() is expected


def test_an_identity_is_plain_and_its_own(tmp_path: Path) -> None:
    names, preprocessing = ["cat", "dog"], {"image_size": 32}
    stored = identity(
        "res2net20_cifar",
        num_classes=2,
        class_names=tuple(names),
        preprocessing=preprocessing,
        config={"run": {"seed": 3}},
    )
    preprocessing["image_size"] = 0
    torch.save(stored, tmp_path / "a.ckpt")
    assert torch.load(tmp_path / "a.ckpt", weights_only=True) == {
        "schema": 1,
        "model": "res2net20_cifar",
        "num_classes": 2,
        "class_names": ["cat", "dog"],
        "preprocessing": {"image_size": 32},
        "config": {"run": {"seed": 3}},
    }


def test_a_log_on_a_full_disk_is_not_worth_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr("sys.stderr", io.TextIOWrapper(full, write_through=True))  # type: ignore[type-var]
        with pytest.raises(OSError, match="No space left"):
            print("lost", file=sys.stderr, flush=True)
        say("lost")
        monkeypatch.undo()


def test_a_reader_that_leaves_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb", buffering=0) as pipe, io.TextIOWrapper(pipe, write_through=True) as log:
        monkeypatch.setattr("sys.stderr", log)
        with pytest.raises(BrokenPipeError):
            print("to nobody", file=sys.stderr, flush=True)
        say("to nobody")
        monkeypatch.undo()
