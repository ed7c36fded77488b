"""`--dry-run`: its numbers are the run's, its problems come all at once, and nothing is left."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from res2net import create_model
from res2net.cli.main import main
from res2net.training import classifier
from res2net.training.classifier import ImageClassifier
from res2net.training.optim import schedules
from res2net.training.optim.schedules import lr_factor
from schemas import fits

pytestmark = pytest.mark.usefixtures("undrawn")

Told = Callable[..., dict]


@pytest.fixture
def told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Told:
    """What a dry run says, in a folder in which it leaves nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def run(*arguments: str) -> dict:
        before = sorted(tmp_path.rglob("*"))
        assert main(["train", *arguments, "--dry-run", "--json"]) == 0
        assert sorted(tmp_path.rglob("*")) == before, "something was left behind"
        return fits("train_dry_run", capsys.readouterr().out)

    return run


def test_what_it_tells_is_what_the_run_does(told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ("quickstart", "trainer.max_epochs=1", "optim.ema_decay=0.9")
    said = told(*settings)
    assert main(["train", *settings, "--json"]) == 0
    summary = fits("train", capsys.readouterr().out)
    assert fits("summary", Path("checkpoints/quickstart/summary.json").read_text()) == summary
    assert said["steps"] == said["steps_per_epoch"] == summary["steps"] == 22
    assert said["samples_per_epoch"] == summary["samples_seen"] == 22 * 64
    assert said["parameters"] == summary["parameters"]
    assert (said["train_images"], said["val_images"], said["classes"]) == (1437, 360, 10)
    file = Path("checkpoints/quickstart/last.ckpt")
    assert said["checkpoint_bytes"] == pytest.approx(file.stat().st_size, rel=0.05)
    assert said["kept_bytes"] == 3 * said["checkpoint_bytes"]
    rates = [
        float(line.rpartition(",")[2])
        for line in Path("checkpoints/quickstart/metrics.csv").read_text().splitlines()
        if ",train,lr," in line
    ]
    assert said["lr_first"] <= min(rates) and said["lr_peak"] >= max(rates)
    assert said["starts"] == "a new run"
    assert told(*settings, "run.resume=auto")["starts"] == "is complete"


def test_the_whole_batch_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "quickstart", "data.global_batch_size=2048", "--dry-run"]) == 2
    assert "there are only 1437 training images" in capsys.readouterr().err


def test_devices_and_nodes_that_are_not_here(told: Told) -> None:
    said = told("quickstart", "--devices", "8", "--nodes", "2", "trainer.accumulate=2")
    assert (said["devices"], said["num_nodes"], said["batch_per_device"]) == (8, 2, 2)
    assert said["measured_batch"] == 2
    assert said["steps"] == 440


def test_memory_and_time_grow_with_the_batch(told: Told) -> None:
    small, large = (
        told("quickstart", f"data.global_batch_size={size}", "trainer.max_epochs=1")
        for size in (16, 256)
    )
    assert small["measured_batch"] == large["measured_batch"] == 8
    weights = 3 * 4 * small["parameters"]  # with their gradients and momenta
    activations = [said["memory_bytes"] - weights for said in (small, large)]
    assert activations[1] == pytest.approx(16 * activations[0], rel=0.1)
    assert large["hours"] == pytest.approx(small["hours"], rel=3)  # as many images in all


