"""`res2net export MODEL --to FORM --out PATH`: a trained network as a file for other programs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from res2net.cli.arguments import (
    add_model_arguments,
    add_preprocessing_arguments,
    asked_preprocessing,
)
from res2net.cli.images import find_images
from res2net.cli.telling import plain_warnings, say, shown, tell, tell_json
from res2net.data.sources.scan import counted
from res2net.errors import InputError
from res2net.files.atomic import new_file

if TYPE_CHECKING:
    import torch

    from res2net.export.compare import Agreement
    from res2net.export.source import InputKind, Source

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors", "folder": ""}

CALIBRATE_ON = 500
"""Images that set the ranges of int8, at most; as many others are compared on."""
_FEW = 100
"""With fewer the user is told."""

_WEIGHTS = ("safetensors", "folder")

# which form knows which options
_ONLY = {
    "int8": ("onnx",),
    "calibrate": ("onnx",),
    "input": ("onnx", "torch"),
    "check": ("onnx", "torch"),
    "fold_bn": ("onnx", "torch", "safetensors"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument(
        "--to",
        choices=list(SUFFIXES),
        required=True,
        help="onnx (needs the extra `export`), torch (torch.export), safetensors (by this "
        "project's keys; `convert` writes those of others), or folder (as Hugging Face's Hub has "
        "it, with a model card; by timm's keys, for timm to read, where timm has the variant, else "
        "by this project's)",
    )
    parser.add_argument(
        "--out",
        metavar="PATH",
        required=True,
        help="a new file: .onnx, .pt2 or .safetensors; for `folder` a new folder",
    )
    parser.add_argument(
        "--input",
        choices=["normalised", "uint8"],
        help="what the file takes: float32 images that the caller normalises, or uint8 pixels, "
        "which it normalises itself; both (N, 3, S, S), resized and cropped (normalised)",
    )
    parser.add_argument(
        "--fold-bn",
        action="store_true",
        help="fold batch norms into the convolutions: fewer layers, for inference alone (onnx: "
        "always)",
    )
    parser.add_argument(
        "--int8", action="store_true", help="onnx with integers of 8 bits; needs --calibrate"
    )
    parser.add_argument(
        "--calibrate",
        metavar="DIR",
        help=f"images for --int8: every second of up to {2 * CALIBRATE_ON:,} sets the ranges, the "
        "others are compared on",
    )
    parser.add_argument(
        "--check",
        metavar="DIR",
        help="images to compare the logits of onnx and torch on (generated ones; with --int8 half "
        "of --calibrate); weights are read back and compared bit for bit",
    )
    parser.add_argument(
        "--licence", metavar="TEXT", help="of the weights (that of the published weights)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    add_preprocessing_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Raises InputError, and WorkError: the file was not written, as it is not right or cannot."""
    _check_options(arguments)
    # before anything slow; a folder may have any name
    suffix = SUFFIXES[arguments.to] or Path(arguments.out).suffix
    new_file(arguments.out, (suffix,))
    if arguments.to == "onnx":
        from res2net.export.onnx import PACKAGES
        from res2net.export.source import require

        require(PACKAGES)
    for_ranges = find_images([arguments.calibrate]) if arguments.calibrate else []
    for_check = find_images([arguments.check]) if arguments.check else []

    from res2net.export.source import open_source  # PyTorch takes seconds

    with plain_warnings():
        source = open_source(
            arguments.model,
            weights=arguments.weights,
            checkpoint=arguments.checkpoint,
            ema=arguments.ema,
            licence=arguments.licence,
            preprocessing=asked_preprocessing(arguments),
        )
    if source.weights.has_ema:
        say(
            f"{source.weights.source}: has averaged weights as well, which --ema takes; these are "
            "the raw ones"
        )
    found = _export(source, arguments, for_ranges, for_check)
    _tell(source, arguments, found)
    return 0


