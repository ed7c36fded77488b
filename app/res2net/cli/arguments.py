"""Types of arguments that several verbs take; argparse tells their errors."""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    """1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def fraction(text: str) -> float:
    """More than 0, at most 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and up to 1")
    return value


def devices(text: str) -> str:
    """`auto` or a positive integer."""
    return text if text == "auto" else str(positive(text))
