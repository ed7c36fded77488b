"""What `res2net data check` prints for people: figures, then the first rows of each list."""

import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from res2net.cli.tables import Styled, Table, tell_styled
from res2net.cli.telling import shown, tell
from res2net.data.checking.report import SHORT_SIDE, Row
from res2net.data.sources.scan import counted, first_few

SHOWN = 20
"""Rows, or groups of files, of each list."""

FILES_OF_GROUP = 4

WIDTH = 200

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
    speed = figures["images_per_second"]
    tell(
        f"{shown(figures['directory'])}: {counted(figures['images'], 'image')}, "
        f"{_size(figures['bytes'])}, decoded at {speed or 0:,.0f} images/s",
        "",
    )
    _splits(figures["splits"]).tell(width=WIDTH)
    tell("")
    _print_sizes(figures)
    for problem in figures["problems"]:
        classes = problem["classes"]
        more = f": {len(classes):,} ({first_few(classes)})" if classes else ""
        tell_styled(Styled(f"note: {problem['problem']}{more}", "yellow"))
    nothing = []
    for kind, heading in HEADINGS.items():
        if few.counts[kind]:
            tell("")
            _print_list(heading, few, kind, figures["directory"])
        else:
            nothing.append({"leak": "leaks", "duplicate": "duplicates"}.get(kind, kind))
    if nothing:
        tell("")
        tell_styled(Styled(f"None: {', '.join(nothing)}.", "green"))


def _splits(splits: dict[str, Any]) -> Table:
    table = Table()
    table.column("split", whole=True)
    for heading in ("images", "classes"):
        table.column(heading, right=True, whole=True)
    table.column("smallest class")
    table.column("largest class")
    for heading in ("ratio", "size"):
        table.column(heading, right=True, whole=True)
    for name, split in splits.items():
        if split["classes"]:
            extremes = [
                f"{shown(one['class'])} ({one['images']:,})"
                for one in (split["smallest"], split["largest"])
            ]
            ratio = f"{split['imbalance']:.1f}"
        else:
            extremes, ratio = ["no labels", ""], ""
        table.row(
            name,
            f"{split['images']:,}",
            f"{split['classes']:,}",
            *extremes,
            ratio,
            _size(split["bytes"]),
        )
    return table


def _print_sizes(figures: dict[str, Any]) -> None:
    sizes = figures["sizes"]
    if sizes:
        table = Table()
        table.column("pixels")
        for heading in ("min", "median", "max"):
            table.column(heading, right=True)
        for side in ("width", "height"):
            extent = sizes[side]
            table.row(side, f"{extent['min']:,}", f"{extent['median']:,.0f}", f"{extent['max']:,}")
        table.tell(width=WIDTH)
        below = sizes[f"short_side_below_{SHORT_SIDE}"]
        tell("", f"short side below {SHORT_SIDE}: {below:.1%} of the images")
    for what in ("formats", "modes"):
        if figures[what]:
            counts = ", ".join(f"{name} {count:,}" for name, count in figures[what].items())
            tell(f"{what}: {counts}")


def _print_list(heading: str, few: Few, kind: str, directory: str) -> None:
    entries, count = few.first[kind], few.counts[kind]
    grouped = entries[0][0].group is not None
    how_many = counted(count, "group" if grouped else "file")
    tell_styled(Styled(f"{heading} ({how_many})", "bold"))
    details = few.details[kind]
    if count > SHOWN:  # what the list below does not tell
        for detail, number in details.most_common(SHOWN):
            tell(f"  {number:,} x {detail}")
    table = Table()
    table.column("file", ratio=3)
    if grouped:
        table.column("class")
    table.column("what")
    for rows in entries:
        first = rows[:FILES_OF_GROUP]
        rest = [f"... and {len(rows) - len(first):,} more"] if len(rows) > len(first) else []
        files = [*(_below(row.file, directory) for row in first), *rest]
        classes = [[row.class_name for row in first]] if grouped else []
        table.row(files, *classes, rows[0].detail)
    table.tell(width=WIDTH)
    if count > SHOWN:
        tell(f"... and {count - SHOWN:,} more; all of them: --out FILE.csv or --json")


def _below(path: str, directory: str) -> str:
    """The path as seen from the checked folder."""
    prefix = os.path.join(directory, "")
    return path[len(prefix) :] if path.startswith(prefix) else path


def _size(number: float) -> str:
    if number < 1000:
        return f"{number:,.0f} bytes"
    units = ["KB", "MB", "GB", "TB"]
    power = min(len(units), int(math.log10(number)) // 3)
    return f"{number / 1000**power:,.1f} {units[power - 1]}"
