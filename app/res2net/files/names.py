"""Names of files as they are shown: they may hold anything but a slash and a zero byte."""

from __future__ import annotations

import os
import re

# C0, DEL, C1, and Unicode's own ends of lines
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def printable(text: str) -> str:
    r"""In one line and without what a terminal obeys: `\n` and `\x1b` as Python writes them.

    What is not UTF-8 stays as `os.fsdecode` gives it.
    """
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def valid(text: str) -> str:
    r"""Text that every reader of UTF-8 and JSON takes: bytes that are not UTF-8 become `\xe9`."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")
