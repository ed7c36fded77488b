"""What `--plot-schedule` says of a run that is yet to come."""

from pathlib import Path

import pytest

from res2net.config.load import load_config
from res2net.errors import InputError
from res2net.training.rehearsal.plot_schedule import plan_rates, plot_schedule


def test_the_ends_of_the_quickstart() -> None:
    planned = plan_rates(load_config("quickstart", ["schedule.end_factor=0.1"]))
    # 1,437 training images in batches of 64
    assert (planned.steps_per_epoch, len(planned.rates)) == (22, 440)
    assert planned.rates[0] == pytest.approx(0.001)
    assert planned.rates.highest == 22 and planned.rates[22] == pytest.approx(0.1)
    assert planned.rates[-1] == pytest.approx(0.01, rel=1e-3) and planned.rates[-1] > 0.01
    assert planned.lines() == [
        "lr 0.001 at the first step, 0.1 at its peak (step 22, epoch 1), 0.01 at the last (step "
        "439); 22 steps an epoch"
    ]


def test_scales_and_batch_are_told(tmp_path: Path) -> None:
    overrides = ["optim.lr_batch=128", "optim.layer_decay=0.5", "optim.head_lr=4", "optim.freeze=1"]
    planned = plot_schedule(load_config("quickstart", overrides), tmp_path / "plot.png")
    assert planned.layer_scales == pytest.approx([0.5**below for below in (5, 4, 3, 2, 1)])
    assert planned.rates[22] == pytest.approx(0.05)
    announcement, _, scales = planned.lines()
    assert announcement == (
        "optim.lr: 0.1 for 128 images, 0.05 for data.global_batch_size=64 (linear)"
    )
    assert scales == ("the layers have 0.0312 to 0.5 times as much; the head has 4 times as much")
    assert [path.name for path in tmp_path.iterdir()] == ["plot.png"]


@pytest.mark.parametrize(
    "override", ["schedule.warmup_epochs=30", "optim.freeze=7", "data.global_batch_size=9999999"]
)
def test_what_cannot_be_run_is_not_drawn(tmp_path: Path, override: str) -> None:
    with pytest.raises(InputError, match=override.partition("=")[0]):
        plot_schedule(load_config("quickstart", [override]), tmp_path / "plot.png")
    assert not list(tmp_path.iterdir())
