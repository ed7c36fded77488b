"""`res2net bench model`: a variant's passes against timm's same network and ResNet-50."""

from __future__ import annotations

import argparse
from typing import Any

from res2net.cli.arguments import add_device_argument, positive, seconds, side
from res2net.cli.bench_tables import (
    Column,
    add_form_arguments,
    measuring,
    print_result,
    print_table,
    spread,
    tell_if_busy,
)
from res2net.cli.telling import tell

_PASSES = ("forward", "backward", "step")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a variant or alias")
    parser.add_argument(
        "--pass",
        dest="passes",
        action="append",
        choices=_PASSES,
        help="forward in evaluation, backward with the forward before it, step with the optimizer "
        "too; may be repeated (all three)",
    )
    parser.add_argument("--batch", type=positive, default=16, metavar="N", help="images (16)")
    parser.add_argument("--size", type=side, default=224, metavar="N", help="pixels (224)")
    parser.add_argument(
        "--precision",
        choices=["float32", "bf16", "fp16"],
        default="float32",
        help="bf16 and fp16: autocast (float32)",
    )
    parser.add_argument(
        "--compile",
        choices=["default", "reduce-overhead", "max-autotune"],
        default="",
        help="measure each network compiled by torch.compile in that mode, too",
    )
    add_device_argument(parser)
    parser.add_argument(
        "--rounds", type=positive, default=7, metavar="N", help="turns of each, alternating (7)"
    )
    parser.add_argument(
        "--seconds", type=seconds, default=2.0, metavar="S", help="of a turn at least (2)"
    )
    add_form_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Raises InputError, and WorkError if the device's memory does not suffice."""
    from res2net.bench.model import compare_models
    from res2net.bench.networks import ModelWork
    from res2net.inference.opened import find_device

    work = ModelWork(
        variant=arguments.model,
        batch_size=arguments.batch,
        image_size=arguments.size,
        precision=arguments.precision,
        device=find_device(arguments.device).type,
        compile=arguments.compile,
    )
    passes = tuple(arguments.passes or _PASSES)
    with measuring() as advance:
        result = compare_models(
            work,
            passes=passes,
            rounds=arguments.rounds,
            seconds=arguments.seconds,
            progress=advance,
        )
    print_result(arguments, result, print_passes)
    return 0


def print_passes(result: dict[str, Any], *, markdown: bool) -> None:
    """A table of each pass, and what it was measured on."""
    work, machine, ceilings = result["work"], result["machine"], result["ceilings"]
    columns: list[Column] = [
        ("images/s", lambda row: f"{row['images_per_second']:,.4g}"),
        ("of ours", lambda row: f"{row['ratio']['median']:.3f}"),
        ("pairs", lambda row: spread(row["ratio"]["pairs"])),
        ("TFLOP/s", lambda row: f"{row['tflops']:.3g} ({row['of_tflops_ceiling']:.0%})"),
        ("GB/s", lambda row: f"{row['gb_per_second']:.3g} ({row['of_gb_ceiling']:.0%})"),
        ("peak memory", lambda row: f"{row['peak_memory_mb']:,.0f} MB"),
        ("first pass", lambda row: f"{row['first_pass_seconds']:.2g} s"),
    ]
    for which, measured in result["passes"].items():
        rows = {
            name: row | {"ratio": measured["ratios"][name]}
            for name, row in measured["networks"].items()
        }
        print_table(which, columns, rows, markdown=markdown)
    tell(
        f"{work['variant']}, batch {work['batch_size']}, {work['image_size']} px, "
        f"{work['precision']}, {machine['gpu'] or machine['cpu']}, {work['threads']} threads, "
        f"torch {machine['versions']['torch']}; ceilings measured beside: "
        f"{ceilings['tflops']:.3g} TFLOP/s, {ceilings['gb_per_second']:.3g} GB/s; "
        "GB/s as if each operator ran by itself"
    )
    tell_if_busy(
        row["cores_used_elsewhere"]
        for measured in result["passes"].values()
        for row in measured["networks"].values()
    )
