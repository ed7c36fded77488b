"""Tables that verbs print, of texts of any origin; rich comes with this file, so import it late."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

from rich import table as rich
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.text import Text

from res2net.files.names import LINE, shown


class Styled(NamedTuple):
    """A text in a style of rich's, as `bold red`, where stdout is a terminal."""

    text: str
    style: str


Cell = str | Styled | Sequence[str]
"""One line, or several."""


class Table:
    """Every text as `shown` shows it, and never as rich's markup, [red] or [link=...]."""

    def __init__(self, *, header: bool = True, tight: bool = False) -> None:
        """`tight`: half the room between columns."""
        self._table = rich.Table(
            box=SIMPLE_HEAD if header else None,
            show_header=header,
            show_edge=False,
            pad_edge=False,
            collapse_padding=tight,
        )

    def column(
        self,
        heading: str = "",
        *,
        right: bool = False,
        whole: bool = False,
        ratio: int | None = None,
        most: int | None = None,
    ) -> None:
        """`right`: aligned so; `whole`: never broken; `most`: letters, wider texts are broken."""
        self._table.add_column(
            _text(heading),
            justify="right" if right else "left",
            no_wrap=whole,
            overflow="ellipsis" if whole else "fold",
            ratio=ratio,
            max_width=most,
        )

    def row(self, *cells: Cell) -> None:
        self._table.add_row(*map(_text, cells))

    def tell(self, *, width: int) -> None:
        """On stdout; `width` columns wide where that is no terminal.

        So that into a file or a pipe a row is one line, however long, and grep finds all of it.
        """
        _console(width).print(self._table)


def tell_styled(*parts: Styled) -> None:
    """A line on stdout."""
    line = Text.assemble(*((shown(text, longest=LINE), style) for text, style in parts))
    _console(LINE).print(line, soft_wrap=True)


def _text(cell: Cell) -> Text:
    if isinstance(cell, Styled):
        return Text(shown(cell.text), style=cell.style)
    return Text(shown(cell) if isinstance(cell, str) else "\n".join(map(shown, cell)))


def _console(width: int) -> Console:
    return Console(width=None if sys.stdout.isatty() else width, highlight=False)
