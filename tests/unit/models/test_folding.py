"""Folded networks compute what their originals do, without one batch norm."""

import pytest
import torch
from torch import nn

from families import FAMILIES
from res2net.models.folding import fold_batch_norms
from res2net.models.head import Res2NetClassifier


def with_statistics(name):
    """In float64, where rounding cannot hide a mistake; norms as training leaves them."""
    torch.manual_seed(0)
    network = Res2NetClassifier(FAMILIES[name](), 7).double().train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            module.momentum = None
    with torch.no_grad():
        network(torch.randn(8, 3, 65, 65, dtype=torch.float64))
    return network


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_logits(name):
    network = with_statistics(name)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    folded = fold_batch_norms(network)
    assert not [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]
    assert not folded.training and network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    images = torch.randn(3, 3, 65, 65, dtype=torch.float64)
    with torch.inference_mode():
        expected, found = network.eval()(images), folded(images)
    assert expected.std() > 0.01
    assert (found - expected).abs().max() <= 1e-10 * expected.std()


def test_a_norm_that_stands_elsewhere():
    with pytest.raises(ValueError, match=r"do not stand after a convolution: 0$"):
        fold_batch_norms(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)))
