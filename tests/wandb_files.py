"""Reading what W&B wrote offline: `run-<id>.wandb`, a log in LevelDB's format of protocol buffers.

Source: github.com/google/leveldb, doc/log_format.md; W&B's file begins with 7 bytes of its own.
"""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK, HEADER = 32768, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[Any]:
    """Its records in order; every piece against its checksum."""
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    place, held = HEADER, b""
    while place + HEADER <= len(data):
        left = BLOCK - place % BLOCK
        if left < HEADER:  # zeros to the end of the block
            place += left
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        piece = data[place + HEADER : place + HEADER + length]
        assert len(piece) == length
        checksum = zlib.crc32(bytes([kind]) + piece)
        assert int.from_bytes(data[place : place + 4], "little") == checksum
        held = piece if kind in (FULL, FIRST) else held + piece
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(held)
            yield record
        place += HEADER + length


def history(leg: Path) -> list[dict[str, Any]]:
    """The rows that one leg of a run logged; `leg`: its folder `offline-run-...`."""
    (path,) = leg.glob("run-*.wandb")
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row.item}
        for record in records(path)
        if record.WhichOneof("record_type") == "history"
        for row in [record.history]
    ]


def kinds(leg: Path) -> list[str]:
    """Of the records of one leg."""
    (path,) = leg.glob("run-*.wandb")
    return [record.WhichOneof("record_type") for record in records(path)]
