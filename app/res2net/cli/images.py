"""What the verbs for images share: their arguments, which images are meant, how far they are."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from res2net.cli.arguments import positive
from res2net.errors import InputError

PROGRESS_FROM = 100
"""Fewer images are done before a progress bar is worth reading."""


def add_image_arguments(parser: argparse.ArgumentParser) -> None:
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
    parser.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="auto",
        help="where the network runs; auto: the first GPU where there is one (auto)",
    )
    parser.add_argument(
        "--batch-size", type=positive, default=32, metavar="N", help="images of one pass (32)"
    )


def find_images(paths: Sequence[str]) -> list[str]:
    """Files as they are, folders as the images in them at any depth, sorted.

    As in data sets, links are followed, and hidden files and folders are left out.

    Raises:
        InputError: A path does not exist, or there are no images in a folder.
    """
    from res2net.data.sources.folder import EXTENSIONS

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


class Reading:
    """Images on their way through a network.

    Attributes:
        images: Each moves the progress bar on when it is taken.
        unreadable: How many could not be read.
    """

    def __init__(self, images: Iterator[str], say: Callable[[str], None]) -> None:
        self.images = images
        self.unreadable = 0
        self._say = say

    def on_unreadable(self, error: InputError) -> None:
        """Name an image on stderr and count it."""
        self.unreadable += 1
        self._say(f"error: {error}")


@contextmanager
def reading(images: list[str], *, doing: str, bar: bool = True) -> Iterator[Reading]:
    """With a progress bar called `doing` for many images, if `bar` and stderr is a terminal."""
    if not (bar and len(images) > PROGRESS_FROM and sys.stderr.isatty()):
        yield Reading(iter(images), lambda message: print(message, file=sys.stderr))
        return
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    # Redirected stdout would end up in this console, that is on stderr.
    with Progress(console=console, redirect_stdout=False) as progress:
        yield Reading(
            iter(progress.track(images, description=doing)),
            lambda message: console.print(message, markup=False, highlight=False, soft_wrap=True),
        )


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
