"""Arguments that several verbs take, and the types of all; argparse tells their errors."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from res2net.files.names import shown
from res2net.weights.shipped import SHIPPED

MOST = 2**31 - 1
"""Of integers that count something."""
SHORT = 60
"""Characters of a value in a message."""
_LEAST, _MOST = 8, 4096
"""Pixels of an image's side for a network."""


def add_model_arguments(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """MODEL, and which of its weights. `several`: any number of models, or what is shipped."""
    shipped = f"{' or '.join(SHIPPED)}, which comes with the package"
    what = f"a run directory, a checkpoint or weights file, a variant with --weights, or {shipped}"
    if several:
        parser.add_argument("models", metavar="MODEL", nargs="*", help=f"{what}, as by default")
    else:
        parser.add_argument("model", metavar="MODEL", help=what)
    parser.add_argument(
        "--weights", metavar="FILE|NAME", help="for a variant; in1k: the published ones"
    )
    parser.add_argument(
        "--checkpoint",
        choices=["last", "best"],
        default="last",
        help="which checkpoint of a run directory (last)",
    )
    parser.add_argument("--ema", action="store_true", help="take the averaged weights")


def add_config_arguments(parser: argparse.ArgumentParser, *, such_as: str) -> None:
    """CONFIG and its changes; `such_as` shows some."""
    parser.add_argument("config", metavar="CONFIG", help="a YAML, or the name of a shipped recipe")
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help=f"changes of the configuration, as {such_as}",
    )


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="auto",
        help="where the network runs; auto: the first GPU where there is one (auto)",
    )


def add_preprocessing_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """How images are seen; the group, for what else belongs to it."""
    how = parser.add_argument_group("how images are seen (default: as the weights say)")
    how.add_argument(
        "--image-size", type=side, metavar="PIXELS", help=f"of the crop, {_LEAST} to {_MOST:,}"
    )
    how.add_argument(
        "--crop-fraction", type=fraction, metavar="F", help="crop / resized short side, 0..1"
    )
    how.add_argument("--interpolation", choices=("bilinear", "bicubic"))
    return how


def asked_preprocessing(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those fields of `Preprocessing` that were given."""
    names = ("image_size", "crop_fraction", "interpolation")
    given = {name: getattr(arguments, name) for name in names}
    return {name: value for name, value in given.items() if value is not None}


def short_name(model: str) -> str:
    """A run's or a file's name as people know it."""
    path = Path(model)
    return "/".join(path.parts[-2:]) if path.is_file() else path.name or model


# --- Numbers: the one place that knows their ranges ----------------------------------------------


def integer(least: int, most: int = MOST) -> Callable[[str], int]:
    """A type of argparse: digits, from `least` to `most`."""

    def read(text: str) -> int:
        if not re.fullmatch("[0-9]{1,18}", text, re.ASCII) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(
                f"'{shown(text, longest=SHORT)}' is not an integer from {least:,} to {most:,}"
            )
        return int(text)

    return read


positive = integer(1)


def _number(text: str, most: float, words: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= most:
        raise argparse.ArgumentTypeError(f"'{shown(text, longest=SHORT)}' is not {words}")
    return value


side = integer(_LEAST, _MOST)
"""Pixels that the memory of a machine bears."""
seed = integer(0, 2**32 - 1)
"""As NumPy takes it."""
workers = integer(1, 1024)
"""Threads or processes of one machine."""
devices_of_node = integer(0, 1024)
nodes = integer(1, 100_000)
quality = integer(1, 100)
"""Of a JPEG."""
side_of_jpeg = integer(1, 65_535)
port = integer(0, 65_535)


def seconds(text: str) -> float:
    """More than 0, a day at most."""
    return _number(text, 86_400, "a number above 0, and up to 86,400 (a day)")


def fraction(text: str) -> float:
    """More than 0, at most 1."""
    return _number(text, 1, "a number above 0 and up to 1")


def devices(text: str) -> str:
    """`auto` or a positive integer."""
    return text if text == "auto" else str(integer(1, 1024)(text))
