"""W&B keeps one id for a run and never ends it. No test leaves the machine."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import lightning as L
import pytest
import wandb
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import WandbLogger
from PIL import Image

from disks import SmallDisk
from ranks import call
from res2net.callbacks import wandb as ours
from res2net.callbacks.mistake import Mistake
from res2net.callbacks.wandb import Mode, Wandb, wandb_logger
from res2net.errors import InputError
from res2net.files.runs import RunDirectory
from wandb_files import history, records

CONFIG = {"optim": {"lr": 0.1}, "run": {"name": "trial"}}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunDirectory]:
    """A new run directory, on a machine where nobody is logged in."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    directory = RunDirectory(tmp_path / "runs" / "my trial")
    directory.path.mkdir(parents=True)
    yield directory
    wandb.teardown()


def start(run: RunDirectory, mode: Mode = "offline") -> Wandb | None:
    return wandb_logger(run, mode=mode, project="res2net", config=CONFIG)


def legs(run: RunDirectory) -> list[str]:
    return sorted(path.name for path in (run.path / "wandb").iterdir())


def written(run: RunDirectory) -> Path:
    """The folder of the only leg, when all of it is on the disk: W&B's helper writes the rest as
    it ends."""
    wandb.teardown()
    (leg,) = (run.path / "wandb").glob("offline-run-*")
    return leg


def fit(logger: WandbLogger, folder: Path) -> None:
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=3,
        logger=logger,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        default_root_dir=folder,
    )
    trainer.fit(BoringModel())


