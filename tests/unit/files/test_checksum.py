"""One checksum of a whole zip file: whatever changes in it is found."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from res2net.files.checksum import SummedZip, matches
from res2net.files.runs import is_sound


def save(value: object, path: Path) -> bytes:
    with path.open("wb") as stream:
        summed = SummedZip(stream)
        torch.save(value, summed)  # type: ignore[arg-type]
        summed.finish()
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.ckpt"


def test_any_reader_opens_it(path: Path) -> None:
    plain = io.BytesIO()
    torch.save({"weights": torch.arange(5.0)}, plain)
    summed = save({"weights": torch.arange(5.0)}, path)
    assert matches(path) is True and is_sound(path)
    for mmap in (False, True):
        read = torch.load(path, weights_only=True, mmap=mmap)
        assert torch.equal(read["weights"], torch.arange(5.0))
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
        assert file.comment.startswith(b"res2net crc32 ")
        assert len(summed) - len(file.comment) == len(plain.getvalue())


def test_a_file_without_a_checksum_tells_nothing(path: Path) -> None:
    torch.save(torch.arange(5.0), path)
    assert matches(path) is None and is_sound(path)
    path.write_bytes(b"")
    assert matches(path) is None and not is_sound(path)


@pytest.mark.parametrize("pieces", [1, 2, 3, 5, 1000])
def test_the_pieces_in_which_it_is_written_do_not_matter(path: Path, pieces: int) -> None:
    content = save(torch.arange(50.0), path)
    plain = content[: -len("res2net crc32 ") - 8 - 2] + b"\0\0"
    stream = io.BytesIO()
    summed = SummedZip(stream)
    for part in np.array_split(np.frombuffer(plain, dtype=np.uint8), pieces):
        assert summed.write(part.tobytes()) == len(part)
    summed.finish()
    assert stream.getvalue() == content


def test_every_byte_counts(path: Path) -> None:
    content = save({"weights": torch.arange(30.0), "steps": 7}, path)
    table = content.rindex(b"PK\x05\x06") - 600
    for place in (*range(0, table, 7), *range(table, len(content))):
        for bit in (place % 8, 4):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            if is_sound(path):  # of the comment the mark alone
                assert len(content) - 22 <= place < len(content) - 8
                read = torch.load(path, weights_only=True)
                assert torch.equal(read["weights"], torch.arange(30.0)) and read["steps"] == 7


def test_a_bit_that_turns_a_tensor_into_anything(path: Path) -> None:
    """PyTorch takes the member for a folder, of which it reads nothing: its memory is as it was."""
    content = bytearray(save({"weights": torch.arange(8.0)}, path))
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"/data/0"))
    content[entry + 38] ^= 16
    path.write_bytes(content)
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
    torch.load(path, weights_only=True)
    assert not is_sound(path)
