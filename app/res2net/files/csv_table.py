"""Tables in files for people, with commas: a spreadsheet opens them, and runs nothing of them."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from typing import TextIO

from res2net.files.names import printable, valid

_FORMULA = re.compile(r"(^|;)(\s*[=+\-@\uff1d\uff0b\uff0d\uff20])")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?(e[+-]?[0-9]+)?", re.ASCII)

_CELL = 4096
"""Characters of a text: no path of a file has more, and a spreadsheet takes 32,767."""

FORM = "names as they print, with a ' before what a spreadsheet would take for a formula"
"""What a verb's help says of such a table."""


class CsvTable:
    """Rows of cells; texts as `printable` shows them, and never a formula.

    A spreadsheet runs a cell that begins with = + - or @, and where it separates cells by ; what
    follows one begins a cell, too: before such a sign a ' is put. Numbers stay as they are.

    Source: OWASP, CSV Injection.
    """

    def __init__(self, stream: TextIO, *, keep_bytes: bool = False) -> None:
        """`keep_bytes`: the stream takes names that are no UTF-8 as they are (surrogateescape)."""
        self._writer = csv.writer(stream, lineterminator="\n")
        self._keep_bytes = keep_bytes

    def row(self, cells: Iterable[object], numbers: Sequence[str] = ()) -> None:
        """`numbers` stand behind the cells, written already."""
        self._writer.writerow([*map(self._cell, cells), *numbers])

    def _cell(self, value: object) -> object:
        if not isinstance(value, str) or _NUMBER.fullmatch(value):
            return value
        cut = "" if len(value) <= _CELL else f"... ({len(value):,} characters)"
        value = value[:_CELL]
        return _FORMULA.sub(r"\1'\2", printable(value if self._keep_bytes else valid(value))) + cut
