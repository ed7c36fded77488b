"""Where a run begins, by what lies in its directory and what `run.resume` says."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from res2net.config.load import load_config, to_dict, to_yaml
from res2net.config.schema import Config
from res2net.errors import InputError
from res2net.files.atomic import atomic_write_json
from res2net.files.lock import Lock
from res2net.files.runs import RunDirectory
from res2net.training.start import Start, claim, find_start


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    return RunDirectory.of(str(tmp_path / "runs"), "mine")


def config_of(run: RunDirectory, resume: str = "", **changes: dict[str, object]) -> Config:
    base = Config()
    settings = replace(base.run, name=run.path.name, dir=str(run.path.parent), resume=resume)
    groups = {group: replace(getattr(base, group), **keys) for group, keys in changes.items()}
    return replace(base, run=settings, **groups)  # type: ignore[arg-type]


def prepare(config: Config, run: RunDirectory) -> None:
    """As a leg begins that ends at once."""
    lock = Lock(run.lock)
    auto = replace(config, run=replace(config.run, resume="auto"))
    claim(config, run, find_start(auto, run), lock)
    lock.release()


def save(path: Path, config: Config) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"res2net": {"config": to_dict(config)}, "loops": {}}, path)
    return path


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def begin(run: RunDirectory, status: str = "running", checkpoint: bool = True) -> None:
    """A run as an earlier start left it."""
    config = config_of(run, trainer={"max_epochs": 10})
    prepare(config, run)
    if checkpoint:
        save(run.last, config)
    atomic_write_json(run.summary, {"status": status})


def start_of(run: RunDirectory, resume: str = "", **changes: dict[str, object]) -> Start:
    """The decision, which never changes anything."""
    before = sorted(str(path) for path in run.path.parent.rglob("*"))
    try:
        return find_start(config_of(run, resume, **{"trainer": {"max_epochs": 10}, **changes}), run)
    finally:
        assert sorted(str(path) for path in run.path.parent.rglob("*")) == before


def refusal(run: RunDirectory, resume: str = "", **changes: dict[str, object]) -> str:
    with pytest.raises(InputError) as caught:
        start_of(run, resume, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# 1. No directory, or an empty one


@pytest.mark.parametrize("resume", ["", "auto"])
def test_without_a_directory_or_with_an_empty_one_a_run_starts(
    run: RunDirectory, resume: str
) -> None:
    assert start_of(run, resume) == Start()
    run.path.mkdir(parents=True)
    assert start_of(run, resume) == Start()


def test_a_new_run_starts_from_the_checkpoint_that_is_named(run: RunDirectory) -> None:
    other = config_of(RunDirectory.of("elsewhere", "other"), trainer={"max_epochs": 10})
    path = save(run.path.parent / "other" / "best.ckpt", other)
    # the names of the two runs differ, which is no change to speak of
    assert start_of(run, str(path)) == Start(path)
    assert start_of(run, str(path), trainer={"max_epochs": 20}).messages == (
        "changed since the start of the run: trainer.max_epochs was 10, now 20",
    )
    assert f"({path}): optim.lr was 0.1, now 0.3;" in refusal(run, str(path), optim={"lr": 0.3})


def test_only_whole_checkpoints_of_runs_can_be_named(run: RunDirectory, tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    assert refusal(run, str(path)) == (
        f"run.resume={path}: no such file; give a checkpoint or auto"
    )
    save(path, config_of(run))
    damage(path)
    assert refusal(run, str(path)) == (
        f"run.resume={path}: is damaged or no checkpoint; give a checkpoint or auto"
    )
    torch.save({"state_dict": {"weight": torch.zeros(3)}}, path)
    assert refusal(run, str(path)) == (
        f"run.resume={path}: holds weights but no state of a run; model.weights={path} starts a "
        "run from them"
    )
    torch.save({"code": print}, path)
    assert "carries the Python object __builtin__.print, which could run" in refusal(run, str(path))
    assert refusal(run, str(tmp_path)).startswith(f"run.resume={tmp_path}: no such file")


# 2. A run, and `run.resume` empty


@pytest.mark.parametrize("status", ["running", "completed", "failed"])
def test_a_run_is_never_overwritten(run: RunDirectory, status: str) -> None:
    begin(run, status)
    assert refusal(run) == (
        f"the run {run.path} exists: run.resume=auto goes on with it, run.name=NAME starts another"
    )


@pytest.mark.parametrize("resume", ["", "auto"])
def test_what_is_no_run_is_not_touched(run: RunDirectory, resume: str) -> None:
    run.path.parent.mkdir(parents=True)
    run.path.write_text("a file of that name")
    expected = f"{run.path} exists and is not a run: choose another run.name or run.dir"
    assert refusal(run, resume) == expected
    run.path.unlink()
    run.path.mkdir()
    (run.path / "thesis.tex").touch()
    assert refusal(run, resume) == expected


def test_a_folder_that_cannot_hold_runs(run: RunDirectory) -> None:
    run.path.parent.write_text("a file where the folder of runs belongs")
    config = config_of(run)
    with pytest.raises(InputError, match=re.escape(f"cannot write to {run.path.parent}")):
        find_start(config, run)


# 3. A run that has ended


def test_killed_while_more_epochs_began_is_not_complete(run: RunDirectory) -> None:
    begin(run, "completed")
    prepare(config_of(run, "auto", trainer={"max_epochs": 12}), run)  # and killed here
    start = start_of(run, "auto", trainer={"max_epochs": 12})
    assert not start.complete and start.checkpoint == run.last


def test_a_run_that_has_ended_is_complete_unless_it_gets_more_epochs(run: RunDirectory) -> None:
    begin(run, "completed")
    assert start_of(run, "auto") == Start(complete=True)
    assert start_of(run, "auto", logging={"every_steps": 7}).complete
    fewer = start_of(run, "auto", trainer={"max_epochs": 9})
    assert fewer.complete
    assert "has been trained for 10" in fewer.messages[0]
    assert start_of(run, "auto", trainer={"max_epochs": 11}) == Start(
        run.last,
        messages=("changed since the start of the run: trainer.max_epochs was 10, now 11",),
    )


# 4. A run, and `auto`


def test_auto_goes_on_from_the_newest_whole_checkpoint(run: RunDirectory) -> None:
    begin(run)
    assert start_of(run, "auto") == Start(run.last)
    save(run.previous, config_of(run))
    assert start_of(run, "auto") == Start(run.last)
    damage(run.last)
    assert start_of(run, "auto") == Start(
        run.previous, messages=(f"{run.last} is damaged: going on from previous.ckpt",)
    )
    damage(run.previous)
    assert "they are damaged; start anew with another run.name" in refusal(run, "auto")


def test_auto_starts_anew_where_the_run_was_killed_before_its_first_checkpoint(
    run: RunDirectory,
) -> None:
    begin(run, checkpoint=False)
    assert start_of(run, "auto") == Start()


def test_a_run_that_was_ended_before_its_first_step_is_in_nobodys_way(run: RunDirectory) -> None:
    prepare(config_of(run), run)
    run.metrics.write_text("step,epoch,split,key,value\n")
    run.summary.write_text('{"status": "interrupted", "steps_executed": 0}')
    run.heartbeat.touch()
    run.wandb_id.write_text("a1b2\n")
    (run.path / "wandb").mkdir()
    before = {path: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    assert start_of(run) == start_of(run, optim={"lr": 0.5}) == start_of(run, "auto") == Start()
    for file, text in (
        (run.heartbeat, "           1            1 1.0\n"),
        (run.metrics, "step,epoch,split,key,value\n1,0,train,loss,2.3\n"),
        (run.summary, '{"status": "interrupted", "steps_executed": 1}'),
        (run.last, "damaged"),
        (run.path / "notes.txt", "mine"),
    ):
        file.write_text(text)
        assert "exists: run.resume=auto goes on with it" in refusal(run)
        file.unlink()
        if file in before:
            file.write_bytes(before[file])
    assert start_of(run) == Start()


# 5. A run, and a path


def test_a_path_must_be_one_of_the_runs_own(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(run)
    best = save(run.best, config_of(run))
    assert start_of(run, str(best)) == Start(best)
    monkeypatch.chdir(run.path)
    assert start_of(run, "best.ckpt") == Start(Path("best.ckpt"))
    foreign = save(run.path.parent / "other" / "best.ckpt", config_of(run))
    assert refusal(run, str(foreign)) == (
        f"run.resume={foreign}: the run {run.path} exists and this is none of its checkpoints: "
        "run.name=NAME starts another run from it"
    )


# What may change


@pytest.mark.parametrize(
    ("group", "keys", "message"),
    [
        ("trainer", {"max_epochs": 10, "devices": "2"}, "trainer.devices was auto, now 2"),
        ("trainer", {"max_epochs": 10, "num_nodes": "2"}, "trainer.num_nodes was auto, now 2"),
        ("trainer", {"max_epochs": 10, "accumulate": 2}, "trainer.accumulate was 1, now 2"),
        ("trainer", {"max_epochs": 11}, "trainer.max_epochs was 10, now 11"),
        ("data", {"workers": 3}, "data.workers was 0, now 3"),
        ("logging", {"wandb": "offline"}, "logging.wandb was auto, now offline"),
        ("checkpoint", {"every_steps": 5}, "checkpoint.every_steps was 0, now 5"),
    ],
)
def test_what_may_change_is_announced(
    run: RunDirectory, group: str, keys: dict[str, object], message: str
) -> None:
    begin(run)
    start = start_of(run, "auto", **{group: keys})
    assert start == Start(run.last, messages=(f"changed since the start of the run: {message}",))


def test_everything_else_is_refused_all_at_once(run: RunDirectory) -> None:
    begin(run)
    changes = {
        "data": {"global_batch_size": 128, "mean": (0.5, 0.5, 0.5)},
        "optim": {"lr": 0.2},
        "trainer": {"max_epochs": 10, "precision": "bf16-mixed", "devices": "2"},
    }
    assert refusal(run, "auto", **changes) == (
        f"a resumed run keeps its configuration ({run.config}): "
        "data.global_batch_size was 256, now 128; "
        "data.mean was [0.485, 0.456, 0.406], now [0.5, 0.5, 0.5]; "
        "optim.lr was 0.1, now 0.2; trainer.precision was 32-true, now bf16-mixed; "
        "may change: trainer.devices, trainer.num_nodes, trainer.accumulate, trainer.max_epochs, "
        "trainer.stall_minutes, data.workers, data.stage_to, data.on_corrupt, data.max_pixels, "
        "logging.*, checkpoint.*; run.name=NAME starts another run"
    )
    assert "run.seed was 0, now 1" in refusal_of_seed(run)


def refusal_of_seed(run: RunDirectory) -> str:
    config = config_of(run, "auto", trainer={"max_epochs": 10})
    with pytest.raises(InputError) as caught:
        find_start(replace(config, run=replace(config.run, seed=1)), run)
    return str(caught.value)


def test_a_directory_that_was_moved_goes_on(run: RunDirectory) -> None:
    begin(run)
    moved = RunDirectory(run.path.rename(run.path.with_name("renamed")))
    assert start_of(moved, "auto") == Start(moved.last)


# prepare


def test_prepare_writes_the_configuration_and_clears_what_a_kill_left(run: RunDirectory) -> None:
    config = config_of(run, optim={"lr": 1e-5})
    prepare(config, run)
    assert [path.name for path in run.path.iterdir()] == ["config.yaml"]
    assert run.config.read_text() == to_yaml(config)
    assert load_config(str(run.config), []) == config

    save(run.last, config)
    run.next.touch()
    (run.path / ".next.ckpt.4711.tmp").touch()
    (run.path / "mine.tmp").touch()
    prepare(replace(config, logging=replace(config.logging, every_steps=3)), run)
    names = sorted(path.name for path in run.path.iterdir())
    assert names == ["config.yaml", "last.ckpt", "mine.tmp"]
    assert yaml.safe_load(run.config.read_text())["logging"]["every_steps"] == 3


def test_what_another_process_does_meanwhile_is_not_overwritten(run: RunDirectory) -> None:
    config = config_of(run)
    start = find_start(config, run)
    prepare(config, run)  # by the other, which is through already
    stored = run.config.stat()
    with pytest.raises(InputError, match="was changed by another process"):
        claim(config, run, start, Lock(run.lock))
    assert run.config.stat() == stored

    holder = Lock(run.lock)
    holder.acquire()
    auto = config_of(run, "auto")
    for attempt in (
        lambda: find_start(auto, run),
        lambda: claim(auto, run, start, Lock(run.lock)),
    ):
        with pytest.raises(InputError, match="is being trained by process"):
            attempt()
    holder.release()
    assert find_start(auto, run).checkpoint is None


def test_killed_before_it_had_begun(run: RunDirectory) -> None:
    run.path.mkdir(parents=True)
    (run.path / ".config.yaml.4711.tmp").touch()
    (run.path / "lock").write_text('{"torn')
    os.utime(run.path / "lock", (0, 0))
    prepare(config_of(run), run)
    assert [path.name for path in run.path.iterdir()] == ["config.yaml"]