def test_two_legs_share_one_id(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    logger = start(run)
    assert logger is not None
    assert run.wandb_id.read_text() == f"{logger.experiment.id}\n"
    assert logger.experiment.name == "my trial"
    assert dict(logger.experiment.config) == CONFIG
    logger.log_metrics({"train/loss": 1.0}, step=50)
    assert logger.experiment.summary["trainer/global_step"] == 50
    fit(logger, run.path)
    with pytest.raises(wandb.errors.UsageError, match="finished"):  # by the end of the fit
        logger.experiment.log({"train/loss": 1.0})

    time.sleep(1.1)  # W&B names a leg's folder by the second it starts in
    resumed = start(run)
    assert resumed is not None
    assert resumed.experiment.id == logger.experiment.id
    resumed.finalize("success")

    identifier = run.wandb_id.read_text().strip()
    assert len(legs(run)) == 2
    assert all(leg.startswith("offline-run-") and leg.endswith(identifier) for leg in legs(run))
    err = [
        line for line in capsys.readouterr().err.splitlines() if "W&B" in line or "wandb" in line
    ]
    assert err == [f"W&B: upload by: wandb sync '{run.path}/wandb'/offline-run-*"] * 2
    assert not [path for path in run.path.rglob("*") if path.suffix in (".py", ".patch", ".diff")]


def test_disabled(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    assert start(run, "disabled") is None
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert start(run, "auto") is None
    assert list(run.path.iterdir()) == []


def test_other_ranks_create_nothing(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert start(run) is None
    assert list(run.path.iterdir()) == []


def test_auto_is_offline_where_nobody_is_logged_in(run: RunDirectory) -> None:
    logger = start(run, "auto")
    assert logger is not None
    assert logger.experiment.offline


def test_online_where_nobody_is_logged_in(run: RunDirectory) -> None:
    with pytest.raises(InputError, match=r"logging\.wandb=online: nobody is logged in"):
        start(run, "online")
    assert list(run.path.iterdir()) == []


@pytest.mark.parametrize("login", ["variable", "netrc"])
def test_offline_where_the_server_does_not_answer(
    run: RunDirectory,
    login: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ours, "INIT_TIMEOUT", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, says nothing
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("WANDB_BASE_URL", f"http://{address}")
        if login == "variable":
            monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        else:
            Path(os.environ["NETRC"]).write_text(f"machine {address} login me password {'a' * 40}")
        began = time.monotonic()
        logger = start(run, "auto")
        assert time.monotonic() - began < 20
    assert logger is not None
    assert logger.experiment.offline
    assert logger.experiment.id == run.wandb_id.read_text().strip()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("W&B: online does not start, logging offline: ")


def test_a_refused_connection_ends_within_fifteen_seconds(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    began = time.monotonic()
    logger = start(run, "auto")
    assert time.monotonic() - began < 15
    assert logger is not None
    assert logger.experiment.offline
    logger.finalize("success")
    first, last = capsys.readouterr().err.splitlines()
    assert "online does not start, logging offline" in first
    assert last == f"W&B: upload by: wandb sync '{run.path}/wandb'/offline-run-*"


def mistake(number: int) -> Mistake:
    image = Image.new("RGB", (160, 160), (number, 0, 0))
    return Mistake(number, image, "cat", "dog", probability=0.5, loss=2.0)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_the_end_has_pictures_mistakes_and_the_checkpoint_if_asked(
    run: RunDirectory, checkpoint: bool
) -> None:
    run.plots.mkdir()
    Image.new("RGB", (30, 20)).save(run.plots / "curves.png")
    run.best.write_bytes(b"weights")
    logger = wandb_logger(run, mode="offline", project="p", config={}, checkpoint=checkpoint)
    assert logger is not None
    logger.log_metrics({"train/loss": 1.0}, step=7)
    logger.log_end(run.plots, [mistake(n) for n in range(120)], step=9)
    logger.finalize("success")

    leg = written(run)
    row = history(leg)[-1]
    assert row["trainer/global_step"] == 9
    assert (row["val/mistakes/nrows"], row["val/mistakes/ncols"]) == (100, 6)
    assert (row["plots/curves/width"], row["plots/curves/height"]) == (30, 20)
    assert (leg / "files" / row["plots/curves/path"]).is_file()
    artifacts = [r.artifact for r in records(next(leg.glob("*.wandb"))) if r.HasField("artifact")]
    files = [Path(part.local_path) for part in artifacts[-1].manifest.contents]
    # what is yet to be uploaded stays in the run directory
    assert files and all(file.is_relative_to(run.path.resolve()) for file in files)
    models = [artifact for artifact in artifacts if artifact.type == "model"]
    assert len(models) == checkpoint
    for model in models:
        assert "best" in model.aliases
        (part,) = model.manifest.contents
        assert (part.path, Path(part.local_path).read_bytes()) == ("best.ckpt", b"weights")
    assert "WANDB_DATA_DIR" not in os.environ


def test_no_checkpoint_of_a_run_that_failed(run: RunDirectory) -> None:
    run.best.write_bytes(b"weights")
    logger = wandb_logger(run, mode="offline", project="p", config={}, checkpoint=True)
    assert logger is not None
    logger.finalize("failed")
    leg = written(run)
    assert not [r for r in records(next(leg.glob("*.wandb"))) if r.HasField("artifact")]


def test_a_broken_picture_ends_only_the_log(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    run.plots.mkdir()
    (run.plots / "curves.png").write_bytes(b"no picture")
    logger = start(run)
    assert logger is not None
    logger.log_end(run.plots, [], step=1)
    logger.finalize("success")
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("W&B")]
    assert "stopped, going on without it" in err[0]
    assert len(err) == 2


def test_a_bad_key_is_named(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "short")
    logger = start(run, "auto")
    assert logger is not None
    assert logger.experiment.offline
    assert "WANDB_API_KEY invalid" in capsys.readouterr().err
    logger.finalize("success")
    with pytest.raises(InputError, match="WANDB_API_KEY invalid"):
        start(run, "online")


def test_a_dead_helper_does_not_end_the_fit(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = start(run)
    assert logger is not None
    (helper,) = helpers(os.getpid())
    os.kill(helper, signal.SIGTERM)  # as SLURM does to all processes of a step
    while Path(f"/proc/{helper}").is_dir() and "Z" not in state(helper):
        time.sleep(0.01)
    logger.log_metrics({"train/loss": 1.0}, step=1)
    logger.log_metrics({"train/loss": 1.0}, step=2)
    fit(logger, run.path)
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("W&B")]
    assert len(err) == 2
    assert "stopped, going on without it" in err[0]
    assert "wandb sync" in err[1]


@pytest.mark.parametrize("id_is_there", [True, False])
def test_a_full_disk_at_the_start(
    run: RunDirectory,
    id_is_there: bool,
    small_disk: Callable[[float], SmallDisk],
    capfd: pytest.CaptureFixture[str],
) -> None:
    disk = small_disk(1)
    run = RunDirectory(disk.path)
    if id_is_there:
        run.wandb_id.write_text("abc\n")
    disk.fill()
    logger = start(run)
    if logger is not None:
        for step in range(1000):
            logger.log_metrics({"train/loss": 1.0}, step=step)
        logger.finalize("success")
    err = capfd.readouterr().err.splitlines()
    assert (len(err), logger is None) == ((2, False) if id_is_there else (1, True)), err
    assert ("lacks what a full" if id_is_there else "No space left on device") in err[0]


def test_a_full_disk_later_does_not_end_the_fit(
    run: RunDirectory,
    small_disk: Callable[[float], SmallDisk],
    capfd: pytest.CaptureFixture[str],
) -> None:
    disk = small_disk(1)
    logger = start(RunDirectory(disk.path))
    assert logger is not None
    logger.log_metrics({"train/loss": 1.0}, step=1)
    disk.fill()
    for step in range(2, 2000):
        logger.log_metrics({"train/loss": 1.0}, step=step)
    logger.finalize("success")
    lacks, upload = capfd.readouterr().err.splitlines()
    assert lacks.startswith("W&B: lacks what a full or read-only disk did not take")
    assert "wandb sync" in upload


def log_and_die(rank: int, run: RunDirectory, environment: dict[str, str], told: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    logger = start(run)
    assert logger is not None
    logger.log_metrics({"train/loss": 1.0}, step=1)
    assert len(helpers(os.getpid())) == 1
    told.write_text(str(os.getpid()))
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_run_can_be_resumed(run: RunDirectory, tmp_path: Path) -> None:
    told = tmp_path / "pid"
    call(log_and_die, run, dict(os.environ), told, ranks=1, exit_code=-signal.SIGKILL)
    killed = int(told.read_text())
    identifier = run.wandb_id.read_text().strip()
    logger = start(run)
    assert logger is not None
    assert logger.experiment.id == identifier
    assert len(legs(run)) == 2
    deadline = time.monotonic() + 20
    while helpers(killed) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert helpers(killed) == []  # the helper does not outlive its run


def helpers(pid: int) -> list[int]:
    """Living W&B helper processes of a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile
            continue
        if b"wandb-core" in words[0] and str(pid).encode() in words:
            found.append(int(path.parent.name))
    return found


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
