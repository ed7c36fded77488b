"""A run that is made longer takes the learning rates of the longer run, from its first step on."""

from pathlib import Path

import pytest
import torch

from res2net.cli.main import main
from res2net.config.schema_learning import ScheduleConfig
from res2net.training.optim.schedules import lr_factor

pytestmark = pytest.mark.usefixtures("undrawn")

STEPS = 11


def test_each_step_has_its_own_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    used: list[float] = []
    step = torch.optim.SGD.step

    def watched(self: torch.optim.SGD, closure: object = None) -> object:
        result = step(self, closure)  # type: ignore[arg-type]
        used.append(self.param_groups[0]["lr"])
        return result

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    common = ("train", "quickstart", "data.subset=0.5", "schedule.warmup_epochs=0")
    common += ("logging.every_steps=1",)
    assert main([*common, "trainer.max_epochs=1"]) == 0
    assert main([*common, "trainer.max_epochs=3", "run.resume=auto"]) == 0
    schedule = ScheduleConfig()
    expected = []
    for index in range(3 * STEPS):
        epochs = 1 if index < STEPS else 3
        factor = lr_factor(index, schedule, steps_per_epoch=STEPS, max_epochs=epochs)
        expected.append(0.1 * factor)
    assert used == pytest.approx(expected)
    logged = [
        float(line.split(",")[4])
        for line in Path("checkpoints/quickstart/metrics.csv").read_text().splitlines()
        if ",train,lr," in line
    ]
    assert logged == pytest.approx(expected)
