"""Shards: a data set in a few large tar files, each with the place of every image in an index.

    shards.json         what the data set is: classes, splits, sizes, how it was made
    train-000000.tar    WebDataset's form: <key>.jpg, then <key>.cls with the number of its class
    train.index         NumPy's .npy of `RECORD`, an entry an image, made for a memory map

`res2net data shard` writes them (`data.sharding`). An image is read where it lies in its tar file:
nothing is unpacked, and opening ImageNet costs the reading of one file of 31 MB.
"""

from __future__ import annotations

import io
import mmap
import os
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from res2net.data.sources.mapped import MappedFiles
from res2net.data.sources.scan import first_few
from res2net.data.sources.split import stratified_split
from res2net.errors import InputError
from res2net.files.foreign import read_json

DESCRIPTION = "shards.json"
UNFINISHED = ".unfinished"
"""Folder in which the writer keeps its state; gone when the shards are complete."""
SCHEMA = 1
SPLITS = ("train", "val")
_MOST_BYTES = 2**25
"""Of the description; 65,536 shards and 21,841 classes take nine million."""

RECORD = np.dtype(
    [
        ("offset", "<u8"),  # of the image's first byte in its tar file
        ("label", "<i8"),  # 64 bits, so that a source's labels are this very column
        ("length", "<u4"),  # bytes of the image
        ("shard", "<u2"),
        ("header", "<u2"),  # bytes of tar headers before the image: 512, more with a long name
    ]
)
"""An entry of an index: 24 bytes, aligned."""

_PIECE = 1 << 14
_PAGE = mmap.ALLOCATIONGRANULARITY


def shard_name(split: str, number: int) -> str:
    """`train-000003.tar`."""
    return f"{split}-{number:06}.tar"


def index_name(split: str) -> str:
    """`train.index`."""
    return f"{split}.index"


def are_shards(directory: str) -> bool:
    """Whether shards are in a folder, finished or not."""
    return os.path.isfile(os.path.join(directory, DESCRIPTION)) or os.path.isdir(
        os.path.join(directory, UNFINISHED)
    )


