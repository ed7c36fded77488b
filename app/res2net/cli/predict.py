"""`res2net predict`: the classes of images."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from res2net.cli.arguments import asked_preprocessing, positive
from res2net.cli.images import (
    add_image_arguments,
    add_loader_argument,
    choose_loader,
    find_images,
    reading,
)
from res2net.cli.telling import (
    plain_warnings,
    say,
    say_problems,
    shown,
    tell,
    tell_json,
    tell_lost,
)
from res2net.data.sources.scan import counted
from res2net.errors import InputError, WorkError
from res2net.files.atomic import new_file
from res2net.files.csv_table import FORM, CsvTable
from res2net.weights.shipped import SAMPLE

if TYPE_CHECKING:
    from res2net.inference.predictor import Prediction

TOPK = 5
SHEET = 96
"""Most images of a contact sheet: twelve rows."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_image_arguments(parser, required=False)
    parser.add_argument(
        "--sample",
        action="store_true",
        help="also the image that comes with the package, a handwritten 3 for res2net_digits",
    )
    parser.add_argument(
        "--topk", type=positive, metavar="K", help=f"classes to name ({TOPK}, or all if fewer)"
    )
    parser.add_argument(
        "--sheet",
        metavar="PNG",
        help=f"a new picture of the first {SHEET} images with what they were taken for",
    )
    add_loader_argument(parser)
    parser.add_argument(
        "--fold-bn",
        action="store_true",
        help="fold batch norms into the convolutions: faster, equal but for rounding",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="by torch.compile, which takes up to minutes at the first images",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a list of objects")
    form.add_argument("--jsonl", action="store_true", help="print one object a line")
    form.add_argument("--csv", action="store_true", help=f"print a table with commas, {FORM}")


def run(arguments: argparse.Namespace) -> int:
    """Raises InputError, and WorkError at the end if some images could not be read."""
    sheet = new_file(arguments.sheet, (".png",)) if arguments.sheet else None
    asked = [*arguments.images, *([str(SAMPLE)] if arguments.sample else [])]
    problems: list[InputError] = []
    images = find_images(asked, problems.append)
    say_problems(problems)
    loader = choose_loader(arguments.loader, len(images))

    from res2net.inference.predictor import Predictor  # PyTorch takes seconds

    with plain_warnings():
        predictor = Predictor(
            arguments.model,
            weights=arguments.weights,
            checkpoint=arguments.checkpoint,
            device=arguments.device,
            batch_size=arguments.batch_size,
            ema=arguments.ema,
            fold_bn=arguments.fold_bn,
            compile=arguments.compile,
            preprocessing=asked_preprocessing(arguments),
        )
    classes = len(predictor.class_names)
    topk = min(arguments.topk or TOPK, classes)
    if (arguments.topk or 0) > classes:
        say(f"--topk {arguments.topk}: the model has {classes:,} classes")
    if arguments.json:
        write: _Writer = _write_json
    elif arguments.jsonl:
        write = _write_jsonl
    elif arguments.csv:
        write = _write_csv
    else:
        write = _write_table
    first: list[Prediction] = []
    # Rows that appear in the same terminal are progress enough, and a bar would cut through them.
    scrolls = sys.stdout.isatty() and write is not _write_table
    with reading(images, doing="predicting", bar=not scrolls) as taken:
        predictions = predictor.stream(
            images, topk=topk, on_unreadable=taken.on_unreadable, loader=loader
        )
        write(_keep(taken.follow(predictions), first, SHEET if sheet else 0), topk)
    if sheet is not None:
        sys.stdout.flush()
        predicted = len(images) - taken.unreadable
        _draw_sheet(first, sheet, title=f"{shown(arguments.model)}: predictions", count=predicted)
    tell_lost(
        "classes",
        "were printed",
        given=len(images),
        unreadable=taken.unreadable,
        problems=bool(problems),
    )
    return 0


def _keep(
    predictions: Iterator["Prediction"], first: list["Prediction"], most: int
) -> Iterator["Prediction"]:
    """The same; the first of them are put into `first`."""
    for prediction in predictions:
        if len(first) < most:
            first.append(prediction)
        yield prediction


def _draw_sheet(first: list["Prediction"], sheet: Path, *, title: str, count: int) -> None:
    from res2net.data.sources.folder import FolderSource
    from res2net.data.tile import tile
    from res2net.plots.tiles import draw_tiles

    paths = [prediction.source for prediction in first]
    source = FolderSource.of_files("", ("",), {"": paths})
    tiles = [
        (
            tile(source, index),
            (each.label, f"{each.score:.1%}", os.path.basename(each.source)),
        )
        for index, each in enumerate(first)
    ]
    note = counted(count, "image")
    if len(first) < count:
        note = f"the first {len(first)} of {note}"
    try:
        draw_tiles(tiles, sheet, title=title, note=note)
    except OSError as error:
        reason = error.strerror or error
        raise WorkError(
            f"{sheet}: cannot be written ({reason}); the classes were printed"
        ) from error
    say(f"written: {sheet}")


_Writer = Callable[[Iterator["Prediction"], int], None]


def _write_json(predictions: Iterator["Prediction"], topk: int) -> None:
    # Piece by piece: a list of a million images need not be held.
    separator = "["
    for prediction in predictions:
        sys.stdout.write(f"{separator}\n{json.dumps(_as_json(prediction))}")
        separator = ","
    tell("[]") if separator == "[" else tell("", "]")


def _write_jsonl(predictions: Iterator["Prediction"], topk: int) -> None:
    for prediction in predictions:
        tell_json(_as_json(prediction))


def _write_csv(predictions: Iterator["Prediction"], topk: int) -> None:
    table = CsvTable(sys.stdout)
    ranks = range(1, topk + 1)
    table.row(["source", "index", *(f"{name}{k}" for k in ranks for name in _RANKED)])
    for prediction in predictions:
        ranked = [value for pair in prediction.topk for value in pair]
        table.row([prediction.source, prediction.index, *ranked])


_RANKED = ("label", "score")


def _write_table(predictions: Iterator["Prediction"], topk: int) -> None:
    from res2net.cli.tables import Table

    table = Table()
    table.column("image")
    table.column("top-1")
    table.column("score", right=True, whole=True)
    if topk > 1:
        table.column("then")
    some = False
    for prediction in predictions:
        some = True
        rest = ", ".join(f"{shown(label)} {score:.1%}" for label, score in prediction.topk[1:])
        cells = (prediction.source, prediction.label, f"{prediction.score:.1%}", rest)
        table.row(*(cells if topk > 1 else cells[:-1]))
    if some:
        table.tell(width=10_000)


def _as_json(prediction: "Prediction") -> dict[str, Any]:
    return {
        "source": prediction.source,
        "label": prediction.label,
        "index": prediction.index,
        "score": prediction.score,
        "topk": [dict(zip(_RANKED, pair, strict=True)) for pair in prediction.topk],
    }
