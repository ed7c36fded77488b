"""Variants by the shapes of their tensors."""

import pytest
import torch

from res2net.models.variants import VARIANTS
from res2net.weights.infer import (
    count_parameters,
    image_channels,
    infer_variant,
    only_variant,
    stage_depths,
)
from res2net.zoo import create_model

NAME = "res2net20_cifar"


def meta(name, **arguments):
    with torch.device("meta"):
        return create_model(name, **arguments).state_dict()


# The same shapes: pooling and adding shows in none.
TWINS = {
    "res2net50_26w_4s": "res2net50_26w_4s_paddle",
    "res2net50_14w_8s": "res2net50_14w_8s_paddle",
    "res2net50_v1b_26w_4s": "res2net50_vd_26w_4s",
    "res2net101_v1b_26w_4s": "res2net101_vd_26w_4s",
}


def test_every_variant_is_found_by_its_shapes_alone():
    twins = TWINS | {theirs: authors for authors, theirs in TWINS.items()}
    for name, variant in VARIANTS.items():
        tensors = meta(name)
        expected = {name, twins[name]} if name in twins else {name}
        assert set(infer_variant(tensors)) == expected
        assert count_parameters(tensors) == variant.parameters


@pytest.mark.parametrize("authors", TWINS)
def test_whose_keys_they_are_tells_the_authors_networks_from_paddle_s(authors):
    tensors = meta(authors)
    for format in ("official", "timm", "mmpretrain", "mmdet"):
        assert infer_variant(tensors, format=format) == [authors]
        assert only_variant(tensors, format=format) == authors
    assert infer_variant(tensors, format="paddle") == [TWINS[authors]]
    assert only_variant(tensors, format="paddle") == TWINS[authors]
    # Our keys do not say how the blocks pooled: nobody guesses.
    assert only_variant(tensors, format="res2net") is None


def test_classes_channels_and_counters_do_not_matter():
    tensors = meta("res2net50_14w_8s", num_classes=7, in_channels=5)
    assert image_channels(tensors) == 5
    assert infer_variant(tensors, format="official") == ["res2net50_14w_8s"]
    backbone = {k: v for k, v in tensors.items() if "head" not in k and "num_batches" not in k}
    assert infer_variant(backbone, format="official") == ["res2net50_14w_8s"]
    assert infer_variant(meta("res2next_dla60", num_classes=2)) == ["res2next_dla60"]


def test_what_lacks_a_tensor_is_no_variant():
    tensors = meta(NAME)
    del tensors["backbone.stages.0.0.bns.1.bias"]
    assert infer_variant(tensors) == []
    assert infer_variant({}) == []


def test_shapes_of_which_paddle_has_no_network():
    tensors = meta("res2net101_26w_4s")
    assert infer_variant(tensors, format="paddle") == ["res2net101_26w_4s"]
    assert only_variant(tensors, format="paddle") is None  # Paddle's blocks are others
    # The authors' names for a network that only PaddleClas has: nobody's.
    assert infer_variant(meta("res2net200_vd_26w_4s"), format="official") == []


@pytest.mark.parametrize("key", ["stages1.0.bn3", "stages.x.0.bn3", "stages.1", "stages.².0.b"])
def test_keys_that_are_of_no_block(key):
    tensors = {f"backbone.{key}": torch.zeros(1)}
    assert infer_variant(tensors, format="res2net") == [] and stage_depths(tensors) == ()
