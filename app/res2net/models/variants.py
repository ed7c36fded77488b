"""The networks that have a name, as data: how each is built, how large it is, how well it does."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from res2net.errors import InputError
from res2net.models.variant import Variant
from res2net.models.variants_cifar import CIFAR
from res2net.models.variants_imagenet import IMAGENET
from res2net.models.variants_paddle import PADDLE

VARIANTS: dict[str, Variant] = {variant.name: variant for variant in (*IMAGENET, *PADDLE, *CIFAR)}

# The names that others gave the same networks.
ALIASES: dict[str, str] = {
    # The authors' functions and files.
    "res2net50": "res2net50_26w_4s",
    "res2net101": "res2net101_26w_4s",
    "res2next50_4s": "res2next50",
    "res2next50_4w_4s_8c": "res2next50",
    "res2net50_v1b": "res2net50_v1b_26w_4s",
    "res2net101_v1b": "res2net101_v1b_26w_4s",
    "res2net152_v1b": "res2net152_v1b_26w_4s",
    "res2net_dla60_4s": "res2net_dla60",
    "res2next_dla60_4s": "res2next_dla60",
    # timm
    "res2net50d": "res2net50_v1b_26w_4s",
    "res2net101d": "res2net101_v1b_26w_4s",
    "dla60_res2net": "res2net_dla60",
    "dla60_res2next": "res2next_dla60",
    # mmpretrain
    "res2net50-w14-s8_3rdparty_8xb32_in1k": "res2net50_14w_8s",
    "res2net50-w26-s8_3rdparty_8xb32_in1k": "res2net50_26w_8s",
    "res2net101-w26-s4_3rdparty_8xb32_in1k": "res2net101_26w_4s",
    "res2net50-w14-s8_8xb32_in1k": "res2net50_14w_8s",
    "res2net50-w26-s8_8xb32_in1k": "res2net50_26w_8s",
    "res2net101-w26-s4_8xb32_in1k": "res2net101_26w_4s",
    # PaddleClas
    "Res2Net50_26w_4s": "res2net50_26w_4s_paddle",
    "Res2Net50_14w_8s": "res2net50_14w_8s_paddle",
    "Res2Net50_vd_26w_4s": "res2net50_vd_26w_4s",
    "Res2Net101_vd_26w_4s": "res2net101_vd_26w_4s",
    "Res2Net200_vd_26w_4s": "res2net200_vd_26w_4s",
}


_TIMM_TAG = ".in1k"
"""timm's names may end with what its weights were trained on."""


def find_variant(name: str) -> Variant:
    """The variant of that name or alias.

    Raises:
        InputError: There is none; the message names the nearest, if any is near.
    """
    plain = name.removesuffix(_TIMM_TAG)
    variant = VARIANTS.get(ALIASES.get(plain, plain))
    if variant is not None:
        return variant
    raise InputError(f"model {name!r}: no such variant; {nearest_variants(name)}")


def nearest_variants(name: str, *, also: Iterable[str] = ()) -> str:
    """What a message about a name that no variant has ends with. `also`: other names to have."""
    nearest = difflib.get_close_matches(name, [*also, *VARIANTS, *ALIASES], n=3, cutoff=0.5)
    return f"the nearest: {', '.join(nearest)}" if nearest else "`res2net models` lists them"
