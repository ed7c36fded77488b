"""`res2net convert SRC DST --to FORMAT`: the same weights under the names of other code."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from res2net.cli.telling import say, tell, tell_json
from res2net.errors import InputError

if TYPE_CHECKING:
    import torch

    from res2net.weights.read import Weights

TARGETS = ("res2net", "official", "timm", "torchvision", "mmpretrain")
# Their code wants nothing but tensors in a .pth.
BARE = ("official", "timm", "torchvision")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("src", metavar="SRC", help="a weights file of any origin, or a run")
    parser.add_argument("dst", metavar="DST", help="a new file: .pth or .safetensors")
    parser.add_argument("--to", choices=TARGETS, required=True, help="whose names it gets")
    parser.add_argument(
        "--model", metavar="NAME", help="variant of SRC, where neither file nor tensors tell"
    )
    parser.add_argument("--ema", action="store_true", help="take the averaged weights of SRC")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Raises InputError: SRC cannot be read or is of no variant, DST exists, or they do not fit."""
    from res2net.files.atomic import new_file
    from res2net.preprocessing import Preprocessing
    from res2net.weights.catalog import identify
    from res2net.weights.formats import from_ours, possible_targets
    from res2net.weights.infer import count_parameters, image_channels
    from res2net.weights.read import read_weights
    from res2net.weights.write import SUFFIXES, describe_weights, write_weights

    target = new_file(arguments.dst, SUFFIXES)
    weights = read_weights(arguments.src, ema=arguments.ema, backbone_only=True)
    if (published := identify(weights.source)) is not None:
        # what is known of this file by its hash, the one that is written has to say itself
        weights = replace(
            weights,
            licence=published.licence,
            preprocessing=weights.preprocessing or Preprocessing(),
        )
    variant = _variant(weights, arguments.model)
    _check_meaning(variant, arguments.to)
    ours = _complete(weights, variant)
    possible = possible_targets(ours)
    if arguments.to not in possible:  # which holds more than --to takes
        choices = ", ".join(target for target in TARGETS if target in possible)
        raise InputError(f"--to {arguments.to}: has no form for {variant} (choices: {choices})")
    theirs = from_ours(ours, arguments.to)
    bare = target.suffix == ".pth" and arguments.to in BARE
    write_weights(target, theirs, description=None if bare else describe_weights(weights, variant))

    result = {
        "source": weights.source,
        "destination": str(target),
        "model": variant,
        "from": _whose(weights, variant),
        "to": arguments.to,
        "tensors": len(theirs),
        "parameters": count_parameters(ours),
        "in_channels": image_channels(ours),
    }
    _warn(weights, theirs)
    if arguments.json:
        tell_json(result)
        return 0
    tell(
        f"{variant}: {len(theirs)} tensors, {result['from']} -> {arguments.to}, "
        f"{result['parameters']:,} parameters, {_channels(result['in_channels'])}{target}"
    )
    if weights.num_classes == 0:
        say("a backbone without a classifier")
    return 0


def _warn(weights: Weights, written: dict[str, torch.Tensor]) -> None:
    """One line on stderr for each thing that the user may not know of these weights."""
    from res2net.weights.formats import name_some

    if weights.has_ema:
        say(
            f"{weights.source}: has averaged weights as well, which --ema takes; these are the raw "
            "ones"
        )
    broken = [key for key, tensor in written.items() if not tensor.isfinite().all()]
    if broken:
        say(
            f"warning: {len(broken)} of {len(written)} tensors have values that are not finite: "
            f"{name_some(broken)}"
        )


def _whose(weights: Weights, variant: str) -> str:
    """Of whom the names of SRC are; some publishers share theirs."""
    from res2net.models.variants import VARIANTS

    named = VARIANTS[variant]
    if weights.format == "official" and named.architecture != "dla" and named.scale > 1:
        return "official/timm"
    return "torchvision/timm" if weights.format == "torchvision" else weights.format


def _channels(number: int) -> str:
    if number == 3:
        return ""
    return f"for images of {number} channel{'' if number == 1 else 's'}, "


def _variant(weights: Weights, named: str | None) -> str:
    """The variant of the weights: as named, as the file says, or as the tensors tell."""
    from res2net.models.variants import find_variant
    from res2net.weights.infer import infer_variant, only_variant
    from res2net.zoo import no_variant

    known = named or weights.model or only_variant(weights.state_dict, format=weights.format)
    if known is not None:
        return find_variant(known).name
    fitting = infer_variant(weights.state_dict, format=weights.format)
    if fitting:
        why = "several variants have these shapes"
        if weights.format == "paddle":
            why = "no variant of these shapes pools and adds as PaddleClas's networks do"
        raise InputError(
            f"weights {weights.source!r}: {why}; say with --model what to take them for "
            f"(choices: {', '.join(fitting)})"
        )
    raise no_variant(weights)


def _complete(weights: Weights, variant: str) -> dict:
    """All tensors of the variant's network, or InputError; missing counters are zeros."""
    import torch

    from res2net.weights.infer import image_channels
    from res2net.weights.read import fit_weights
    from res2net.zoo import create_model

    with torch.device("meta"):  # shapes only
        network = create_model(
            variant,
            num_classes=weights.num_classes or None,
            in_channels=image_channels(weights.state_dict),
        )
    given, _ = fit_weights(network, weights)
    return {
        key: torch.zeros(tensor.shape, dtype=tensor.dtype) if tensor.is_meta else tensor
        for key, tensor in given.items()
        if weights.num_classes or not key.startswith("head.")
    }


def _check_meaning(variant: str, target: str) -> None:
    """Refuse names under which another network would compute with these weights."""
    from res2net.models.variants import VARIANTS
    from res2net.weights.infer import pools_as_paddle

    if target != "res2net" and pools_as_paddle(VARIANTS[variant]):
        raise InputError(
            f"--to {target}: {variant} pools and adds as PaddleClas does, their code would compute "
            "something else with these weights (choices: res2net)"
        )
