"""Trainings without the pictures at their end, which take as long as an epoch of the digits.

For tests that look at none: the callbacks run, and what they call draws nothing. Of the pictures:
`test_seeing_a_run.py`, `test_four_uses.py`, `test_full_disk.py`, `tests/unit/plots`.
"""

from collections.abc import Callable
from typing import Any

DRAWS = {
    "plots": ("draw_curves",),
    "pictures": ("draw_confusion", "draw_per_class", "draw_throughput", "draw_tiles"),
}


def draw_nothing(set_: Callable[[object, str, Any], object] = setattr) -> None:
    """In this process; `set_`: of a MonkeyPatch, to have it as it was."""
    from res2net.callbacks import pictures, plots

    for module, name in ((plots, "plots"), (pictures, "pictures")):
        for draw in DRAWS[name]:
            assert callable(getattr(module, draw))
            set_(module, draw, lambda *arguments, **options: None)
