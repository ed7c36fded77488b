"""`res2net bench loader`: how fast training images come, against two others, in one run."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from res2net.cli.arguments import positive
from res2net.config.load import load_config
from res2net.data.sources.scan import counted

_CALLED = {
    "loader": "loader, as in training",
    "dali": "DALI pipeline alone",
    "torchvision": "torchvision + DataLoader",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="a YAML, or the name of a shipped recipe")
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help="changes of the configuration, as data.global_batch_size=64 or data.workers=4",
    )
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
    parser.add_argument("--json", action="store_true", help="print every turn as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Raises InputError, and WorkError if a contender fails."""
    config = load_config(arguments.config, arguments.overrides)

    from res2net.bench.loader import compare_loaders

    with _progress(arguments.pairs * len(_CALLED)) as advance:
        result = compare_loaders(
            config,
            pairs=arguments.pairs,
            images=arguments.images,
            original=arguments.original,
            progress=advance,
        )
    if arguments.json:
        print(json.dumps({"command": shlex.join(["res2net", *sys.argv[1:]]), **result}))
    else:
        _print(result)
    return 0


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """A bar that moves after each turn only: one that refreshes by itself would take part."""
    from rich import progress
    from rich.console import Console

    with progress.Progress(
        progress.TextColumn("measuring"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task("measuring", total=total)
        bar.refresh()

        def advance() -> None:
            bar.update(task, advance=1, refresh=True)

        yield advance


def _print(result: dict[str, Any]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    work, machine = result["work"], result["machine"]
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading in ("images/s", "loader is", "pairs", "CPU ms/image", "memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, summary in result["contenders"].items():
        ratio = result["ratios"].get(f"loader/{name}")
        table.add_row(
            _CALLED[name],
            f"{summary['images_per_second']:,.0f}",
            f"{ratio['median']:.2f} x" if ratio else "",
            f"{min(ratio['pairs']):.2f}-{max(ratio['pairs']):.2f}" if ratio else "",
            f"{summary['cpu_ms_per_image']:.2f}",
            f"{summary['memory_mb']:,.0f} MB",
        )
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    console.print(table)
    turns = len(result["contenders"]["loader"]["turns"])
    print(
        f"{counted(work['files'], work['source'] + ' image')} at {work['image_size']} px, "
        f"batches of {work['batch_size']}, {work['threads']} threads, {work['device']}; medians of "
        f"{turns} turns; {machine['cores']} cores, {machine['gpu'] or machine['cpu']}"
    )
    elsewhere = max(c["cores_used_elsewhere"] for c in result["contenders"].values())
    if elsewhere > _BUSY:
        print(f"other programs used {elsewhere:.1f} cores meanwhile: wait for a quiet machine")


_BUSY = 0.1
"""Cores; with more in use by others the figures are not to be trusted."""
