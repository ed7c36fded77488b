"""Pickles as data: what is admitted is plain, and what was made to do harm does none."""

from __future__ import annotations

import io
import pickle
import struct
from collections import Counter, OrderedDict
from typing import Any

import numpy as np
import pytest

from forged import Call, spell
from res2net.errors import DamagedFileError
from res2net.files.inert import Inert, RefusedNameError
from res2net.files.pickled_arrays import NUMPY, PickledArray
from res2net.files.pickles import PLAIN, budget_of, read_pickle


def read(content: bytes, *, inert: tuple[str, ...] = (), budget: int | None = None) -> Any:
    return read_pickle(
        io.BytesIO(content),
        known={**PLAIN, **NUMPY},
        inert=inert,
        budget=budget or budget_of(len(content)),
    )


PLAIN_VALUES = [
    None,
    True,
    [1, -1, 300, 70_000, -(2**40), 2**70, 0.5, float("inf")],
    {"a": (1,), "b": (1, 2), "c": (1, 2, 3), "d": (1, 2, 3, 4), "e": (), 3: "three", None: 0},
    {("key", 1): b"bytes", b"key": "text \u20ac \U0001f600", "": ""},
    {"set": {1, 2}, "frozen": frozenset({3}), "long": "x" * 300, "bytes": b"\x00\xff" * 200},
    OrderedDict(b=1, a=2),
    Counter({60: 1, 80: 2}),
    bytearray(b"ab"),
]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", PLAIN_VALUES, ids=lambda value: type(value).__name__)
def test_plain_values_are_read_as_pickle_reads_them(value: Any, protocol: int) -> None:
    if isinstance(value, dict) and "frozen" in value and protocol < 4:
        del (value := dict(value))["frozen"]  # no format here has any
    assert read(pickle.dumps(value, protocol)) == value


def test_what_is_shared_stays_shared() -> None:
    inner = [1]
    outer = read(pickle.dumps([inner, {"same": inner}], 4))
    outer[0].append(2)
    assert outer[1]["same"] == [1, 2]
    loop: list[Any] = []
    loop.append(loop)
    assert (found := read(pickle.dumps(loop, 4)))[0] is found


KINDS = ("?", "i1", "u1", "<i2", ">i4", "<i8", "u2", "<u4", ">u8", "<f2", "<f4", ">f8", "c8", "c16")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_and_numbers_of_numpy(protocol: int) -> None:
    for kind in KINDS:
        array = (np.arange(24) % 7).astype(kind).reshape(2, 3, 4)
        for given in (array, np.asfortranarray(array), array[:, :0], array[0, 0, 1]):
            found = read(pickle.dumps(given, protocol))
            if given.ndim:
                made = found.make()
                assert made.dtype == given.dtype and made.shape == given.shape
                assert np.array_equal(made, given)
            else:
                assert type(found) is type(given.item()) and found == given.item()


ADDRESS = b"ABCDEFGH"
OBJECTS = Call("numpy.dtype", "O8", 0, 1, state=(3, "|", None, None, None, -1, -1, 63))
FORGED = Call("numpy.dtype", "f8", 0, 1, state=(3, "|", None, None, None, -1, -1, 63))
NAMES = Call("numpy.dtype", "V8", 0, 1, state=(3, "|", None, ("a",), {"a": (OBJECTS, 0)}, 8, 1, 63))
REBUILD = "numpy._core.multiarray._reconstruct"


def array_of(kind: Call, content: Any, shape: Any = (1,)) -> Call:
    return Call(REBUILD, "numpy.ndarray", (0,), b"b", state=(1, shape, kind, False, content))


