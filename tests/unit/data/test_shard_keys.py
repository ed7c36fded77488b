"""The names of images in shards."""

import os
from pathlib import Path

import pytest

from res2net.data.sharding.keys import extension_of, key_of, renamed
from res2net.data.sharding.writer import write_shards
from res2net.data.sources.folder import open_folder
from res2net.data.sources.shards import open_shard_split
from sharding import jpeg, make


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("n01440764/n01440764_10026.JPEG", "n01440764/n01440764_10026"),
        ("a.b/c.d.e.jpg", "a.b/c_d_e"),
        ("flat.png", "flat"),
        ("größe/日本.webp", "größe/日本"),
        ("a/line\nbreak\t.jpg", "a/line_break_"),
        ("a/\udcff\udcfe.jpg", "a/__"),
        ("__meta__/x.jpg", "_meta__/x"),
    ],
)
def test_keys_are_what_readers_take_apart(path: str, key: str) -> None:
    assert key_of(path) == key
    key.encode("utf-8")


def test_no_two_keys_are_the_same() -> None:
    keys = ["a", "b", "a", "a-2", "a", "a-2", "b"]
    others = renamed(keys)
    final = [others.get(index, key) for index, key in enumerate(keys)]
    assert len(set(final)) == len(final)
    assert final[:3] == ["a", "b", "a-2"]


def test_extensions() -> None:
    assert extension_of("x.JPEG", b"") == "jpeg"
    assert extension_of("x.gone", b"\x89PNG..") == "png"
    assert extension_of("00000001", jpeg(0)) == "jpg"
    assert extension_of("00000001", b"?") == "img"


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    make(tmp_path / "folder", {"a": 2, "b": 2})
    for name, content in ((b"\xff.jpg", jpeg(7)), (b"\xfe.jpg", jpeg(8))):
        with open(os.fsencode(tmp_path / "folder/a") + b"/" + name, "wb") as file:
            file.write(content)
    os.rename(tmp_path / "folder/b", os.fsdecode(os.fsencode(tmp_path / "folder") + b"/\xfc"))
    write_shards(str(tmp_path / "folder"), str(tmp_path / "shards"))
    source = open_shard_split(str(tmp_path / "shards"), "train")
    assert source.class_names == open_folder(str(tmp_path / "folder")).class_names
    names = [source.name(index).rpartition("/")[2] for index in range(len(source))]
    assert names == ["0.jpg", "1.jpg", "_.jpg", "_-2.jpg", "0.jpg", "1.jpg"]
