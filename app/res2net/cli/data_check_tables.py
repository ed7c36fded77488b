"""What `res2net data check` prints for people: figures, then the first rows of each list."""

import math
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from res2net.data.checking.report import SHORT_SIDE, Row
from res2net.data.sources.scan import counted, first_few
from res2net.files.names import printable, valid

SHOWN = 20
"""Rows, or groups of files, of each list."""

FILES_OF_GROUP = 4

HEADINGS = {
    "broken": "Broken: training stops at these",
    "odd": "Odd: training reads these",
    "leak": "Leaks: the same bytes in more than one split",
    "duplicate": "Duplicates: the same bytes within a split",
    "ignored": "Ignored: no images, and not read",
}


class Few:
    """The first findings of each kind, and how many there are in all."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.first: dict[str, list[list[Row]]] = defaultdict(list)
        """Kind -> entries: one row, or the rows of a group."""
        self.counts: Counter[str] = Counter()
        self.details: dict[str, Counter[str]] = defaultdict(Counter)
        """Kind -> what how often."""
        group: int | None = None
        for row in rows:
            begins = row.group is None or row.group != group
            group = row.group
            if begins:
                self.counts[row.kind] += 1
                self.details[row.kind][row.detail] += 1
            entries = self.first[row.kind]
            if begins and len(entries) < SHOWN:
                entries.append([row])
            elif not begins and self.counts[row.kind] <= SHOWN:
                entries[-1].append(row)


def print_report(figures: dict[str, Any], few: Few) -> None:
    """Everything, on stdout; `figures` are those of `check_report.figures`."""
    # Into a file or a pipe one line a row, however long, so that grep finds all of it.
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    speed = figures["images_per_second"]
    console.print(
        Text(
            f"{_clean(figures['directory'])}: {counted(figures['images'], 'image')}, "
            f"{_size(figures['bytes'])}, decoded at {speed or 0:,.0f} images/s"
        )
    )
    console.print()
    console.print(_splits(figures["splits"]))
    console.print()
    _print_sizes(console, figures)
    for problem in figures["problems"]:
        classes = problem["classes"]
        more = f": {len(classes):,} ({_clean(first_few(classes))})" if classes else ""
        note = Text(f"note: {_clean(problem['problem'])}{more}", style="yellow")
        console.print(note, soft_wrap=True)
    nothing = []
    for kind, heading in HEADINGS.items():
        if few.counts[kind]:
            console.print()
            _print_list(console, heading, few, kind, figures["directory"])
        else:
            nothing.append({"leak": "leaks", "duplicate": "duplicates"}.get(kind, kind))
    if nothing:
        console.print()
        console.print(Text(f"None: {', '.join(nothing)}.", style="green"))


def _splits(splits: dict[str, Any]) -> Table:
    table = _table()
    table.add_column("split", no_wrap=True)
    for heading in ("images", "classes"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("smallest class", overflow="fold")
    table.add_column("largest class", overflow="fold")
    for heading in ("ratio", "size"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, split in splits.items():
        if split["classes"]:
            extremes = [
                Text(_clean(f"{one['class']} ({one['images']:,})"))
                for one in (split["smallest"], split["largest"])
            ]
            ratio = f"{split['imbalance']:.1f}"
        else:
            extremes, ratio = [Text("no labels"), Text("")], ""
        table.add_row(
            name,
            f"{split['images']:,}",
            f"{split['classes']:,}",
            *extremes,
            ratio,
            _size(split["bytes"]),
        )
    return table


def _print_sizes(console: Console, figures: dict[str, Any]) -> None:
    sizes = figures["sizes"]
    if sizes:
        table = _table()
        table.add_column("pixels")
        for heading in ("min", "median", "max"):
            table.add_column(heading, justify="right")
        for side in ("width", "height"):
            extent = sizes[side]
            table.add_row(
                side, f"{extent['min']:,}", f"{extent['median']:,.0f}", f"{extent['max']:,}"
            )
        console.print(table)
        below = sizes[f"short_side_below_{SHORT_SIDE}"]
        console.print(f"\nshort side below {SHORT_SIDE}: {below:.1%} of the images")
    for what in ("formats", "modes"):
        if figures[what]:
            counts = ", ".join(f"{name} {count:,}" for name, count in figures[what].items())
            console.print(Text(f"{what}: {counts}"))


def _print_list(console: Console, heading: str, few: Few, kind: str, directory: str) -> None:
    entries, count = few.first[kind], few.counts[kind]
    grouped = entries[0][0].group is not None
    how_many = counted(count, "group" if grouped else "file")
    console.print(Text(f"{heading} ({how_many})", style="bold"))
    details = few.details[kind]
    if count > SHOWN:  # what the list below does not tell
        for detail, number in details.most_common(SHOWN):
            console.print(Text(f"  {number:,} x {_clean(detail)}"))
    table = _table()
    table.add_column("file", overflow="fold", ratio=3)
    if grouped:
        table.add_column("class", overflow="fold")
    table.add_column("what", overflow="fold")
    for rows in entries:
        shown = rows[:FILES_OF_GROUP]
        rest = f"\n... and {len(rows) - len(shown):,} more" if len(rows) > len(shown) else ""
        files = "\n".join(_clean(_below(row.file, directory)) for row in shown) + rest
        classes = [Text("\n".join(_clean(row.class_name) for row in shown))] if grouped else []
        table.add_row(Text(files), *classes, Text(_clean(rows[0].detail)))
    console.print(table)
    if count > SHOWN:
        console.print(f"... and {count - SHOWN:,} more; all of them: --out FILE.csv or --json")


def _table() -> Table:
    return Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)


def _below(path: str, directory: str) -> str:
    """The path as seen from the checked folder."""
    prefix = os.path.join(directory, "")
    return path[len(prefix) :] if path.startswith(prefix) else path


def _clean(text: str) -> str:
    """Names of files need not be UTF-8 or one line; what prints must be."""
    return printable(valid(text))


def _size(number: float) -> str:
    if number < 1000:
        return f"{number:,.0f} bytes"
    units = ["KB", "MB", "GB", "TB"]
    power = min(len(units), int(math.log10(number)) // 3)
    return f"{number / 1000**power:,.1f} {units[power - 1]}"
