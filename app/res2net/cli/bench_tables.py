"""What the verbs of `res2net bench` show: a bar while they measure, then a table or JSON."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from res2net.cli.telling import tell, tell_json

Column = tuple[str, Callable[[Mapping[str, Any]], str]]
"""A heading, and what stands under it in a row."""

_BUSY = 0.1
"""Cores; with more in use by others the figures are not to be trusted."""


@contextmanager
def measuring(total: int | None = None) -> Iterator[Callable[[], None]]:
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


def add_form_arguments(parser: argparse.ArgumentParser) -> None:
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print every turn as JSON")
    form.add_argument("--markdown", action="store_true", help="print tables for a page")


def print_result(
    arguments: argparse.Namespace, result: Mapping[str, Any], print_tables: Callable[..., None]
) -> None:
    """As `add_form_arguments` let choose."""
    if arguments.json:
        tell_json(with_command(result))
    else:
        print_tables(result, markdown=arguments.markdown)


def with_command(result: Mapping[str, Any]) -> dict[str, Any]:
    """And what was called for it."""
    return {"command": shlex.join(["res2net", *sys.argv[1:]]), **result}


def print_table(
    title: str, columns: Sequence[Column], rows: Mapping[str, Mapping[str, Any]], *, markdown: bool
) -> None:
    """A row for each name; `markdown`: as a page wants it."""
    cells = {name: [show(row) for _, show in columns] for name, row in rows.items()}
    if markdown:
        tell(
            f"| {title} | " + " | ".join(heading for heading, _ in columns) + " |",
            "|---|" + "---:|" * len(columns),
            *(f"| {name} | " + " | ".join(row) + " |" for name, row in cells.items()),
            "",
        )
        return
    from res2net.cli.tables import Table

    table = Table()
    table.column(title, whole=True)
    for heading, _ in columns:
        table.column(heading, right=True, whole=True)
    for name, row in cells.items():
        table.row(name, *row)
    table.tell(width=200)


def spread(ratios: Sequence[float]) -> str:
    """The least and the greatest."""
    return f"{min(ratios):.2f}-{max(ratios):.2f}"


def tell_if_busy(cores_used_elsewhere: Iterable[float]) -> None:
    """Say so where other programs ran beside a measurement."""
    elsewhere = max(cores_used_elsewhere)
    if elsewhere > _BUSY:
        tell(f"other programs used {elsewhere:.1f} cores meanwhile: wait for a quiet machine")
