"""What the verbs for images share: their arguments, which images are meant, how far they are."""

import argparse
import glob
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from res2net.cli.arguments import (
    add_device_argument,
    add_model_arguments,
    add_preprocessing_arguments,
    positive,
)
from res2net.cli.telling import say
from res2net.data.sources.scan import EXTENSIONS
from res2net.errors import InputError
from res2net.files.names import LINE, shown
from res2net.memory import keep_freed_memory

if TYPE_CHECKING:
    from res2net.inference.opened import Loader

T = TypeVar("T")

PROGRESS_FROM = 100
"""Fewer images are done before a progress bar is worth reading."""


DALI_FROM = 500
"""Of so many images on DALI pays: it takes a second or two to start."""


def add_image_arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """`required`: at least one image."""
    add_model_arguments(parser)
    parser.add_argument(
        "images",
        metavar="IMAGE|DIR",
        nargs="+" if required else "*",
        help="images; folders, which are searched at any depth for the kinds that training knows "
        f"({', '.join(EXTENSIONS)}; others, as .gif, by name); patterns in quotes "
        "('photos/**/*.jpg'); - for a list of these on stdin, one a line",
    )
    add_device_argument(parser)
    parser.add_argument(
        "--batch-size", type=positive, default=32, metavar="N", help="images of one pass (32)"
    )
    add_preprocessing_arguments(parser)


def add_loader_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--loader",
        choices=["auto", "dali", "pillow"],
        default="auto",
        help=f"what decodes images; auto: DALI, where it is installed, from {DALI_FROM} on; their "
        "pixels are within 1 of 256 levels (bicubic: 3), but at the rim of images that are resized "
        "and not cropped (crop fraction 1), where pillow leaves out what lies beyond and dali "
        "repeats the last pixel (auto)",
    )


def choose_loader(asked: str, count: int) -> "Loader":
    """The loader for `count` images; asked before PyTorch is imported.

    DALI's threads decode while PyTorch's compute. By default OpenMP's threads spin when they wait
    for one another, on the very cores that the decoding wants: they are told to sleep.
    """
    loader = _choose(asked, count)
    if loader == "dali":
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read by OpenMP when it is loaded
    return loader


def _choose(asked: str, count: int) -> "Loader":
    if asked == "auto":
        from res2net.inference.dali_files import has_dali

        return "dali" if count >= DALI_FROM and has_dali() else "pillow"
    return "dali" if asked == "dali" else "pillow"


def find_images(
    paths: Sequence[str], on_problem: Callable[[InputError], None] | None = None
) -> list[str]:
    """Files as they are, folders as the images in them at any depth, sorted.

    As in data sets, links are followed, and hidden files and folders are left out. A pattern
    (`*`, `?`, `[...]`, `**` for any depth) that is no path stands for what it matches, sorted; `-`
    for the paths, folders and patterns on stdin, one a line or, as `find -print0` writes them, with
    zero bytes between.

    Args:
        paths: As above.
        on_problem: Told of each path that gives no image, if others do. None: raise at the first.

    Raises:
        InputError: A path does not exist, a pattern matches nothing, there are no images in a
            folder, or there is no image at all.
    """
    images: list[str] = []
    problems: list[InputError] = []
    for path in _with_stdin(paths):
        try:
            images += _images_of(path)
        except InputError as error:
            if on_problem is None:
                raise
            problems.append(error)
    if problems and not images:
        raise InputError("; ".join(map(str, problems)))
    if not images:
        raise InputError("no images: name files, folders or patterns, or - for a list on stdin")
    for problem in problems:
        assert on_problem is not None
        on_problem(problem)
    return images


def _images_of(path: str) -> list[str]:
    """A file, a folder or a pattern."""
    if not path:
        raise InputError("'': an empty path; name an image, a folder or a pattern")
    if os.path.isdir(path):
        found = [file for file in _files_below(path) if file.lower().endswith(EXTENSIONS)]
        if not found:
            raise InputError(f"{path}: no images in this folder (known: {', '.join(EXTENSIONS)})")
        return sorted(found)
    if os.path.exists(path):
        return [path]
    if not glob.has_magic(path):
        raise InputError(f"{path}: no such image or folder")
    matching = sorted(glob.glob(path, recursive=True))
    # with ** the files come as well as the folders that hold them
    images = [file for file in matching if not os.path.isdir(file)]
    if not images:
        images = [file for folder in matching for file in _images_of(folder)]
    if not images:
        raise InputError(f"{path}: this pattern matches no file")
    return images


def _with_stdin(paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        if path != "-":
            yield path
            continue
        if sys.stdin is None:
            raise InputError("-: stdin is closed; give files, or their names on stdin")
        listed = sys.stdin.buffer.read()
        between = b"\0" if b"\0" in listed else b"\n"
        for line in listed.split(between):
            if line.strip():
                yield os.fsdecode(line.rstrip(b"\r\n"))


class Reading:
    """Images on their way through a network.

    Attributes:
        unreadable: How many could not be read.
    """

    def __init__(self, say: Callable[[str], None], advance: Callable[[int], None]) -> None:
        self.unreadable = 0
        self._say = say
        self._advance = advance

    def on_unreadable(self, error: InputError) -> None:
        """Name an image on stderr and count it."""
        self.unreadable += 1
        self._say(f"error: {error}")

    def follow(
        self, results: Iterable[T], images: Callable[[T], int] = lambda result: 1
    ) -> Iterator[T]:
        """The same; each moves the bar on by its `images`, and by those lost before it."""
        before = self.unreadable
        for result in results:
            self._advance(images(result) + self.unreadable - before)
            before = self.unreadable
            yield result


@contextmanager
def reading(images: Sequence[str], *, doing: str, bar: bool = True) -> Iterator[Reading]:
    """With a progress bar called `doing` for many images, if `bar` and stderr is a terminal."""
    keep_freed_memory()
    with warnings.catch_warnings():
        # Pillow's about large images and odd metadata: what cannot be read is told as an error
        warnings.filterwarnings("ignore", module="PIL")
        if not (bar and len(images) > PROGRESS_FROM and sys.stderr.isatty()):
            yield Reading(say, lambda count: None)
            return
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True)
        # Redirected stdout would end up in this console, that is on stderr.
        with Progress(console=console, redirect_stdout=False) as progress:
            task = progress.add_task(doing, total=len(images))
            yield Reading(
                lambda text: console.print(
                    shown(text, longest=LINE), markup=False, highlight=False, soft_wrap=True
                ),
                lambda count: progress.advance(task, count),
            )
            progress.update(task, completed=len(images))


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