def test_a_longer_run_takes_no_longer_to_look_at(
    told: Told, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A million steps took minutes: the learning rate of each was reckoned."""
    asked: list[int] = []

    def counted(step: int, *arguments: Any, **options: Any) -> float:
        asked.append(step)
        return lr_factor(step, *arguments, **options)

    monkeypatch.setattr(schedules, "lr_factor", counted)
    monkeypatch.setattr(classifier, "lr_factor", counted)
    counts = {}
    for epochs in (1000, 1_000_000):
        asked.clear()
        said = told(
            "quickstart", f"trainer.max_epochs={epochs}", "data.global_batch_size=8",
            "schedule.warmup_epochs=1000", "augment.start_size=8", "augment.grow_until=1000",
            "augment.crop=random_resized",
        )  # fmt: skip
        assert said["steps"] == 179 * epochs
        assert said["lr_peak"] == pytest.approx(0.1, rel=1e-4)
        counts[epochs] = len(asked)
    assert counts[1_000_000] <= counts[1000] + 10 < 100
    asked.clear()
    long = ["trainer.max_epochs=1000000", "schedule.warmup_epochs=1000"]
    with tempfile.TemporaryDirectory() as folder:
        picture = f"{folder}/lr.png"
        assert main(["train", "quickstart", *long, "--plot-schedule", picture, "--json"]) == 0
    drawn = fits("train_plot_schedule", capsys.readouterr().out)
    assert (drawn["steps"], drawn["peak_step"]) == (22_000_000, 22_000)
    assert len(asked) < 10_000


def test_one_step_an_epoch_is_timed_too(told: Told) -> None:
    """The first step is not: there was none to time, and a traceback."""
    one = ["data.subset=0.01", "data.global_batch_size=15", "trainer.max_epochs=1"]
    said = told("quickstart", *one, "schedule.warmup_epochs=0")
    assert said["steps"] == 1 and said["step_seconds"] > 0


@pytest.mark.parametrize(
    ("changes", "batch"),
    [
        (["data.global_batch_size=1"], 1),  # 16 values of each channel
        (["data.global_batch_size=4", "trainer.accumulate=4"], 1),
        (["data.global_batch_size=8", "--devices=4", "trainer.accumulate=2"], 1),
        (["data.global_batch_size=8", "--devices=2"], 4),
    ],
)
def test_what_is_tried_has_the_batch_of_a_device(
    told: Told, changes: list[str], batch: int
) -> None:
    said = told("quickstart", *changes)
    assert said["batch_per_device"] == said["measured_batch"] == batch


@pytest.mark.parametrize(
    "changes",
    [
        ["data.global_batch_size=1"],
        ["data.global_batch_size=2", "trainer.accumulate=2"],
        ["data.global_batch_size=2", "trainer.devices=2"],
        # it grows from there
        [
            *("data.global_batch_size=1", "data.image_size=64", "augment.start_size=32"),
            *("augment.grow_until=2", "augment.crop=random_resized"),
        ],
        # of the first stages alone
        ["data.global_batch_size=1", "optim.freeze=3"],
    ],
)
def test_batch_norm_of_one_value_is_refused_alike_by_both(
    changes: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Training had left a traceback and a run directory, and the dry run had found all well."""
    monkeypatch.chdir(tmp_path)
    network = ["model.name=res2net50_26w_4s", "data.image_size=32"]
    lines = []
    for option in ([], ["--dry-run"]):
        assert main(["train", "quickstart", *network, *changes, *option]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1, err
        lines.append(err)
        assert not list(tmp_path.iterdir())
    assert lines[0] == lines[1]
    assert "batch norm takes two or more" in lines[0] and "data.global_batch_size=" in lines[0]


def test_weights_that_a_resumed_run_reads_no_more_need_not_be_there(
    told: Told, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(create_model("res2net20_cifar").state_dict(), "start.pth")
    settings = ("quickstart", "model.weights=start.pth", "trainer.max_epochs=1", "data.subset=0.1")
    assert main(["train", *settings]) == 0
    Path("start.pth").unlink()
    capsys.readouterr()
    said = told(*settings, "run.resume=auto", "trainer.max_epochs=2")
    assert said["starts"] == "goes on from last.ckpt"


def test_a_package_that_is_missing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("res2net.callbacks.tensorboard.find_spec", lambda name: None)
    for option in ([], ["--dry-run"]):
        assert main(["train", "quickstart", "logging.tensorboard=true", *option]) == 2
        assert "logging.tensorboard=true: the package" in capsys.readouterr().err
        assert not list(tmp_path.iterdir())


def test_memory_that_is_not_there_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def full(*arguments: Any) -> None:
        torch.empty(2**50)

    monkeypatch.setattr(ImageClassifier, "training_step", full)
    for option in (["--dry-run"], ["--find-lr"], []):
        assert main(["train", "quickstart", *option]) == 1
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("error: ") and "out of memory with" in line
        assert "a smaller data.global_batch_size" in line


def test_all_problems_come_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "quickstart", "trainer.max_epochs=1", "data.subset=0.1"]) == 0
    capsys.readouterr()
    before = sorted(tmp_path.rglob("*"))
    arguments = (
        "train", "quickstart", "--dry-run", "--devices", "7", "schedule.warmup_epochs=200",
        "model.weights=nowhere.ckpt",
    )  # fmt: skip
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    for problem in (
        "data.global_batch_size=64 cannot be cut into 7 equal parts",
        "the run checkpoints/quickstart exists",
        "schedule.warmup_epochs=200",
        "nowhere.ckpt",
    ):
        assert err.count(problem) == 1, err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("option", [["--devices", "2"], ["--nodes", "2"]])
def test_its_options_are_its_own(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "quickstart", *option]) == 2
    assert f"{option[0]}: for --dry-run alone" in capsys.readouterr().err
