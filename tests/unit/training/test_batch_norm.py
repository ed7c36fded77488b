"""What is said of batch norm is what torch does."""

import pytest
import torch

from res2net import create_model
from res2net.config.load import load_config
from res2net.errors import InputError
from res2net.training.batch_norm import check_batch_norm, values_per_image
from res2net.training.optim.freezing import freeze_parts, frozen_parts, hold_still
from res2net.training.plan import Plan


@pytest.mark.parametrize(
    ("variant", "size", "freeze", "values"),
    [
        ("res2net50_26w_4s", 32, "none", 1),
        ("res2net50_26w_4s", 32, "3", 1),
        ("res2net50_26w_4s", 32, "backbone", 2**31),
        ("res2net50_26w_4s", 33, "none", 4),
        ("res2net_dla60", 32, "none", 1),
        ("res2net20_cifar", 8, "none", 4),
        ("res2net20_cifar", 8, "3", 2**31),
    ],
)
def test_it_is_refused_where_torch_refuses_it(
    variant: str, size: int, freeze: str, values: int
) -> None:
    model = create_model(variant).train()
    frozen = frozen_parts(model, freeze)
    freeze_parts(frozen)
    hold_still(frozen)
    assert values_per_image(variant, size, freeze=freeze) == values
    try:
        model(torch.rand(1, 3, size, size)).sum().backward()
    except ValueError as error:
        assert "more than 1 value per channel" in str(error)
        assert values == 1
    else:
        assert values > 1


def test_the_images_of_other_devices_count_where_statistics_are_shared() -> None:
    changes = ["model.name=res2net50_26w_4s", "data.image_size=32", "data.global_batch_size=4"]
    two = Plan("cuda", devices=2, num_nodes=2, threads=1)
    config = load_config("quickstart", changes)
    with pytest.raises(InputError, match=r"=8 or a larger .* or trainer\.sync_batchnorm=true"):
        check_batch_norm(config, two)
    check_batch_norm(load_config("quickstart", [*changes, "trainer.sync_batchnorm=true"]), two)
    check_batch_norm(config, Plan("cuda", devices=2, num_nodes=1, threads=1))
    # one device has no others
    alone = [*changes, "trainer.sync_batchnorm=true", "trainer.accumulate=4"]
    with pytest.raises(InputError, match=r"a smaller trainer\.accumulate"):
        check_batch_norm(load_config("quickstart", alone), Plan("cuda", 1, 1, threads=1))
