"""`res2net test MODEL`: top-1, top-5 and loss on a validation set, each image counted once."""

from __future__ import annotations

import argparse
import json

from res2net.files.runs import is_rank_zero


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a run directory, a checkpoint or weights file, a YAML, or a variant with --weights",
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="folders of images named by class; default: the validation images of the run",
    )
    parser.add_argument("--weights", metavar="FILE", help="weights for a variant or a YAML")
    parser.add_argument(
        "--checkpoint", choices=("last", "best"), default="last", help="of a run directory"
    )
    parser.add_argument("--batch-size", type=positive, metavar="N", help="images per device")
    parser.add_argument("--accelerator", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--devices", default="auto", metavar="N", help="processes, one a GPU")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def positive(text: str) -> int:
    """1 or more, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    from res2net.training.evaluate import test

    result = test(
        arguments.model,
        data=arguments.data,
        weights=arguments.weights,
        checkpoint=arguments.checkpoint,
        batch_size=arguments.batch_size,
        accelerator=arguments.accelerator,
        devices=arguments.devices,
    )
    if not is_rank_zero():
        return 0
    if arguments.json:
        print(json.dumps(result))
        return 0
    top5 = "" if result["top5"] is None else f"  top-5 {result['top5']:.2%}"
    print(
        f"{result['model']} ({result['checkpoint']}) on {result['split']}: "
        f"top-1 {result['top1']:.2%}{top5}  loss {result['loss']:.4f}  "
        f"{result['images']} images, {result['images_per_second']:.0f} images/s"
    )
    return 0
