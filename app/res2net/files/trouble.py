"""A file that cannot be written for a while: two lines for people, however often it is tried.

What is written beside the training is not worth its end: a disk that is full, read-only or over
quota comes back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from res2net.files.place import is_any_gone
from res2net.files.runs import say


class Trouble:
    """Says that writing began to fail, and that it works again.

    Args:
        path: of the file.
        meanwhile: what becomes of that which cannot be written.
    """

    def __init__(self, path: Path, meanwhile: str = "the run goes on") -> None:
        self.path = path
        self.meanwhile = meanwhile
        self.lasts = False
        """Whether the last attempt failed."""

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Go on after an OSError in the block."""
        try:
            yield
        except OSError as error:
            if not self.lasts and not is_any_gone():  # which ends the run, with a line of its own
                say(f"{self.path} cannot be written ({reason(error)}): {self.meanwhile}")
            self.lasts = True
        else:
            if self.lasts:
                say(f"{self.path} is written again")
            self.lasts = False


def reason(error: OSError) -> str:
    """In one line and without the file's name, such as `No space left on device`."""
    return error.strerror or " ".join(str(error).split()) or type(error).__name__
