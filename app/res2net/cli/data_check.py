"""`res2net data check`: decode every image of a data set and tell what is wrong with it."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from res2net.cli.arguments import positive, seed, workers
from res2net.cli.telling import tell, tell_json
from res2net.errors import WorkError
from res2net.files.atomic import new_file
from res2net.files.csv_table import FORM
from res2net.files.names import valid

if TYPE_CHECKING:
    from res2net.data.checking.run import Findings, Split


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "directory",
        metavar="DIR",
        help="train/ and val/, class folders, a flat folder of images, or shards",
    )
    parser.add_argument(
        "--labels", metavar="FILE", help="classes of a flat folder's images (found by its name)"
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help=f"a new file: .csv, a row for each finding, all of them; {FORM}",
    )
    parser.add_argument(
        "--grid", metavar="PNG", help="a new file: .png, a picture of 48 images with their classes"
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="which 48 images (0)")
    parser.add_argument(
        "--max-pixels",
        type=positive,
        metavar="N",
        help="more than so many make an image broken, undecoded (178956970, Pillow's limit)",
    )
    parser.add_argument(
        "--threads", type=workers, metavar="N", help="images decoded at a time (one a core)"
    )
    parser.add_argument("--json", action="store_true", help="print all findings as one object")


def run(arguments: argparse.Namespace) -> int:
    """Raises InputError, and WorkError if there are broken images or training would refuse it."""
    out = new_file(arguments.out, [".csv"]) if arguments.out else None
    grid = new_file(arguments.grid, [".png"]) if arguments.grid else None
    from res2net.cli.data_check_tables import SHOWN, Few, print_report
    from res2net.data.checking.folder import find_strays, open_for_check
    from res2net.data.checking.image import MAX_PIXELS
    from res2net.data.checking.report import figures, lists, rows, write_csv
    from res2net.data.checking.run import check
    from res2net.data.sources.scan import counted

    directory = arguments.directory
    folder = open_for_check(directory, labels=arguments.labels)
    strays = find_strays(directory, folder.labels)
    with _progress(sum(len(split.source) for split in folder.splits)) as advance:
        findings = check(
            folder.splits,
            max_pixels=arguments.max_pixels or MAX_PIXELS,
            threads=arguments.threads,
            progress=advance,
        )
    numbers = figures(directory, folder, findings)
    if out:
        write_csv(out, rows(findings, strays))
    if grid:
        _draw(folder.splits[0], findings, grid, directory, arguments.seed)
    if arguments.json:
        tell_json(_valid(numbers | lists(rows(findings, strays))))
    else:
        few = Few(rows(findings, strays))
        print_report(numbers, few)
        for file in filter(None, (out, grid)):
            tell(f"{file} was written")
    wrong = ["training refuses this folder, for the first problem above"] * folder.refused
    if broken := findings.num_broken:
        if out:
            where = f"they are listed in {out}"
        elif arguments.json or broken <= SHOWN:
            where = "they are listed above"
        else:
            where = f"the first {SHOWN} are listed above, all with --out FILE.csv"
        wrong.append(
            f"{broken:,} of {counted(len(findings), 'image')} cannot be decoded by training; "
            f"{where}; mend or remove them"
        )
    if wrong:
        raise WorkError(f"{directory}: {'; '.join(wrong)}")
    return 0


def _valid(found: Any) -> Any:
    """JSON with names that every reader takes."""
    if isinstance(found, str):
        return valid(found)
    if isinstance(found, dict):
        return {valid(key): _valid(value) for key, value in found.items()}
    return [_valid(value) for value in found] if isinstance(found, list) else found


def _draw(split: "Split", findings: "Findings", file: Path, directory: str, seed: int) -> None:
    from res2net.data.checking.grid import draw_grid

    # The first split's images have the first numbers.
    broken = [number for numbers in findings.broken.values() for number in numbers]
    broken = [number for number in broken if number < len(split.source)]
    title = os.path.basename(os.path.abspath(directory))
    title = title if split.name == "all" else f"{title}/{split.name}"
    draw_grid(split, broken, file, title=title, seed=seed)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr where that is a terminal, and silence of the libraries that decode.

    They write a line about each damaged file straight to the process's stderr, and across the bar.
    """
    if not sys.stderr.isatty():
        with _libraries_silent():
            yield lambda count: None
        return
    from rich import progress
    from rich.console import Console

    with (
        os.fdopen(os.dup(2), "w") as terminal,
        progress.Progress(
            progress.TextColumn("decoding"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[speed]}"),
            progress.TimeRemainingColumn(),
            console=Console(file=terminal),
            redirect_stdout=False,
            redirect_stderr=False,
        ) as bar,
        _libraries_silent(),
    ):
        task = bar.add_task("decoding", total=total, speed="")

        def advance(count: int) -> None:
            speed = bar.tasks[task].speed  # None at first
            bar.update(task, advance=count, speed=f"{speed:,.0f} images/s" if speed else "")

        yield advance


@contextmanager
def _libraries_silent() -> Iterator[None]:
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
