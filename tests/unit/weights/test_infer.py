"""Variants by the shapes of their tensors."""

import torch

from res2net.models.variants import VARIANTS
from res2net.weights import infer
from res2net.weights.infer import count_parameters, image_channels, infer_variant, only_variant
from res2net.zoo import create_model

NAME = "res2net20_cifar"


def meta(name, **arguments):
    with torch.device("meta"):
        return create_model(name, **arguments).state_dict()


def test_every_variant_is_found_by_its_shapes_alone():
    for name, variant in VARIANTS.items():
        tensors = meta(name)
        assert infer_variant(tensors) == [name]
        assert count_parameters(tensors) == variant.parameters


def test_classes_channels_and_counters_do_not_matter():
    tensors = meta("res2net50_14w_8s", num_classes=7, in_channels=5)
    assert image_channels(tensors) == 5
    assert infer_variant(tensors) == ["res2net50_14w_8s"]
    backbone = {k: v for k, v in tensors.items() if "head" not in k and "num_batches" not in k}
    assert infer_variant(backbone) == ["res2net50_14w_8s"]
    assert infer_variant(meta("res2next_dla60", num_classes=2)) == ["res2next_dla60"]


def test_what_lacks_a_tensor_is_no_variant():
    tensors = meta(NAME)
    del tensors["backbone.stages.0.0.bns.1.bias"]
    assert infer_variant(tensors) == []
    assert infer.nearest_variant(tensors) == NAME
    assert infer_variant({}) == []


def test_pooling_shows_in_no_shape_but_in_whose_keys_they_are(monkeypatch):
    vd = VARIANTS["res2net200_vd_26w_4s"]
    like = {key: getattr(vd, key) for key in ("stride_1_first_as_normal", "pool_count_include_pad")}
    authors = VARIANTS["res2net50_v1b_26w_4s"]
    twin = type(authors)(**(vars(authors) | like | {"name": "twin"}))
    tensors = meta(authors.name)
    assert infer_variant(tensors, format="paddle") == [authors.name]
    assert only_variant(tensors, format="paddle") is None  # Paddle's blocks are others

    monkeypatch.setitem(infer.VARIANTS, "twin", twin)
    assert infer_variant(tensors) == [authors.name, "twin"]
    assert only_variant(tensors, format="res2net") is None
    assert only_variant(tensors, format="official") == authors.name
    assert only_variant(tensors, format="paddle") == "twin"
    # The authors' names for a network of Paddle's: nobody's.
    assert infer_variant(meta(vd.name), format="official") == []