@dataclass(frozen=True, eq=False)
class ShardSource:
    """The images of one split in tar files, in the order in which they were written."""

    class_names: tuple[str, ...]
    labels: np.ndarray
    """int64 (count,); as the index has them a view of its memory map."""
    _records: np.ndarray = field(repr=False)
    """RECORD (count,)."""
    _files: MappedFiles = field(repr=False)
    holds: ClassVar[Literal["files"]] = "files"

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """What messages call an image: `<root>/train-000003.tar/<key>.jpg`."""
        record = self._records[index]
        start, end = int(record["offset"]) - int(record["header"]), int(record["offset"])
        header = io.BytesIO(self._files[int(record["shard"])][start:end])
        path = self._files.shown[int(record["shard"])]
        try:
            with tarfile.TarFile(fileobj=header) as headers:
                member = headers.next()
        except tarfile.TarError as error:
            raise InputError(f"{path}: damaged at byte {start:,} ({error})") from error
        return os.path.join(path, member.name if member else f"byte {start}")

    def read(self, indices: np.ndarray) -> list[np.ndarray]:
        """Indices (n,) -> n read-only arrays uint8 (bytes,), views of memory maps."""
        records = self._records[indices]
        places = list(
            zip(
                records["shard"].tolist(),
                records["offset"].tolist(),
                records["length"].tolist(),
                strict=True,
            )
        )
        files = [self._files[shard] for shard, _, _ in places]
        if hasattr(mmap, "MADV_WILLNEED"):
            # The disk fetches the whole batch at once; by page faults it would come in pieces of
            # 128 KB, one after the other.
            for file, (_, offset, length) in zip(files, places, strict=True):
                start = offset - offset % _PAGE
                file.madvise(mmap.MADV_WILLNEED, start, offset - start + length)
        return [
            np.frombuffer(file, np.uint8, length, offset)
            for file, (_, offset, length) in zip(files, places, strict=True)
        ]

    def places(self, indices: np.ndarray) -> bytes:
        """As the index has them, lengths among them."""
        return self._records[indices].tobytes()

    def states(self, indices: np.ndarray) -> np.ndarray:
        """The time is that of its tar file, the original: one `stat` each of these."""
        records = self._records[indices]
        numbers, which = np.unique(records["shard"], return_inverse=True)
        times = [os.stat(self._files.shown[number]).st_ctime_ns for number in numbers]
        return np.stack([records["length"], np.array(times)[which]], axis=1).astype(np.int64)

    def subset(self, indices: np.ndarray) -> ShardSource:
        """The images of `indices` (count,), in that order."""
        return replace(self, labels=self.labels[indices], _records=self._records[indices])

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of the tar files that its images lie in."""
        return tuple(self._files.paths[number] for number in np.unique(self._records["shard"]))

    def moved(self, folder: str) -> ShardSource:
        """The same images, to be read from copies of its tar files in `folder`.

        What they are called stays: messages name the originals.
        """
        copies = [os.path.join(folder, os.path.basename(path)) for path in self._files.paths]
        return replace(self, _files=MappedFiles(copies, shown=self._files.shown))


def open_shards(
    root: str,
    *,
    val_fraction: float = 0.1,
    split_seed: int = 0,
    class_names: Sequence[str] | None = None,
) -> tuple[ShardSource, ShardSource]:
    """Training and validation images of a folder of shards; arguments as of `open_sources`.

    Where there is no split `val`, a share of each class is put aside: the same images as of the
    folder that the shards were made of. All files must be there with their sizes and the index
    with its checksum; the images are not looked at.

    Raises InputError for all that is missing or damaged, in one line.
    """
    description = read_description(root)
    splits = description["splits"]
    if "train" not in splits:
        raise InputError(f"{root}: no training images, only {', '.join(splits)}")
    has_val = "val" in splits
    if not has_val and not 0 < val_fraction < 1:
        raise InputError(f"data.val_fraction={val_fraction}: expected more than 0 and less than 1")
    train = open_shard_split(root, "train", class_names=class_names)
    if has_val:
        return train, open_shard_split(root, "val", class_names=class_names)
    try:
        # By the shards' own numbers: how a model numbers the classes does not move the split.
        stay, aside = stratified_split(train._records["label"], val_fraction, split_seed)
    except ValueError as error:
        raise InputError(f"{root}: {error}; one is put aside for validation") from error
    return train.subset(stay), train.subset(aside)


def open_shard_split(
    root: str, split: str, *, class_names: Sequence[str] | None = None
) -> ShardSource:
    """One split of a folder of shards, with `class_names` in place of its own numbers.

    Raises InputError: see `open_shards`; also a class with images that `class_names` lacks.
    """
    description = read_description(root)
    if split not in description["splits"]:
        raise InputError(f"{root}: no split {split} (it has {', '.join(description['splits'])})")
    try:
        stated = description["splits"][split]
        names = tuple(description["class_names"])
        problems = [
            problem
            for shard in stated["shards"]
            if (problem := _size_problem(root, shard["file"], shard["bytes"]))
        ]
        if problems:
            raise InputError(
                f"{root}: damaged or not copied whole: {first_few(problems)}; copy it again, or "
                "write it anew with `res2net data shard`"
            )
        records = _open_index(root, stated, len(names))
        files = MappedFiles([os.path.join(root, shard["file"]) for shard in stated["shards"]])
    except (KeyError, TypeError) as error:
        raise InputError(f"{root}/{DESCRIPTION}: damaged (split {split}: {error!r})") from error
    labels: np.ndarray = records["label"]
    if class_names is not None and tuple(class_names) != names:
        labels = _renumbered(root, labels, names, class_names)
        names = tuple(class_names)
    return ShardSource(class_names=names, labels=labels, _records=records, _files=files)


def read_description(root: str) -> dict[str, Any]:
    """The content of shards.json. Raises InputError where there is none that can be read."""
    path = Path(root, DESCRIPTION)
    if not path.is_file():
        if Path(root, UNFINISHED).is_dir():
            raise InputError(
                f"{root}: unfinished shards; the same `res2net data shard` again goes on with them"
            )
        what = f"no {DESCRIPTION} in it" if os.path.isdir(root) else "no such folder"
        raise InputError(f"{root}: {what}; expected what `res2net data shard` writes")
    try:
        description = read_json(path, most=_MOST_BYTES)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    known = isinstance(description, dict) and isinstance(description.get("splits"), dict)
    if not known or description.get("schema") != SCHEMA:
        raise InputError(f"{path}: not a description of shards of schema {SCHEMA}")
    names, splits = description.get("class_names"), description["splits"]
    for split in splits:
        if problem := _what_is_wrong_with(splits[split]):
            raise InputError(f"{path}: damaged (split {split[:80]}: {problem})")
    if splits and not _are_names(names):
        raise InputError(f"{path}: damaged: no list of the names of its classes")
    return dict(description)


def _are_names(names: Any) -> bool:
    texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return texts and 0 < len(set(names)) == len(names)


def _what_is_wrong_with(split: Any) -> str:
    """A split is opened by what its description says: counts, and files in the folder itself."""
    try:
        index, shards = split["index"], split["shards"]
        counts = [split["images"], index["crc32"], *(shard["bytes"] for shard in shards)]
        files = [index["file"], *(shard["file"] for shard in shards)]
    except (KeyError, TypeError) as error:
        return f"{error!r}"
    if not all(type(count) is int and count >= 0 for count in counts):
        return "a count that is none"
    if not all(isinstance(file, str) and file == os.path.basename(file) != "" for file in files):
        return "a file that is not in the folder"
    return "" if shards and max(counts) < 2**53 else "no shards, or larger ones than there are"


def _size_problem(root: str, file: str, expected: int) -> str:
    try:
        size = os.path.getsize(os.path.join(root, file))
    except OSError:
        return f"{file} is missing"
    return "" if size == expected else f"{file} has {size:,} bytes, not {expected:,}"


def _open_index(root: str, split: dict[str, Any], classes: int) -> np.ndarray:
    """RECORD (images,), a view of a memory map; each names a class and a place in a shard."""
    stated, images = split["index"], split["images"]
    path = os.path.join(root, stated["file"])
    try:
        records = np.load(path, mmap_mode="r")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such index; copy the folder again") from error
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: damaged index ({error}); copy the folder again") from error
    if not isinstance(records, np.ndarray):
        raise InputError(f"{path}: damaged index: an archive of arrays; copy the folder again")
    if records.dtype != RECORD or records.shape != (images,):
        raise InputError(
            f"{path}: damaged index: {records.shape} entries of {records.dtype.itemsize} bytes, "
            f"not ({images},) of {RECORD.itemsize}"
        )
    plain = records.view(np.ndarray)
    if zlib.crc32(plain.data) != stated["crc32"]:
        raise InputError(f"{path}: damaged index (its checksum is wrong); copy the folder again")
    sizes = np.array([shard["bytes"] for shard in split["shards"]], dtype=np.uint64)
    # in pieces: the index itself is not in memory either
    pieces = (plain[start : start + _PIECE] for start in range(0, images, _PIECE))
    sound = all(_are_places(piece, sizes, classes) for piece in pieces)
    if not sound:
        raise InputError(f"{path}: damaged index: names a class or a place that is not there")
    return plain


def _are_places(records: np.ndarray, sizes: np.ndarray, classes: int) -> bool:
    """Whether each of RECORD (n,) is of a class and within its shard; `sizes`: bytes of each."""
    labels, shards = records["label"], records["shard"]
    if not ((labels >= 0) & (labels < classes) & (shards < len(sizes))).all():
        return False
    ends, lengths, offsets = sizes[shards], records["length"], records["offset"]
    inside = (lengths <= ends) & (offsets <= ends - lengths) & (records["header"] <= offsets)
    return bool(inside.all())


def _renumbered(
    root: str, labels: np.ndarray, names: tuple[str, ...], known: Sequence[str]
) -> np.ndarray:
    """Labels that count in `names`, (count,) -> such that count in `known`."""
    places = {name: number for number, name in enumerate(known)}
    used = np.flatnonzero(np.bincount(labels, minlength=len(names)))
    if unknown := [names[number] for number in used if names[number] not in places]:
        raise InputError(f"{root}: unknown class {first_few(unknown)} (known: {first_few(known)})")
    return np.array([places.get(name, -1) for name in names], dtype=np.int64)[labels]
