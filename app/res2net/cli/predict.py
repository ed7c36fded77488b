"""`res2net predict`: the classes of images."""

import argparse
import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from res2net.errors import InputError, WorkError

if TYPE_CHECKING:
    from res2net.inference.predictor import Prediction

PROGRESS_FROM = 100
"""Fewer images are done before a progress bar is worth reading."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a run directory, a checkpoint or weights file, or a variant with --weights",
    )
    parser.add_argument(
        "images",
        metavar="IMAGE|DIR",
        nargs="+",
        help="images, and folders that are searched for images at any depth",
    )
    parser.add_argument("--topk", type=int, default=5, metavar="K", help="classes to name (5)")
    parser.add_argument("--weights", metavar="FILE", help="weights for a variant")
    parser.add_argument(
        "--checkpoint",
        choices=["last", "best"],
        default="last",
        help="which checkpoint of a run directory (last)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a list of objects")
    form.add_argument("--jsonl", action="store_true", help="print one object a line")
    form.add_argument("--csv", action="store_true", help="print a table with commas")


def run(arguments: argparse.Namespace) -> int:
    """Raises InputError, and WorkError at the end if some images could not be read."""
    if arguments.topk < 1:
        raise InputError(f"--topk {arguments.topk}: at least 1")
    images = find_images(arguments.images)

    from res2net.inference.predictor import Predictor  # PyTorch takes seconds

    predictor = Predictor(
        arguments.model, weights=arguments.weights, checkpoint=arguments.checkpoint
    )
    if arguments.json:
        write: _Writer = _write_json
    elif arguments.jsonl:
        write = _write_jsonl
    elif arguments.csv:
        write = _write_csv
    else:
        write = _write_table
    # Rows that appear in the same terminal are progress enough, and a bar would cut through them.
    scrolls = sys.stdout.isatty() and write is not _write_table
    show = len(images) > PROGRESS_FROM and sys.stderr.isatty() and not scrolls

    broken: list[InputError] = []
    with _progress(images, show=show) as (taken, report):

        def on_unreadable(error: InputError) -> None:
            broken.append(error)
            report(f"error: {error}")

        topk = min(arguments.topk, len(predictor.class_names))
        write(predictor.stream(taken, topk=topk, on_unreadable=on_unreadable), topk)
    if broken:
        raise WorkError(
            f"{len(broken):,} of {len(images):,} images could not be read, see above; "
            f"the classes of the other {len(images) - len(broken):,} were printed"
        )
    return 0


def find_images(paths: Sequence[str]) -> list[str]:
    """Files as they are, folders as the images in them at any depth, sorted.

    As in data sets, links are followed, and hidden files and folders are left out.

    Raises:
        InputError: A path does not exist, or there are no images in a folder.
    """
    from res2net.data.folder import EXTENSIONS

    images: list[str] = []
    for path in paths:
        if not os.path.exists(path):
            raise InputError(f"{path}: no such image or folder")
        if not os.path.isdir(path):
            images.append(path)
            continue
        found = [file for file in _files_below(path) if file.lower().endswith(EXTENSIONS)]
        if not found:
            raise InputError(f"{path}: no images in this folder (known: {', '.join(EXTENSIONS)})")
        images += sorted(found)
    return images


def _files_below(folder: str) -> Iterator[str]:
    def fail(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error

    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        if os.path.realpath(parent) in seen:  # links may run in circles
            folders.clear()
            continue
        seen.add(os.path.realpath(parent))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(parent, name) for name in files if not name.startswith("."))


@contextmanager
def _progress(
    images: list[str], *, show: bool
) -> Iterator[tuple[Iterator[str], Callable[[str], None]]]:
    """The images, and how to say something on stderr meanwhile."""
    if not show:
        yield iter(images), lambda message: print(message, file=sys.stderr)
        return
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    # Redirected stdout would end up in this console, that is on stderr.
    with Progress(console=console, redirect_stdout=False) as progress:
        yield (
            iter(progress.track(images, description="predicting")),
            lambda message: console.print(message, markup=False, highlight=False, soft_wrap=True),
        )


_Writer = Callable[[Iterator["Prediction"], int], None]


def _write_json(predictions: Iterator["Prediction"], topk: int) -> None:
    # Piece by piece: a list of a million images need not be held.
    separator = "["
    for prediction in predictions:
        print(separator, json.dumps(_as_json(prediction)), sep="\n", end="")
        separator = ","
    print("[]" if separator == "[" else "\n]")


def _write_jsonl(predictions: Iterator["Prediction"], topk: int) -> None:
    for prediction in predictions:
        print(json.dumps(_as_json(prediction)))


def _write_csv(predictions: Iterator["Prediction"], topk: int) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    ranks = range(1, topk + 1)
    writer.writerow(["source", "index", *(f"{name}{k}" for k in ranks for name in _RANKED)])
    for prediction in predictions:
        ranked = [value for pair in prediction.topk for value in pair]
        writer.writerow([_printable(prediction.source), prediction.index, *ranked])


_RANKED = ("label", "score")


def _write_table(predictions: Iterator["Prediction"], topk: int) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("image", overflow="fold")
    table.add_column("top-1", overflow="fold")
    table.add_column("score", justify="right", no_wrap=True)
    if topk > 1:
        table.add_column("then", overflow="fold")
    for prediction in predictions:
        rest = ", ".join(f"{label} {score:.1%}" for label, score in prediction.topk[1:])
        cells = (_printable(prediction.source), prediction.label, f"{prediction.score:.1%}", rest)
        # Text, because names may hold square brackets, which rich would read as markup.
        table.add_row(*map(Text, cells if topk > 1 else cells[:-1]))
    if table.row_count:
        # Into a file or a pipe one line an image, however long, so that grep finds all of it.
        Console(width=None if sys.stdout.isatty() else 10_000).print(table)


def _as_json(prediction: "Prediction") -> dict[str, Any]:
    return {
        "source": prediction.source,
        "label": prediction.label,
        "index": prediction.index,
        "score": prediction.score,
        "topk": [dict(zip(_RANKED, pair, strict=True)) for pair in prediction.topk],
    }


def _printable(source: str) -> str:
    """File names need not be text; JSON escapes what is not."""
    return os.fsencode(source).decode(errors="backslashreplace")