FORGERIES = {
    "an array of objects, by its type": Call("numpy.ndarray", (1,), "O", ADDRESS),
    "an array of objects, by its state": array_of(OBJECTS, ADDRESS),
    "a kind told that it has objects": array_of(FORGED, ADDRESS + b"IJ"),
    "a kind of fields": array_of(NAMES, ADDRESS),
    "a number that is an object": Call("numpy._core.multiarray.scalar", OBJECTS, ADDRESS),
    "a buffer of objects": Call("numpy._core.numeric._frombuffer", ADDRESS, OBJECTS, (1,), "C"),
    "a buffer larger than it is": Call(
        "numpy._core.numeric._frombuffer", ADDRESS, Call("numpy.dtype", "f8"), (1 << 40,), "C"
    ),
    "a shape larger than its bytes": array_of(Call("numpy.dtype", "f8"), ADDRESS, (1 << 29,)),
    "a shape that overflows": array_of(Call("numpy.dtype", "f8"), ADDRESS, (1 << 61, 1 << 61, 8)),
    "a negative shape": array_of(Call("numpy.dtype", "f8"), ADDRESS, (-1,)),
    "a shape of text": array_of(Call("numpy.dtype", "f8"), ADDRESS, ("1",)),
    "dimensions by the thousand": array_of(Call("numpy.dtype", "f8"), ADDRESS, (1 << 61,) * 20_000),
    "a hundred dimensions": array_of(Call("numpy.dtype", "f8"), ADDRESS, (1,) * 100),
    "a kind of text": array_of(Call("numpy.dtype", "S8"), ADDRESS),
    "a kind of a list": array_of(Call("numpy.dtype", ["a"]), ADDRESS),
    "an order of bytes that is none": array_of(Call("numpy.dtype", "f8", state=(3, "x")), ADDRESS),
    "no kind": array_of(Call("collections.OrderedDict"), ADDRESS),
    "a state that is none": Call(REBUILD, "numpy.ndarray", (0,), b"b", state=5),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_arrays_are_refused(name: str) -> None:
    try:
        value = read(b"\x80\x02" + spell(FORGERIES[name]) + b".")
    except DamagedFileError:
        return
    if isinstance(value, PickledArray):
        with pytest.raises(ValueError):
            value.make()
    else:  # beside the weights it may lie, unmade
        assert isinstance(value, Inert)


def test_unknown_names_are_refused_and_inert_ones_called_by_nobody() -> None:
    made = Call("posix.system", "touch trace", state={"a": 1})
    content = b"\x80\x02" + spell({"a": made}) + b"."
    with pytest.raises(RefusedNameError, match=r"carries the Python object posix\.system"):
        read(content)
    found = read(content, inert=("posix.system",))["a"]
    assert isinstance(found, Inert) and found.name == "posix.system"
    assert (found.args, found.state) == (("touch trace",), {"a": 1})
    # attributes are not looked up: a dotted name is a name
    with pytest.raises(RefusedNameError):
        read(b"\x80\x04\x8c\x0bcollections\x8c\x1bOrderedDict.fromkeys.__self\x93.")


def declares(opcode: bytes, width: int, count: int) -> bytes:
    return b"\x80\x05" + opcode + count.to_bytes(width, "little") + b"abc."


BILLION = b"".join(
    b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(60)
)
HARMS = {
    "text of 2 GiB": declares(b"X", 4, 1 << 31),
    "bytes of 2 GiB": declares(b"B", 4, 1 << 31),
    "bytes of 2 EiB": declares(b"\x8e", 8, 1 << 61),
    "text of 2 EiB": declares(b"\x8d", 8, 1 << 61),
    "an array of bytes of 2 EiB": declares(b"\x96", 8, 1 << 61),
    "a number of 2 GiB": declares(b"\x8b", 4, (1 << 31) - 1),
    "a buffer that is not there": b"\x80\x05\x97.",
    "an extension": b"\x80\x02\x82\x01.",
    "a reference": b"\x80\x02K\x01Q.",
    "a key that takes for ever": b"\x80\x02})q\x00" + BILLION + b"h\x3cK\x01s.",
    "keys of keys that collide": pickle.dumps(
        {(n * ((1 << 61) - 1), 0): 0 for n in range(1, 2000)}, 2
    ),
    "a set made a thousand times": b"\x80\x02("
    + b"K\x01" * 100_000
    + b"lq\x00("
    + b"cbuiltins\nset\nh\x00\x85R" * 1000
    + b"l.",
    "a table made a thousand times": b"\x80\x02("
    + b"K\x01K\x02\x86" * 50_000
    + b"lq\x00("
    + b"ccollections\nOrderedDict\nh\x00\x85R" * 1000
    + b"l.",
    "keys that collide": pickle.dumps({n * ((1 << 61) - 1): 0 for n in range(1, 2000)}, 2),
    "a frozen set of lists": b"\x80\x04(]\x91.",
    "bytes by the million": b"\x80\x02cbuiltins\nbytearray\nK\x7f\x85R.",
    "text said a thousand times": b"\x80\x02X"
    + (1 << 20).to_bytes(4, "little")
    + b"a" * (1 << 20)
    + b"q\x00("
    + b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R" * 1000
    + b"l.",
    "lists by the million": b"\x80\x02(" + b"]" * 500_000 + b"l.",
    "marks by the million": b"\x80\x02" + b"(" * 500_000 + b".",
    "no end": b"\x80\x02K\x01",
    "nothing": b"",
    "an empty stack": b"\x80\x02.",
    "a tuple of nothing": b"\x80\x02\x87.",
    "a state of nothing": b"\x80\x02b.",
    "an unknown opcode": b"\x80\x02\xff.",
    "a call of a number": b"\x80\x02K\x01)R.",
    "a call with a number": b"\x80\x02ccollections\nOrderedDict\nK\x01R.",
    "a codec of one's own": b"\x80\x02" + spell(Call("_codecs.encode", "a", "zip")) + b".",
    "an odd table": b"\x80\x02}(K\x01u.",
    "an append to a number": b"\x80\x02K\x01K\x02a.",
}


@pytest.mark.parametrize("name", HARMS)
def test_harm_is_told_as_damage(name: str) -> None:
    with pytest.raises(DamagedFileError):
        read(HARMS[name])


def test_a_table_of_contents_of_a_file_that_large_is_no_harm() -> None:
    """The budget holds for what real files have: names, numbers and places of many tensors."""
    table = {
        f"layer{n}.conv.weight": {"step": n, "at": (n, n + 1), "lr": n / 7} for n in range(4000)
    }
    content = pickle.dumps(table, 2)
    assert read(content) == table
    with pytest.raises(DamagedFileError, match="more memory"):
        read(content, budget=len(content))


def test_deep_nesting_is_no_crash() -> None:
    depth = 60_000
    content = b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."
    value = read(content)
    for _ in range(depth - 1):
        (value,) = value
    assert value == []


def test_the_stream_stands_behind_the_pickle() -> None:
    stream = io.BytesIO(pickle.dumps(1, 2) + pickle.dumps(2, 4) + struct.pack("<q", 3))
    assert [read_pickle(stream, known={}, budget=1 << 20) for _ in range(2)] == [1, 2]
    assert stream.read() == struct.pack("<q", 3)
