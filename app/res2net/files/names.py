"""Texts of foreign origin as people see them: names of files, of classes and of runs, messages.

They may hold anything: what a terminal obeys, ends of lines, signs that cannot be seen or that turn
the order of those behind them round, and what a spreadsheet takes for a formula.
"""

from __future__ import annotations

import json
import os
import re

LONGEST = 4096
"""Characters of a text that are shown: no path of a file is longer."""
LINE = 4 * LONGEST
"""Characters of a line."""

# C0, DEL, C1; Unicode's own ends of lines; its invisible signs: soft hyphen, fillers, joiners,
# those of the direction of writing (bidi), marks of bytes' order, annotations and tags
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # those that stand for no byte


def printable(text: str) -> str:
    r"""In one line, and without what cannot be seen: `\n` and `\x1b` as Python writes them.

    What is not UTF-8 stays as `os.fsdecode` gives it.
    """
    return _CONTROL.sub(_escaped, text)


def valid(text: str) -> str:
    r"""Text that every reader of UTF-8 and JSON takes: bytes that are not UTF-8 become `\xe9`."""
    data = _SURROGATE.sub(_escaped, text).encode("utf-8", "surrogateescape")
    return data.decode("utf-8", "backslashreplace")


def shown(text: str | os.PathLike[str], *, longest: int = LONGEST) -> str:
    """`printable` and `valid`; the end of what is too long is replaced by how long it is."""
    text = os.fspath(text)
    cut = "" if len(text) <= longest else f"... ({len(text):,} characters)"
    return printable(valid(text[:longest])) + cut


def plain_json(text: str) -> str:
    r"""JSON that was made with `ensure_ascii=False`: what `printable` and `valid` show otherwise is
    escaped as JSON has it, but for the ends of its own lines."""
    found = re.compile(f"{_CONTROL.pattern}|[\ud800-\udfff]")
    return found.sub(
        lambda match: match[0] if match[0] == "\n" else json.dumps(match[0])[1:-1], text
    )


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape", "surrogatepass").decode()
