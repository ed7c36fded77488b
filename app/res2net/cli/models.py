"""`res2net models`: the variants that have a name. Reads a table; builds no network."""

import argparse
import difflib
import json
import sys
from fnmatch import fnmatchcase
from typing import Any

from res2net.errors import InputError
from res2net.models.variants import ALIASES, VARIANTS, Variant


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "glob",
        metavar="GLOB",
        nargs="?",
        default="*",
        help="only variants whose name or alias matches, such as 'res2net50*'",
    )
    parser.add_argument("--json", action="store_true", help="print a list of objects instead")


def run(arguments: argparse.Namespace) -> int:
    """Raises InputError: no variant matches."""
    variants = _matching(arguments.glob)
    if arguments.json:
        print(json.dumps([_as_json(variant) for variant in variants], indent=2))
    else:
        _print_tables(variants)
    return 0


def _matching(glob: str) -> list[Variant]:
    found = [
        variant
        for variant in VARIANTS.values()
        if any(fnmatchcase(name, glob) for name in (variant.name, *_aliases(variant)))
    ]
    if not found:
        names = [*VARIANTS, *ALIASES]
        near = difflib.get_close_matches(glob, names, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise InputError(
            f"{glob!r}: matches no variant and no alias{hint} (variants: {', '.join(VARIANTS)})"
        )
    return found


def _aliases(variant: Variant) -> list[str]:
    return [alias for alias, name in ALIASES.items() if name == variant.name]


def _as_json(variant: Variant) -> dict[str, Any]:
    """Accuracies as fractions, as in all of this project's files; `published` null: none was."""
    published = None
    if variant.top1 is not None:
        published = {
            "top1": _fraction(variant.top1),
            "top5": _fraction(variant.top5),
            "measured_by": variant.measured_by,
        }
    return {
        "name": variant.name,
        "parameters": variant.parameters,
        "macs": variant.macs,
        "image_size": variant.image_size,
        "num_classes": variant.num_classes,
        "published": published,
        "aliases": _aliases(variant),
    }


def _fraction(percent: float | None) -> float | None:
    return None if percent is None else round(percent / 100, 6)


def _print_tables(variants: list[Variant]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    sizes = Table(box=SIMPLE_HEAD, show_edge=False, collapse_padding=True)
    sizes.add_column("variant", no_wrap=True)
    for heading in ("params", "MACs", "pixels", "classes", "top-1", "top-5"):
        sizes.add_column(heading, justify="right", no_wrap=True)
    sizes.add_column("measured by", overflow="fold")
    for variant in variants:
        sizes.add_row(
            variant.name,
            f"{variant.parameters / 1e6:.2f}M",
            f"{variant.macs / 1e9:.2f}G",
            str(variant.image_size),
            str(variant.num_classes),
            "" if variant.top1 is None else f"{variant.top1:.2f}%",
            "" if variant.top5 is None else f"{variant.top5:.2f}%",
            variant.measured_by or "",
        )
    aliases = Table(box=SIMPLE_HEAD, show_edge=False, collapse_padding=True)
    aliases.add_column("alias", no_wrap=True)
    aliases.add_column("variant", no_wrap=True)
    for variant in variants:
        for alias in _aliases(variant):
            aliases.add_row(alias, variant.name)
    # Into a file or a pipe one line a variant, however long, so that grep finds all of it.
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(sizes)
    if aliases.row_count:
        console.print()
        console.print(aliases)
