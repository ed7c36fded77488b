"""`res2net data shard`: a data set in a few large files, for file systems that dislike many."""

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from res2net.cli.arguments import SHORT, positive, quality, side_of_jpeg, workers
from res2net.cli.telling import tell, tell_json
from res2net.errors import InputError
from res2net.files.names import shown

_COUNT = re.compile("[0-9]{1,18}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="SRC",
        help="a folder of class folders, with train/ and val/ or not; ImageNet's two archives "
        "(ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar) or the folder they lie in; a folder of "
        "parquet files (train-*.parquet, validation-*.parquet)",
    )
    parser.add_argument(
        "destination", metavar="DST", help="a new folder; one that was begun is gone on with"
    )
    parser.add_argument(
        "--resize",
        type=side_of_jpeg,
        metavar="N",
        help="short side in pixels that larger images get; they become JPEG (all as they are)",
    )
    parser.add_argument(
        "--quality", type=quality, metavar="Q", help="of the JPEG of --resize, 1 to 100 (90)"
    )
    parser.add_argument(
        "--workers", type=workers, metavar="N", help="processes (one for each core)"
    )
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="of validation images that lie in no class folders (found by its usual name)",
    )
    parser.add_argument(
        "--shard-size",
        type=positive,
        default=256,
        metavar="MB",
        help="of one tar file, about; MB of 1,000,000 bytes (256)",
    )
    parser.add_argument(
        "--on-corrupt",
        choices=["error", "skip"],
        default="error",
        help="what to do where an image is empty or, with --resize, cannot be decoded; skip lists "
        "it in DST/quarantine.txt (error)",
    )
    parser.add_argument(
        "--expect",
        type=_counts,
        metavar="N[,M]|any",
        help="how many training (and validation) images there have to be (of ImageNet's archives "
        "1281167,50000; of parquet files all parts; else any)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Raises InputError and WorkError: see `write_shards`."""
    if arguments.quality is not None and arguments.resize is None:
        raise InputError(
            f"--quality {arguments.quality}: only the images that --resize makes become JPEG; give "
            "--resize N too, or leave --quality out"
        )

    from res2net.data.sharding.pixels import QUALITY
    from res2net.data.sharding.writer import write_shards
    from res2net.data.sources.scan import counted
    from res2net.files.quarantine import QUARANTINE

    start = time.perf_counter()
    with _progress() as progress:
        written = write_shards(
            arguments.source,
            arguments.destination,
            labels=arguments.labels,
            resize=arguments.resize,
            quality=arguments.quality or QUALITY,
            shard_bytes=arguments.shard_size * 1_000_000,
            workers=arguments.workers or _cores(),
            skip_corrupt=arguments.on_corrupt == "skip",
            expect=arguments.expect,
            progress=progress,
        )
    speed = written.images_now / (time.perf_counter() - start)

    if arguments.json:
        result = {
            "directory": arguments.destination,
            "images": written.images,
            "left_out": written.left_out,
            "shards": written.shards,
            "bytes": written.bytes,
            "images_now": written.images_now,
            "images_per_second": speed,
        }
        tell_json(result)
        return 0
    images, shards = counted(written.images, "image"), counted(written.shards, "shard")
    words = [f"{images} in {shards}", _size(written.bytes)]
    if written.left_out:
        words.append(f"{counted(written.left_out, 'image')} left out, see {QUARANTINE}")
    if written.images_now:
        words.append(f"{speed:,.1f} images/s")
    done = "" if written.images_now else "already complete: "
    tell(f"{arguments.destination}: {done}{', '.join(words)}")
    return 0


def _counts(text: str) -> tuple[int, ...]:
    if text == "any":
        return ()
    numbers = text.split(",")
    if len(numbers) > 2 or not all(map(_COUNT.fullmatch, numbers)):
        raise argparse.ArgumentTypeError(
            f"'{shown(text, longest=SHORT)}' is not N (training images), N,M (training and "
            "validation images, such as 1281167,50000) or any"
        )
    return tuple(int(number) for number in numbers)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # those that a job of a cluster was given
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr where that is a terminal; before its first image the source is looked at."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich import progress
    from rich.console import Console

    bar = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        redirect_stdout=False,
    )
    with bar:
        task = bar.add_task("looking", total=None)
        yield lambda done, total: bar.update(
            task, description="sharding", completed=done, total=total
        )
