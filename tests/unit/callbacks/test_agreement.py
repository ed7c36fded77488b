"""Alone, the value itself; in a group, what was said one step before. Two ranks: integration."""

from collections.abc import Iterator

import pytest
from torch import distributed

from res2net.callbacks.agreement import Agreement


@pytest.fixture
def group() -> Iterator[None]:
    """A process group of this process alone."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_one_process_hears_itself_at_once() -> None:
    agreement = Agreement()
    assert [agreement.exchange(value, 1) for value in (0, 3)] == [(0, 1), (3, 1)]


@pytest.mark.usefixtures("group")
def test_a_group_hears_what_was_said_one_step_before() -> None:
    agreement = Agreement()
    said = [(5, 0), (3, 9), (0, 0), (2**40, 1), (0, 0)]
    assert [agreement.exchange(*values) for values in said] == [(0, 0), *said[:-1]]
