"""A run shows how far it is: one bar on a terminal, lines elsewhere."""

import os
import pty
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
from rich.live import _RefreshThread
from torch.utils.data import DataLoader, TensorDataset

from res2net.callbacks import progress
from res2net.callbacks.accuracy import Accuracy
from res2net.callbacks.progress import Pace, Progress, duration
from res2net.callbacks.train_metrics import TrainMetrics

STEPS, EPOCHS, VAL_IMAGES = 6, 3, 10


class Toy(L.LightningModule):
    """A linear classifier; its validation has four of five images right."""

    def __init__(self, fail_at: int = -1) -> None:
        super().__init__()
        self.head = torch.nn.Linear(2, 10)
        self.fail_at = fail_at

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> dict[str, torch.Tensor]:
        if self.global_step == self.fail_at:
            raise RuntimeError("out of luck")
        logits = self.head(batch[0])
        loss = torch.nn.functional.cross_entropy(logits, batch[1])
        outputs = {"loss": loss, "batch_loss": loss.detach()}
        return outputs | {"logits": logits.detach(), "labels": batch[1]}

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> dict[str, torch.Tensor]:
        logits = torch.nn.functional.one_hot(batch[1], 10).float()
        logits[0] *= -1
        losses = torch.nn.functional.cross_entropy(logits, batch[1], reduction="none")
        return {"logits": logits, "losses": losses}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([{"params": self.head.parameters(), "lr_scale": 1.0}], lr=0.08)


def fit(
    folder: Path, *, epochs: int = EPOCHS, fail_at: int = -1, ckpt: Path | None = None
) -> tuple[L.Trainer, Progress]:
    metrics = TrainMetrics(every_steps=2, accumulate=1)
    accuracy = Accuracy(10, images=VAL_IMAGES)
    shown = Progress(metrics, accuracy, steps_per_epoch=STEPS, max_epochs=EPOCHS)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        callbacks=[metrics, accuracy, shown],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )

    def loader(images: int) -> DataLoader:
        labels = torch.arange(images) % 10
        return DataLoader(TensorDataset(torch.ones(images, 2), labels), batch_size=5)

    trainer.fit(Toy(fail_at), loader(5 * STEPS), loader(VAL_IMAGES), ckpt_path=ckpt)
    return trainer, shown


def lines(text: str) -> list[str]:
    """Those of this callback: Lightning and torch print warnings to stderr, too."""
    return [line for line in text.splitlines() if line.startswith("epoch ")]


def test_one_line_an_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path)
    first, second, third = lines(capsys.readouterr().err)
    pattern = (
        r"epoch 2/3  step 12/18  train/loss \d\.\d{4}  val/top1 80\.00%  val/loss \d\.\d{4}  "
        r"lr 0\.08  \d+ images/s  \d+ s left"
    )
    assert re.fullmatch(pattern, second)
    assert first.startswith("epoch 1/3  step 6/18")
    assert third.startswith("epoch 3/3  step 18/18")
    assert "left" not in third


def test_lines_within_a_long_epoch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_INTERVAL", 0.0)
    fit(tmp_path)
    shown = lines(capsys.readouterr().err)
    assert len(shown) == EPOCHS * (STEPS + 2 + 1)  # steps, batches of validation, end
    assert "val/top1" not in shown[STEPS - 1]
    assert shown[STEPS].startswith("epoch 1/3  step 6/18  validating  train/loss")
    assert "val/top1" in shown[STEPS + 2]


def test_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer, shown = fit(tmp_path, epochs=2)
    assert shown.state_dict() == {"val": shown.accuracy.results, "best": 0.8}
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    capsys.readouterr()
    _, resumed = fit(tmp_path, ckpt=tmp_path / "last.ckpt")
    (line,) = lines(capsys.readouterr().err)
    assert line.startswith("epoch 3/3  step 18/18")
    assert resumed.state_dict()["best"] == 0.8


def test_silent_on_other_ranks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(L.Trainer, "is_global_zero", False)
    fit(tmp_path)
    assert lines(capsys.readouterr().err) == []


