"""`res2net bench train`: what the training loop and the loader cost beside the bare steps."""

from __future__ import annotations

import argparse
from typing import Any

from res2net.cli.arguments import add_config_arguments, positive
from res2net.cli.bench_tables import (
    Column,
    add_form_arguments,
    measuring,
    print_result,
    print_table,
    spread,
)
from res2net.cli.telling import tell
from res2net.config.load import load_config

_CALLED = {
    "bare": "bare loop",
    "synthetic": "training, one batch again and again",
    "fed": "training, fed by the loader",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser, such_as="data.global_batch_size=64")
    parser.add_argument(
        "--rounds", type=positive, default=7, metavar="N", help="blocks of each, alternating (7)"
    )
    parser.add_argument(
        "--steps", type=positive, default=10, metavar="N", help="timed steps of a block (10)"
    )
    add_form_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Raises InputError, and WorkError if a step fails."""
    one_device = ["trainer.devices=1", "trainer.num_nodes=1"]
    config = load_config(arguments.config, [*one_device, *arguments.overrides])

    from res2net.bench.train import MODES, compare_loops

    with measuring(arguments.rounds * len(MODES)) as advance:
        result = compare_loops(
            config, rounds=arguments.rounds, steps=arguments.steps, progress=advance
        )
    print_result(arguments, result, print_loops)
    return 0


def print_loops(result: dict[str, Any], *, markdown: bool) -> None:
    """A table, and what it was measured on."""
    ratios, machine, work = result["ratios"], result["machine"], result["work"]
    columns: list[Column] = [
        ("images/s", lambda row: f"{row['images_per_second']:,.4g}"),
        ("ms/step", lambda row: f"{1e3 * row['seconds_per_step']:,.4g}"),
        (
            "against the row above",
            lambda row: f"{row['ratio']['median']:.3f}" if row["ratio"] else "",
        ),
        ("pairs", lambda row: spread(row["ratio"]["pairs"]) if row["ratio"] else ""),
    ]
    above = {"bare": None, "synthetic": "synthetic/bare", "fed": "fed/synthetic"}
    rows = {
        called: result["loops"][mode] | {"ratio": ratios[above[mode]] if above[mode] else None}
        for mode, called in _CALLED.items()
    }
    print_table("", columns, rows, markdown=markdown)
    config = work["config"]
    tell(
        f"{config['model']['name']}, batch {config['data']['global_batch_size']}, "
        f"{config['data']['image_size']} px, {config['trainer']['precision']}, "
        f"{machine['gpu'] or machine['cpu']}, {work['threads']} threads, "
        f"torch {machine['versions']['torch']}"
    )
