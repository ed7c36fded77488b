"""What is frozen stays as it is, to the bit."""

import pytest
import torch
from torch.nn import functional as F

from res2net.config.schema_learning import OptimConfig
from res2net.errors import InputError
from res2net.training.optim.freezing import freeze_parts, frozen_parts, hold_still
from res2net.training.optim.optimizers import build_optimizer
from res2net.zoo import create_model

SMALL_DLA_STEM = ("base_layer.", "level0.", "level1.")


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb", "muon"])
@pytest.mark.parametrize(
    ("freeze", "prefixes"),
    [
        ("none", ()),
        ("0", ("backbone.stem.",)),
        ("2", ("backbone.stem.", "backbone.stages.0.", "backbone.stages.1.")),
        ("backbone", ("backbone.",)),
    ],
)
def test_training_moves_the_rest_alone(name: str, freeze: str, prefixes: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    model = create_model("res2net20_cifar", num_classes=5, drop_path=0.5)
    parts = frozen_parts(model, freeze)
    freeze_parts(parts)
    optim = OptimConfig(name=name, weight_decay=0.1, decay_norm_and_bias=True)  # type: ignore[arg-type]
    optimizer = build_optimizer(model, optim, lr=0.1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for _ in range(3):
        model.train()
        hold_still(parts)
        optimizer.zero_grad()
        F.cross_entropy(model(torch.randn(4, 3, 16, 16)), torch.arange(4)).backward()
        optimizer.step()
    still = {key for key, value in model.state_dict().items() if torch.equal(value, before[key])}
    assert still == {key for key in before if key.startswith(prefixes)}


def test_drop_path_of_frozen_blocks_is_off() -> None:
    torch.manual_seed(0)
    model = create_model("res2net20_cifar", drop_path=0.9).train()
    parts = frozen_parts(model, "backbone")
    images = torch.randn(2, 3, 16, 16)
    hold_still(parts)
    assert torch.equal(model(images), model(images))
    assert model.training and model.head.training


@pytest.mark.parametrize("variant", ["res2net_dla60", "res2next_dla60"])
def test_a_dla_has_three_parts_in_its_stem(variant: str) -> None:
    model = create_model(variant)
    freeze_parts(frozen_parts(model, "1"))
    frozen = {name for name, p in model.backbone.named_parameters() if not p.requires_grad}
    expected = (*SMALL_DLA_STEM, "level2.")
    assert frozen == {n for n, _ in model.backbone.named_parameters() if n.startswith(expected)}
    freeze_parts(frozen_parts(model, "4"))
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())
    assert all(parameter.requires_grad for parameter in model.head.parameters())


@pytest.mark.parametrize("freeze", ["4", "99", "all"])
def test_more_stages_than_there_are(freeze: str) -> None:
    with pytest.raises(InputError) as caught:
        frozen_parts(create_model("res2net20_cifar"), freeze)
    assert str(caught.value) == (
        f"optim.freeze={freeze}: res2net20_cifar has 3 stages; choices: none, backbone, 0 (the "
        "stem alone) to 3"
    )
