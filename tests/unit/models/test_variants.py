"""The table of variants, recounted."""

import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from res2net.errors import InputError
from res2net.models.variants import ALIASES, VARIANTS, find_variant
from res2net.zoo import create_model

# Counted by others, on timm's models: exact.
TIMM_PARAMETERS = {
    "res2net50_48w_2s": 25_287_304,
    "res2net50_26w_4s": 25_699_120,
    "res2net50_14w_8s": 25_059_816,
    "res2net50_26w_6s": 37_051_448,
    "res2net50_26w_8s": 48_403_776,
    "res2net101_26w_4s": 45_206_688,
    "res2next50": 24_671_464,
    "res2net50_v1b_26w_4s": 25_718_352,
    "res2net101_v1b_26w_4s": 45_225_920,
}
# Millions of parameters and GMACs, counted on the authors' and PaddleClas's code.
PUBLISHED = {
    "res2net50_48w_2s": ("25.287", "4.160"),
    "res2net50_26w_4s": ("25.699", "4.255"),
    "res2net50_14w_8s": ("25.060", "4.179"),
    "res2net50_26w_6s": ("37.051", "6.296"),
    "res2net50_26w_8s": ("48.404", "8.336"),
    "res2net50_18w_4s": ("18.095", "2.898"),
    "res2net50_18w_6s": ("25.159", "4.181"),
    "res2net101_26w_4s": ("45.207", "8.067"),
    "res2next50": ("24.671", "4.173"),
    "res2net50_v1b_26w_4s": ("25.718", "4.495"),
    "res2net101_v1b_26w_4s": ("45.226", "8.307"),
    "res2net152_v1b_26w_4s": ("61.294", "12.118"),
    "res2net200_vd_26w_4s": ("76.216", "15.706"),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_and_macs_are_those_of_the_network(name):
    variant = VARIANTS[name]
    with torch.device("meta"):
        model = create_model(name).eval()
        images = torch.empty(1, 3, variant.image_size, variant.image_size)
        with FlopCounterMode(display=False) as counter:
            logits = model(images)
    assert logits.shape == (1, variant.num_classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == variant.parameters
    assert counter.get_total_flops() == 2 * variant.macs


@pytest.mark.parametrize("name", TIMM_PARAMETERS)
def test_parameters_to_the_digit(name):
    assert VARIANTS[name].parameters == TIMM_PARAMETERS[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_to_the_printed_decimals(name):
    variant = VARIANTS[name]
    sizes = (f"{variant.parameters / 1e6:.3f}", f"{variant.macs / 1e9:.3f}")
    assert sizes == PUBLISHED[name]


def test_every_variant_but_our_own_is_compared_with_published_sizes():
    assert set(VARIANTS) - set(PUBLISHED) == {"res2net20_cifar"}


def test_small_variant_s_file_stays_below_a_megabyte():
    assert VARIANTS["res2net20_cifar"].parameters < 230_000


@pytest.mark.parametrize("name", VARIANTS)
def test_accuracy_comes_with_its_measurer(name):
    variant = VARIANTS[name]
    given = [variant.top1 is not None, variant.top5 is not None, variant.measured_by is not None]
    assert all(given) or not any(given)
    if variant.top1 is not None:
        assert 50 < variant.top1 < variant.top5 < 100


def test_aliases_lead_to_variants_and_hide_none():
    assert set(ALIASES.values()) <= set(VARIANTS)
    assert not set(ALIASES) & set(VARIANTS)
    assert find_variant("res2net50d").name == "res2net50_v1b_26w_4s"
    assert find_variant("res2next50") is VARIANTS["res2next50"]


@pytest.mark.parametrize(
    ("wrong", "nearest"), [("res2net50_26w4s", "res2net50_26w_4s"), ("res2nxt50", "res2next50")]
)
def test_unknown_name_is_answered_with_the_nearest(wrong, nearest):
    with pytest.raises(InputError, match=re.escape(f"model {wrong!r}: no such variant")) as caught:
        find_variant(wrong)
    assert nearest in str(caught.value)
    assert "\n" not in str(caught.value)


def test_name_near_to_nothing_is_answered_with_all():
    with pytest.raises(InputError) as caught:
        find_variant("???")
    assert all(name in str(caught.value) for name in VARIANTS)
