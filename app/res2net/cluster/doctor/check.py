"""What a finding of the doctor is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Check:
    """One finding."""

    name: str
    status: Literal["ok", "warn", "fail"]
    """`warn`: training works, but not as well as it might; `fail`: it does not."""
    value: str
    """What was found, in one line."""
    advice: str = ""
    """What to do; empty if the status is ok."""


def good_or_warn(good: bool, name: str, value: str, advice: str) -> Check:
    """The advice is only given where it is needed."""
    return Check(name, "ok", value) if good else Check(name, "warn", value, advice)


def one_line(error: object) -> str:
    """Its text, or its type where it has none; at most 300 characters."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 300 else f"{words[:297]}..."