class Terminal:
    """stderr of 100 columns that says it is a terminal, and what was written to it."""

    def __init__(self) -> None:
        controller, self._terminal = pty.openpty()
        self.stderr = os.fdopen(self._terminal, "w")
        self._written = bytearray()
        self._reader = threading.Thread(target=self._read, args=(controller,))
        self._reader.start()

    def _read(self, controller: int) -> None:
        try:
            while chunk := os.read(controller, 1 << 16):
                self._written += chunk
        except OSError:  # how Linux says that the other side is closed
            pass
        os.close(controller)

    def close(self) -> str:
        self.stderr.close()
        self._reader.join()
        return self._written.decode()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Terminal]:
    """Opens the terminal: within the test, as pytest sets its own stderr before each phase."""

    def open_terminal() -> Terminal:
        opened = Terminal()
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setattr(sys, "stderr", opened.stderr)
        return opened

    return open_terminal


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_a_bar_on_a_terminal(tmp_path: Path, terminal: Callable[[], Terminal]) -> None:
    opened = terminal()
    fit(tmp_path)
    written = opened.close()
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") == 1  # cursor hidden, shown
    last = plain(written).splitlines()[-2:]
    assert re.fullmatch(r"epoch 3/3  ━+  step 18/18  \d+ s", last[0].strip())
    assert re.fullmatch(
        r"train/loss \d\.\d{4}  lr 0\.08  val/top1 80\.00% \(best 80\.00%\)  \d+ images/s",
        last[1].strip(),
    )
    assert "step 18/18  train/loss" not in plain(written)  # no lines beside the bar


def refreshing_ends() -> bool:
    """Whether rich's thread ends; it is told to, and looks up a few times a second."""
    deadline = time.monotonic() + 5
    while any(isinstance(thread, _RefreshThread) for thread in threading.enumerate()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_the_terminal_is_given_back_after_an_error(
    tmp_path: Path, terminal: Callable[[], Terminal]
) -> None:
    opened = terminal()
    with pytest.raises(RuntimeError, match="out of luck"):
        fit(tmp_path, fail_at=8)
    assert refreshing_ends()
    written = opened.close()
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") == 1
    assert "step 8/18" in plain(written).splitlines()[-2]


def test_time_left_counts_steps_and_validations_apart() -> None:
    pace = Pace(step=0, steps_per_epoch=10, max_epochs=3)
    now = 100.0  # the first step took 100 s: building pipelines
    for step in range(1, 11):
        pace.step(step, now)
        assert pace.seconds_left(now) == (None if step == 1 else 2.0 * (30 - step))
        now += 2.0
    pace.start_validation(now)
    assert pace.validating
    pace.end_validation(now + 7.0)
    now += 7.0
    assert pace.seconds_left(now) == pytest.approx(20 * 2.0 + 2 * 7.0)
    for step in range(11, 21):
        now += 2.0
        pace.step(step, now)
    pace.start_validation(now)
    assert pace.seconds_left(now + 3.0) == pytest.approx(10 * 2.0 + 4.0 + 7.0)
    assert pace.seconds_left(now + 99.0) == pytest.approx(10 * 2.0 + 7.0)


def test_time_left_of_a_resumed_run_is_judged_by_itself() -> None:
    pace = Pace(step=25, steps_per_epoch=10, max_epochs=4)
    assert pace.seconds_left(0.0) is None
    for index, step in enumerate(range(26, 29)):
        pace.step(step, 5.0 + 3.0 * index)
    assert pace.seconds_left(11.0) == pytest.approx(3.0 * (40 - 28))
    pace.step(29, 14.0)
    pace.step(30, 17.0)
    pace.start_validation(17.0)
    pace.end_validation(27.0)
    assert pace.seconds_left(27.0) == pytest.approx(3.0 * 10 + 10.0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "0 s"),
        (45, "45 s"),
        (59.7, "1 min 0 s"),
        (200, "3 min 20 s"),
        (18_720, "5 h 12 min"),
        (183_600, "2 d 3 h"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