def _check_options(arguments: argparse.Namespace) -> None:
    for name, forms in _ONLY.items():
        if getattr(arguments, name) and arguments.to not in forms:
            option = name.replace("_", "-")
            raise InputError(
                f"--{option}: not for --to {arguments.to} (choices: {', '.join(forms)})"
            )
    if arguments.int8 and not arguments.calibrate:
        raise InputError(
            "--int8: needs --calibrate DIR, images like those that it will see, which set the "
            "ranges of its activations"
        )
    if arguments.calibrate and not arguments.int8:
        raise InputError("--calibrate: only --int8 is calibrated; give that as well")


def _export(
    source: Source,
    arguments: argparse.Namespace,
    for_ranges: Sequence[str],
    for_check: Sequence[str],
) -> Agreement | None:
    takes: InputKind = arguments.input or "normalised"
    check = _pixels(source, for_check) if for_check else None
    if arguments.to == "folder":
        from res2net.export.folder import export_folder

        export_folder(source, arguments.out)
        return None
    if arguments.to == "safetensors":
        from res2net.export.safetensors import export_safetensors

        return export_safetensors(source, arguments.out, fold=arguments.fold_bn)
    if arguments.to == "torch":
        from res2net.export.torch_export import export_program

        return export_program(
            source, arguments.out, takes=takes, fold=arguments.fold_bn, check=check
        )
    from res2net.export.onnx import export_int8, export_onnx, split_images

    if not arguments.int8:
        return export_onnx(source, arguments.out, takes=takes, check=check)
    ranges, others = split_images(for_ranges, most=CALIBRATE_ON)
    if len(ranges) < _FEW:
        say(f"{counted(len(ranges), 'image')} of --calibrate set the ranges: hundreds are better")
    return export_int8(
        source,
        arguments.out,
        calibrate=_pixels(source, ranges),
        check=check or _pixels(source, others),
        takes=takes,
    )


def _pixels(source: Source, images: Sequence[str]) -> Callable[[], Iterator[torch.Tensor]]:
    """Batches of uint8 (N, 3, S, S), as evaluation sees the images."""
    from res2net.inference.images import name_images, read_batches

    def read() -> Iterator[torch.Tensor]:
        transform = source.preprocessing.transform()
        named = name_images(images)
        for _, pixels in read_batches(named, transform, batch_size=16, on_unreadable=None):
            yield pixels

    return read


def _tell(source: Source, arguments: argparse.Namespace, found: Agreement | None) -> None:
    out = Path(arguments.out)
    files = sorted(out.iterdir()) if out.is_dir() else [out]
    size = sum(os.path.getsize(file) for file in files)
    if arguments.json:
        result: dict[str, Any] = {
            "model": source.variant,
            "weights": source.weights.source,
            "to": arguments.to,
            "file": str(out),
            "bytes": size,
            "num_classes": source.network.num_classes,
            "licence": source.licence,
            "images": found.images if found else None,
            "error": found.error if found else None,
            "same_top1": found.same_top1 if found else None,
            "same_tensors": True if arguments.to in _WEIGHTS else None,  # or there were no file
        }
        tell_json(result)
        return
    tell(
        f"{shown(out)}: {source.variant}, {source.network.num_classes:,} classes, "
        f"{size / 1e6:.1f} MB, licence: {shown(source.licence)}"
    )
    if arguments.to in _WEIGHTS:
        keys = _whose_keys(source, arguments)
        tell(f"read back: all tensors are bit for bit the network's; {keys}")
    if found is not None:
        against = arguments.check or arguments.calibrate
        images = f"{found.images:,} images" + (f" of {against}" if against else " generated here")
        tell(
            f"compared with PyTorch on {images}: the same top-1 on {found.same_top1:.2%}, largest "
            f"difference of a logit {found.error:.1e} of their spread"
        )


def _whose_keys(source: Source, arguments: argparse.Namespace) -> str:
    from res2net.export.source import same_in_timm

    if arguments.to == "safetensors":
        return "keys of this project"
    if same_in_timm(source.variant) is None:
        return f"keys of this project, as timm has no {source.variant}"
    return f'keys of timm: timm.create_model("local-dir:{shown(arguments.out)}", pretrained=True)'
