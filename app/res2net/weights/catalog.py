"""Published files by name, in the cache or fetched into it, and known again by their hashes.

No file is in this repository. What is fetched is checked against the hash its publisher put into
its name; where there is none, the sha256 of the first file that reads as those weights is recorded
beside it and holds from then on.
"""

from __future__ import annotations

import os
from pathlib import Path

from res2net.errors import InputError, WorkError
from res2net.files import download as transfer
from res2net.files.atomic import atomic_write_text
from res2net.files.foreign import read_text
from res2net.files.runs import say
from res2net.models.variants import find_variant
from res2net.weights.published import CATALOG, PublishedFile
from res2net.weights.shipped import SHIPPED

_LONGEST_RECORD = 1000
DEFAULT = "in1k"
"""The name under which a variant's first published file is asked for."""


def cache_folder() -> Path:
    """`$RES2NET_CACHE`, by default ~/.cache/res2net."""
    return Path(os.environ.get("RES2NET_CACHE") or Path.home() / ".cache" / "res2net")


def published_for(variant: str) -> list[PublishedFile]:
    """The published files of a variant or alias, the default first.

    Raises:
        InputError: There is no such variant.
    """
    name = find_variant(variant).name
    return [published for published in CATALOG.values() if published.variant == name]


def find_published(name: str) -> PublishedFile:
    """A file by its name `source/variant`, or the default one of a variant or alias.

    Raises:
        InputError: Nobody published weights for it, or there is no such variant or source.
    """
    source, slash, variant = name.rpartition("/")
    files = published_for(variant)
    for published in files:
        if not slash or published.source == source:
            return published
    if files:
        choices = ", ".join(published.name for published in files)
        raise InputError(f"weights {name!r}: no such published file (choices: {choices})")
    choices = ", ".join(dict.fromkeys(published.variant for published in CATALOG.values()))
    raise InputError(
        f"weights {name!r}: nobody published weights for {find_variant(variant).name} that can be "
        f"fetched (choices: {choices})"
    )


def resolve(weights: str | os.PathLike[str], variant: str, *, cache: Path | None = None) -> Path:
    """What a user calls the weights of a variant -> a file, fetched where need be.

    `in1k` is the variant's default published file; a source (`official`, `timm`, ...) that
    publisher's; `source/variant` the file of that name; `res2net_digits` one that comes with the
    package; all else is a path and comes back as it is.

    Raises:
        InputError: As `find_published`, or the name is empty, or, without a suffix, none of these.
        WorkError: As `fetch`.
    """
    name = os.fspath(weights)
    if not name:
        raise InputError(
            "weights '': an empty name; give a file, a run directory or published weights, as in1k"
        )
    if Path(name).exists():
        return Path(name)
    if name in SHIPPED:
        return SHIPPED[name].path
    if name == DEFAULT:
        return fetch(variant, cache=cache)
    if name in CATALOG:
        return fetch(name, cache=cache)
    if name in {published.source for published in CATALOG.values()}:
        return fetch(f"{name}/{variant}", cache=cache)
    if not Path(name).suffix:
        names = [published.source for published in published_for(variant)]
        if not names:
            raise InputError(
                f"weights {name!r}: no such file or run directory, and nobody published weights "
                f"for {variant}; for none leave it out, in a configuration empty (model.weights=)"
            )
        known = ", ".join([DEFAULT, *names])
        raise InputError(
            f"weights {name!r}: no such file, run directory or published weights (names: {known})"
        )
    return Path(name)


def fetch(name_or_variant: str, *, cache: Path | None = None) -> Path:
    """The file in the cache: as it lies there, or downloaded with progress, resumed and checked.

    Args:
        name_or_variant: `source/variant`, or a variant or alias for its default file.
        cache: The folder. None: `cache_folder()`.

    Raises:
        InputError: As `find_published`; or a file in the cache has another hash, or none is known
            and it does not read as these weights.
        WorkError: The network failed or gave something else; the message says where to put the
            file by hand.
    """
    published = find_published(name_or_variant)
    target = (cache or cache_folder()) / published.file
    if not target.exists():
        say(f"fetching {published.name}; licence of these weights: {published.licence}")
    if published.digest is None:
        return _fetch_recorded(published, target)
    try:
        return transfer.download(published.url, target, digest=published.digest)
    except transfer.DownloadError as error:
        if published.mirror is None:
            raise
        say(f"{error.reason}; now from the copy {published.mirror}")
        return transfer.download(published.mirror, target, digest=published.digest)


def cached(published: PublishedFile, *, cache: Path | None = None) -> Path | None:
    """Where the file lies in the cache, unchecked; None: it is not there."""
    path = (cache or cache_folder()) / published.file
    return path if path.is_file() else None


def identify(path: str | os.PathLike[str], *, cache: Path | None = None) -> PublishedFile | None:
    """Which published file this is, wherever it lies; None: none that is known.

    It is one whose published hash its sha256 begins with, or, where none is published, one whose
    hash was recorded in the cache when it was fetched. A file that was written anew, by `convert`
    or by a run, is another.
    """
    file = Path(path)
    suffixes = {Path(published.file).suffix for published in CATALOG.values()}
    if file.suffix not in suffixes or not file.is_file():
        return None
    found = transfer.file_hash(file, "sha256")
    folder = cache or cache_folder()
    for published in CATALOG.values():
        known = published.digest or _recorded(folder / published.file)
        if known is not None and found.startswith(known):
            return published
    return None


def _fetch_recorded(published: PublishedFile, target: Path) -> Path:
    """As `download`, for a file whose publisher states no hash: that of the first one holds."""
    recorded = _recorded(target)
    lay_there = target.exists()
    transfer.download(published.url, target, digest=recorded)
    if recorded is not None:
        return target
    # A hash recorded of anything else would keep the right file out ever after.
    try:
        _check_content(published, target)
    except InputError as error:
        if lay_there:
            raise InputError(
                f"{error}; remove it to have it fetched from {published.url}"
            ) from error
        target.unlink()
        raise WorkError(
            f"{published.url}: what came is not {published.name} ({error}); nothing was kept; try "
            f"again, or put the file at {target}"
        ) from error
    digest = transfer.file_hash(target, "sha256")
    atomic_write_text(_record(target), f"{digest}  {target.name}\n")
    say(f"{target}: its publisher states no hash; recorded beside it: sha256 {digest}")
    return target


def _check_content(published: PublishedFile, file: Path) -> None:
    """Refuse what is no file of weights, or one of another variant."""
    from res2net.weights.infer import infer_variant
    from res2net.weights.read import read_weights

    weights = read_weights(file, backbone_only=True)
    fitting = infer_variant(weights.state_dict, format=weights.format)
    if published.variant not in fitting:
        whose = " or ".join(fitting) or "no variant known here"
        raise InputError(f"{file}: these are weights of {whose}, not of {published.variant}")


def _recorded(target: Path) -> str | None:
    """The hash recorded for a file of the cache, hexadecimal; None: there is no record."""
    record = _record(target)
    words = read_text(record, most=_LONGEST_RECORD).split() if record.is_file() else []
    return words[0] if words else None


def _record(target: Path) -> Path:
    return target.with_name(target.name + ".sha256")
