"""`res2net bench suite`: everything that BENCHMARKS.md shows of one machine."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from res2net.cli.arguments import add_device_argument, positive, side
from res2net.cli.bench_model import print_passes
from res2net.cli.bench_tables import Column, measuring, print_table, with_command
from res2net.cli.bench_train import print_loops
from res2net.cli.telling import tell
from res2net.files.atomic import atomic_write_json, new_file

VARIANTS = ("res2net50_26w_4s", "res2net50_14w_8s")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="*",
        help=f"variants; profiles and loops are of the first ({' '.join(VARIANTS)})",
    )
    parser.add_argument("--out", metavar="JSON", required=True, help="a new file: every turn")
    parser.add_argument("--batch", type=positive, metavar="N", help="images (GPU 256, CPU 16)")
    parser.add_argument("--size", type=side, default=224, metavar="N", help="pixels (224)")
    parser.add_argument(
        "--rounds", type=positive, default=5, metavar="N", help="turns of each, alternating (5)"
    )
    add_device_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Raises InputError, and WorkError if memory does not suffice."""
    out = new_file(arguments.out, (".json",))

    from res2net.bench.suite import ON_CPU, ON_GPU, run_suite
    from res2net.inference.opened import find_device

    device = find_device(arguments.device).type
    extent = ON_GPU if device == "cuda" else ON_CPU
    extent = replace(
        extent,
        batch_size=arguments.batch or extent.batch_size,
        image_size=arguments.size,
        rounds=arguments.rounds,
    )
    with measuring() as advance:
        result = run_suite(
            arguments.models or VARIANTS, device=device, extent=extent, progress=advance
        )
    atomic_write_json(out, _whole(result))
    _print(result)
    tell(f"{out}: every turn")
    return 0


def _whole(result: Mapping[str, Any]) -> dict[str, Any]:
    """Each part as its own verb prints it, so that it can be cut out."""
    models = {
        variant: {which: with_command(passes) for which, passes in measured.items()}
        for variant, measured in result["models"].items()
    }
    return with_command({**result, "models": models, "loops": with_command(result["loops"])})


def _print(result: Mapping[str, Any]) -> None:
    """Markdown, as BENCHMARKS.md has it."""
    for measured in result["models"].values():
        for passes in measured.values():
            print_passes(passes, markdown=True)
    columns: list[Column] = [
        ("share", lambda row: f"{row['share']:.1%}"),
        ("ms", lambda row: f"{row['ms']:.3g}"),
        ("calls", lambda row: str(row["calls"])),
    ]
    for name, kernels in result["profiles"].items():
        rows = {kernel["name"][:80]: kernel for kernel in kernels}
        print_table(f"training step, {name}", columns, rows, markdown=True)
    print_loops(result["loops"], markdown=True)
