"""Folders of small images and what becomes of them in shards, for the tests of the writer."""

from pathlib import Path

import numpy as np
import pytest

from res2net.data.sharding.writer import write_shards
from res2net.data.sources.shards import open_shard_split
from res2net.errors import InputError, WorkError
from samples import encoded, photo


def jpeg(seed: int, size: tuple[int, int] = (40, 32)) -> bytes:
    return encoded(photo(seed, size), "JPEG")


def make(root: Path, folders: dict[str, int], size: tuple[int, int] = (40, 32)) -> Path:
    """Folder -> number of small JPEG in it, all different."""
    seed = 0
    for folder, count in folders.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            seed += 1
            (root / folder / f"{number}.jpg").write_bytes(jpeg(seed, size))
    return root


def files_of(root: Path) -> dict[str, bytes]:
    assert not [entry for entry in root.iterdir() if not entry.is_file()]
    return {entry.name: entry.read_bytes() for entry in root.iterdir()}


def images_of(files: dict[str, bytes]) -> dict[str, bytes]:
    """Without the description, which tells the source."""
    return {name: content for name, content in files.items() if name != "shards.json"}


def contents(root: Path, split: str) -> list[bytes]:
    source = open_shard_split(str(root), split)
    return [image.tobytes() for image in source.read(np.arange(len(source)))]


def refusal(*arguments: object, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        write_shards(*map(str, arguments), **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def failure(*arguments: object, **options: object) -> str:
    with pytest.raises(WorkError) as caught:
        write_shards(*map(str, arguments), **options)  # type: ignore[arg-type]
    return str(caught.value)
