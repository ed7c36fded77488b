"""`res2net bench loader`: how fast training images come, against two others, in one run."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from res2net.cli.arguments import add_config_arguments, positive
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
from res2net.config.load import load_config
from res2net.data.sources.scan import counted

_CALLED = {
    "loader": "loader, as in training",
    "dali": "DALI pipeline alone",
    "torchvision": "torchvision + DataLoader",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser, such_as="data.global_batch_size=64 or data.workers=4")
    parser.add_argument(
        "--pairs", type=positive, default=7, metavar="N", help="turns of each, alternating (7)"
    )
    parser.add_argument(
        "--images", type=positive, default=0, metavar="N", help="of each turn (those of 3 seconds)"
    )
    parser.add_argument(
        "--original",
        default="",
        metavar="DIR",
        help="what torchvision reads instead of data.root: the files that shards were made of",
    )
    add_form_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Raises InputError, and WorkError if a contender fails."""
    config = load_config(arguments.config, arguments.overrides)

    from res2net.bench.loader import compare_loaders

    with measuring(arguments.pairs * len(_CALLED)) as advance:
        result = compare_loaders(
            config,
            pairs=arguments.pairs,
            images=arguments.images,
            original=arguments.original,
            progress=advance,
        )
    print_result(arguments, result, _print)
    return 0


def _print(result: Mapping[str, Any], *, markdown: bool) -> None:
    work, machine = result["work"], result["machine"]
    columns: list[Column] = [
        ("images/s", lambda row: f"{row['images_per_second']:,.0f}"),
        ("loader is", lambda row: f"{row['ratio']['median']:.2f} x" if row["ratio"] else ""),
        ("pairs", lambda row: spread(row["ratio"]["pairs"]) if row["ratio"] else ""),
        ("CPU ms/image", lambda row: f"{row['cpu_ms_per_image']:.2f}"),
        ("memory", lambda row: f"{row['memory_mb']:,.0f} MB"),
    ]
    contenders = result["contenders"]
    rows = {
        _CALLED[name]: summary | {"ratio": result["ratios"].get(f"loader/{name}")}
        for name, summary in contenders.items()
    }
    print_table("", columns, rows, markdown=markdown)
    turns = len(contenders["loader"]["turns"])
    tell(
        f"{counted(work['files'], work['source'] + ' image')} at {work['image_size']} px, "
        f"batches of {work['batch_size']}, {work['threads']} threads, {work['device']}; medians of "
        f"{turns} turns; {machine['cores']} cores, {machine['gpu'] or machine['cpu']}"
    )
    tell_if_busy(c["cores_used_elsewhere"] for c in contenders.values())
