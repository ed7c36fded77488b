"""What a configuration says of the data: keys that do not go together."""

import pytest

from res2net.config.load import load_config
from res2net.errors import InputError
from res2net.training.data import _check


def test_all_problems_are_listed_at_once() -> None:
    config = load_config(
        "quickstart",
        [
            "augment.start_size=64",
            "augment.crop=pad",
            "augment.grow_until=9.0",
            "augment.grow_from=9",
            "data.image_size=32",
            "data.global_batch_size=64",
            "trainer.max_epochs=5",
        ],
    )
    with pytest.raises(InputError) as caught:
        _check(config.augment, config.data, config.trainer.max_epochs)
    problems = str(caught.value).split("; ")
    assert [problem.partition(":")[0] for problem in problems] == [
        "augment.start_size=64",
        "augment.start_size=64",
        "augment.grow_until=9.0",
        "augment.grow_from=9.0",
    ]
    config = load_config("quickstart", [])
    _check(config.augment, config.data, config.trainer.max_epochs)
