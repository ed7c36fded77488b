"""`--dry-run`: its numbers are the run's, its problems come all at once, and nothing is left."""

from collections.abc import Callable
from pathlib import Path

import pytest

from res2net.cli.main import main
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
