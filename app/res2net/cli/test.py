"""`res2net test MODEL`: top-1, top-5 and loss on a validation set, each image counted once."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

from res2net.cli.arguments import add_preprocessing_arguments, devices, positive
from res2net.cli.telling import shown, tell, tell_json
from res2net.data.sources.scan import counted
from res2net.files.csv_table import FORM
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
        help="folders of images named by class, or a flat folder with labels; default: the "
        "validation images of the run",
    )
    parser.add_argument(
        "--labels", metavar="FILE", help="labels of a flat --data; default: found beside it"
    )
    parser.add_argument(
        "--weights", metavar="FILE|NAME", help="for a variant or a YAML; in1k: the published ones"
    )
    parser.add_argument(
        "--checkpoint", choices=("last", "best"), default="last", help="of a run directory"
    )
    parser.add_argument("--ema", action="store_true", help="take the averaged weights")

    how = add_preprocessing_arguments(parser)
    how.add_argument(
        "--flip", action="store_true", help="average with the mirror image's probabilities"
    )
    how.add_argument(
        "--recalibrate-bn",
        type=positive,
        metavar="N",
        help="first take BN's statistics anew, from N training images of the run",
    )

    more = parser.add_argument_group("what is told besides")
    more.add_argument("--real", metavar="JSON", help="ImageNet-ReaL's labels: its top-1 too")
    more.add_argument(
        "--per-class", metavar="CSV", help=f"accuracy of each class, a new file; {FORM}"
    )
    more.add_argument("--confusion", metavar="PNG", help="confusion matrix, a new picture")
    more.add_argument("--json", action="store_true", help="print the result as JSON")

    parser.add_argument(
        "--skip-corrupt", action="store_true", help="leave out files that cannot be decoded"
    )

    where = parser.add_argument_group("on what")
    where.add_argument("--batch-size", type=positive, metavar="N", help="images per device")
    where.add_argument("--precision", choices=("32-true", "bf16-mixed", "16-mixed"))
    where.add_argument("--accelerator", choices=("auto", "cpu", "cuda"), default="auto")
    where.add_argument(
        "--devices", type=devices, default="auto", metavar="N", help="processes, one a GPU"
    )


def run(arguments: argparse.Namespace) -> int:
    from res2net.training.evaluation.test import Asked, test

    asked = Asked(**{field.name: getattr(arguments, field.name) for field in fields(Asked)})
    result = test(arguments.model, asked)
    if not is_rank_zero():
        return 0
    if arguments.json:
        tell_json(result)
    else:
        tell(*_lines(result))
        for path in filter(None, (asked.per_class, asked.confusion)):
            tell(f"written: {path}")
    return 0


def _lines(result: dict[str, Any]) -> list[str]:
    seen = result["preprocessing"]
    how = f"{seen['image_size']} px, crop {seen['crop_fraction']:g}, {seen['interpolation']}"
    extras = (", with mirror images" if result["flip"] else "") + (
        ", averaged weights" if result["ema"] else ""
    )
    if result["recalibrated_on"]:
        extras += f", BN recalibrated on {counted(result['recalibrated_on'], 'training image')}"
    lines = [
        f"{result['model']} ({result['checkpoint']}) on {result['split']}: "
        f"{_accuracy(result)}  loss {result['loss']:.4f}  "
        f"{counted(result['images'], 'image')}, {result['images_per_second']:.0f} images/s",
        f"seen at {how}{extras}",
    ]
    if abs(result["balanced"] - result["top1"]) >= 0.00005:
        lines.append(f"mean of the classes' top-1: {result['balanced']:.2%}")
    if published := result["published"]:
        said = f"published: {_accuracy(published)} ({published['name']}, {published['measured_by']}"
        if published["comparable"]:
            difference = 100 * (result["top1"] - published["top1"])
            lines.append(f"{said}); here {difference:+.2f} points")
        else:
            lines.append(f"{said}, ImageNet's 50,000 images at 224 px): another test than this")
    if result["excluded"]:
        lines.append(f"left out: {counted(result['excluded'], 'image')} that cannot be decoded")
    if real := result.get("real"):
        lines.append(
            f"ReaL: top-1 {real['top1']:.2%} of {counted(real['images'], 'image')} with labels"
        )
    if result["confusions"]:
        pairs = (
            f"{shown(pair['class'])} taken for {shown(pair['taken_for'])} "
            f"({pair['images']} of {round(pair['images'] / pair['share'])})"
            for pair in result["confusions"][:3]
        )
        lines.append(f"most often wrong: {'; '.join(pairs)}")
    return lines


def _accuracy(result: dict[str, Any]) -> str:
    top5 = "" if result["top5"] is None else f"  top-5 {result['top5']:.2%}"
    return f"top-1 {result['top1']:.2%}{top5}"
