"""What is silenced, and what is not."""

import logging
from collections.abc import Iterator

import pytest

from res2net.training import trainer


@pytest.fixture
def heard() -> Iterator[list[str]]:
    """What the logger of torch's compiler lets through; it is as it was afterwards."""
    logger = logging.getLogger("torch.utils.cpp_extension")
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    filters = list(logger.filters)
    logger.addHandler(handler)
    yield said
    logger.removeHandler(handler)
    logger.filters[:] = filters


def test_only_the_missing_gpu_of_torch_compile_is_not_told(heard: list[str]) -> None:
    logger = logging.getLogger("torch.utils.cpp_extension")
    for _ in range(2):  # a rehearsal builds two trainers
        trainer._quieten()
    # word for word as torch 2.15's _find_cuda_home
    logger.warning("No CUDA runtime is found, using CUDA_HOME='%s'", "/usr/local/cuda")
    logger.warning("something else")
    assert heard == ["something else"]
    assert logger.filters.count(trainer._not_of_a_missing_gpu) == 1
