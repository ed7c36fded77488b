"""Alone, the value itself; in a group, what was said one step before. Two ranks: integration."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed

from res2net.callbacks.agreement import Agreement, patience
from res2net.config.load import load_config
from res2net.training.plan import Plan
from res2net.training.trainer import training_trainer


@pytest.fixture
def group() -> Iterator[None]:
    """A process group of this process alone."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_one_process_hears_itself_at_once() -> None:
    agreement = Agreement(patience(0))
    assert [agreement.exchange(value, 1) for value in (0, 3)] == [(0, 1), (3, 1)]


@pytest.mark.usefixtures("group")
def test_a_group_hears_what_was_said_one_step_before() -> None:
    agreement = Agreement(patience(0))
    said = [(5, 0), (3, 9), (0, 0), (2**40, 1), (0, 0)]
    assert [agreement.exchange(*values) for values in said] == [(0, 0), *said[:-1]]


@pytest.mark.parametrize(("stall_minutes", "minutes"), [(0, 30), (15, 30), (30, 60), (120, 240)])
@pytest.mark.usefixtures("group")
def test_ranks_wait_longer_than_the_watchdog(
    stall_minutes: float, minutes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config("quickstart", [f"trainer.stall_minutes={stall_minutes}"])
    trainer = training_trainer(config, Plan("cpu", 2, 1, threads=1), callbacks=[], logger=False)
    assert isinstance(trainer.strategy, DDPStrategy)
    assert trainer.strategy._timeout == timedelta(minutes=minutes)
    asked: list[timedelta] = []
    monkeypatch.setattr(distributed, "new_group", lambda backend, timeout: asked.append(timeout))
    Agreement(patience(stall_minutes))
    assert asked == [timedelta(minutes=minutes)]
