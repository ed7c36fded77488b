"""`quarantine.txt`: the files that were left out of a run or of shards, with the reason of each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from res2net.files.atomic import atomic_write
from res2net.files.names import printable

QUARANTINE = "quarantine.txt"


def write_quarantine(path: Path, reasons: Mapping[str, str]) -> None:
    """A line a file, sorted: its name, a tab, and why, such as `is empty`."""
    lines = sorted(f"{printable(name)}\t{printable(why)}\n" for name, why in reasons.items())
    with atomic_write(path) as stream:
        # names of files that are no UTF-8 come back as they were
        stream.write("".join(lines).encode("utf-8", "surrogateescape"))
