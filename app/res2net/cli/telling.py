"""All that verbs print: results on stdout, remarks on stderr, a line each (tables: tables.py).

Names come from files of strangers. What goes through here is shown as a terminal and a reader can
bear it, whatever is in it: no verb calls `print` itself (tests/unit/cli/test_printing.py).
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from res2net.errors import InputError, WorkError
from res2net.files.names import LINE, shown


def tell(*lines: str) -> None:
    """Results for people."""
    for line in lines:
        print(shown(line, longest=LINE))


def tell_json(value: Any, *, indent: int | None = None) -> None:
    """Results for programs: names as they are, in ASCII."""
    print(json.dumps(value, indent=indent))


def say(message: str) -> None:
    """A remark."""
    print(shown(message, longest=LINE), file=sys.stderr, flush=True)


def say_problems(problems: Sequence[InputError]) -> None:
    for problem in problems:
        say(f"error: {problem}")


def tell_lost(what: str, where: str, *, given: int, unreadable: int, problems: bool) -> None:
    """Raise WorkError if something of what was asked for is missing.

    Args:
        what: That was made of each image.
        where: What became of it, as `were printed`.
        given: Images.
        unreadable: Of them.
        problems: Some paths had no images.
    """
    lost = ["some paths had no images"] if problems else []
    if 0 < unreadable < given:
        lost.append(f"{unreadable:,} of {given:,} images could not be read")
    elif unreadable:
        lost.append("the image could not be read" if given == 1 else "no image could be read")
    if not lost:
        return
    rest = given - unreadable
    kept = "" if not rest else f"; the {what} of the other {'one' if rest == 1 else f'{rest:,}'} "
    raise WorkError(f"{' and '.join(lost)}, see above{kept}{where if rest else ''}")


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Of weights whose preprocessing is assumed: one line, without a place in the code."""
    from res2net.weights.preprocessing import AssumedPreprocessing

    with warnings.catch_warnings():
        before = warnings.showwarning

        def show(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, AssumedPreprocessing):
                say(f"warning: {message}")
            else:
                before(message, category, *place, **more)

        warnings.showwarning = show
        warnings.simplefilter("always", AssumedPreprocessing)
        yield
