"""Files of weights that a stranger made: a line of error at most, and no more memory than promised.

In processes of their own: a fault of this kind ends a process, or takes all there is of a machine.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forged import Call, Constant, Reference, forged, spell, summed, torch_legacy, torch_zip
from fuzzing import Reader
from res2net.weights.torch_file import read_torch
from res2net.zoo import create_model

V2 = "torch._utils._rebuild_tensor_v2"
MIB = 1 << 20


@pytest.fixture(scope="module")
def whole() -> bytes:
    """A file that is read."""
    torch.manual_seed(0)
    stream = io.BytesIO()
    torch.save(create_model("res2net20_cifar").state_dict(), stream)
    return stream.getvalue()


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, whole: bytes) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("foreign")
    with Reader("res2net.weights.read.read_weights", folder, suffix=".pth", warm=whole) as reader:
        yield reader


def storage(count: Any = 2, key: Any = "0", kind: str = "torch.FloatStorage") -> Reference:
    return Reference("storage", Constant(kind), key, "cpu", count)


def tensor(*args: Any, **of: Any) -> Call:
    return Call(V2, storage(**of), *args, False, Call("collections.OrderedDict"))


HELD = {"0": bytes(8)}
DECLARED = {
    "a storage of 4 EiB": tensor(0, (2,), (1,), count=1 << 62),
    "a storage of less than nothing": tensor(0, (2,), (1,), count=-1),
    "a storage that is not there": tensor(0, (2,), (1,), key="../../etc/passwd"),
    "a storage with a key of a list": tensor(0, (2,), (1,), key=["0"]),
    "a shape of 4 GiB": tensor(0, (1 << 30,), (1,)),
    "a shape of 4 GiB in steps of nothing": tensor(0, (1 << 30,), (0,)),
    "dimensions by the thousand": tensor(0, (1 << 40,) * 20_000, (1,) * 20_000),
    "another sign than is stored": Call(
        V2, storage(), 0, (2,), (1,), False, Call("collections.OrderedDict"), {"neg": True}
    ),
    "a shape that overflows": tensor(0, (1 << 32, 1 << 32), (1 << 32, 1)),
    "a step beyond": tensor(0, (2,), (1 << 40,)),
    "a step back": tensor(0, (2,), (-1,)),
    "a place beyond": tensor(1 << 40, (2,), (1,)),
    "a place before": tensor(-1, (2,), (1,)),
    "a shape of text": tensor(0, ("2",), (1,)),
    "a shape without steps": tensor(0, (2,), ()),
    "a kind that is none": Call(V2, Reference("storage", "float", "0", "cpu", 2), 0, (2,), (1,)),
    "a module": Reference("module", Constant("torch.FloatStorage"), "a.py", "import os"),
    "complex numbers": tensor(0, (1,), (1,), count=1, kind="torch.ComplexFloatStorage"),
    "a sparse tensor": Call(
        "torch._utils._rebuild_sparse_tensor",
        Call("torch.serialization._get_layout", "torch.sparse_coo"),
        (tensor(0, (1, 2), (2, 1)), tensor(0, (2,), (1,)), Call("torch.Size", [1 << 40]), True),
    ),
    "a tensor without numbers": Call(
        "torch._utils._rebuild_meta_tensor_no_storage", Constant("torch.float32"), (1 << 40,),
        (1,), False,
    ),
    "a type of one's own": Call("torch._tensor._rebuild_from_type_v2", Constant("torch.Size"), 1),
    "an array of objects": Call("numpy.ndarray", (1,), "O", b"ABCDEFGH"),
}  # fmt: skip


@pytest.mark.parametrize("form", [torch_zip, torch_legacy], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", DECLARED)
def test_tensors_that_cannot_be(reader: Reader, name: str, form: Any) -> None:
    outcome = reader.read(form(forged({"fc.weight": DECLARED[name]}), HELD))
    outcome.check()
    assert outcome.kind == "refused" and outcome.memory < 16 * MIB, outcome


def test_the_same_forms_hold_a_tensor_that_can_be(reader: Reader) -> None:
    """So that the others are refused for what is wrong with them."""
    for form in (torch_zip, torch_legacy):
        outcome = reader.read(form(forged({"fc.weight": tensor(0, (2,), (1,))}), HELD))
        assert "its keys (fc.weight, ...) are not those of a Res2Net" in outcome.detail


def many_names(count: int) -> bytes:
    """A table of contents that names files over and over, each in as few bytes as can be."""
    archive = torch_zip(forged({}), {})
    at = archive.index(b"PK\x01\x02")
    table = (b"PK\x01\x02" + bytes(42)) * count
    # the end: counts of entries stand in two bytes, size and place of the table in four
    end = b"PK\x05\x06" + bytes(4) + (min(count, 65_535)).to_bytes(2, "little") * 2
    end += len(table).to_bytes(4, "little") + at.to_bytes(4, "little") + bytes(2)
    return archive[:at] + table + end


BOMBS = {
    "128 MiB of zeros": lambda: torch_zip(forged({}), {"0": bytes(128 * MIB)}, compressed=True),
    "a pickle that unpacks": lambda: torch_zip(
        forged({"a": "x" * (64 * MIB)}), {}, compressed=True
    ),
    "one with a sum": lambda: summed(torch_zip(forged({}), {"0": bytes(MIB)}, compressed=True)),
    "names by the million": lambda: many_names(400_000),
    "the same with a sum": lambda: summed(many_names(400_000)),
    "an address for a place": lambda: summed(
        torch_zip(forged({}), {}).replace(b"PK\x01\x02", b"PK\x01\x02" + b"\xff" * 4)
    ),
    "no archive, with a sum": lambda: summed(b"PK\x03\x04" + bytes(100)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_archives_that_are_larger_inside(reader: Reader, name: str) -> None:
    content = BOMBS[name]()
    outcome = reader.read(content)
    outcome.check()
    assert outcome.kind == "refused" and "damaged" in outcome.detail, outcome


def paddle(value: Any) -> bytes:
    return forged({"fc_0.w_0": value})


@pytest.mark.parametrize("shape", [(1 << 29,), (1 << 40, 0, 1 << 40), (-1,), ("a",), 5, None])
def test_shapes_of_paddle(tmp_path: Path, reader: Reader, shape: Any) -> None:
    kind = Call("numpy.dtype", "f8", 0, 1, state=(3, "<", None, None, None, -1, -1, 0))
    array = Call("numpy.core.multiarray._reconstruct", Constant("numpy.ndarray"), (0,), b"b",
                 state=(1, shape, kind, False, b"ABCDEFGH"))  # fmt: skip
    path = tmp_path / "a.pdparams"
    path.write_bytes(paddle(array))
    outcome = reader.read_path(path, size=path.stat().st_size)
    outcome.check()
    assert outcome.kind == "refused" and outcome.memory < 16 * MIB


def test_arrays_that_share_their_bytes(tmp_path: Path, reader: Reader) -> None:
    """Each would be a tensor of its own."""
    kind = Call("numpy.dtype", "u1", 0, 1, state=(3, "|", None, None, None, -1, -1, 0))
    array = spell(Call("numpy.core.multiarray._reconstruct", Constant("numpy.ndarray"), (0,), b"b"))
    shared = spell(bytes(MIB)) + b"q\x07" + b"0"
    state = b"(K\x01" + spell((MIB,)) + spell(kind) + b"\x89h\x07tb"
    many = b"".join(spell(f"fc_{n}.w_0") + array + state for n in range(500))
    path = tmp_path / "a.pdparams"
    path.write_bytes(b"\x80\x03" + shared + b"}(" + many + b"u.")
    outcome = reader.read_path(path, size=path.stat().st_size)
    outcome.check()
    assert "its arrays are more than twice the file" in outcome.detail


def test_a_head_of_many_rows_of_nothing(reader: Reader) -> None:
    """No network is made for its 2^40 classes."""
    torch.manual_seed(0)
    tensors = create_model("res2net20_cifar").state_dict()
    tensors["head.fc.weight"] = torch.empty(1 << 40, 0)
    stream = io.BytesIO()
    torch.save(tensors, stream)
    assert "its classifier has no numbers" in reader.read(stream.getvalue()).detail


def test_what_pytorch_reads_too(tmp_path: Path) -> None:
    """Buffers, quantized tensors and dates beside the weights."""
    weight = torch.arange(6.0).reshape(2, 3)
    quantized = torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8)
    stored = {
        "buffer": torch.nn.Buffer(weight.t()),
        "parameter": torch.nn.Parameter(weight[:, 1:]),
        "beside": [quantized, np.str_("a"), np.datetime64("2026-01-01"), frozenset({1})],
    }
    for zipped in (True, False):
        path = tmp_path / f"{zipped}.pth"
        torch.save(stored, path, _use_new_zipfile_serialization=zipped)
        read = read_torch(path)
        assert torch.equal(read["buffer"], weight.t())
        assert torch.equal(read["parameter"], weight[:, 1:])
        assert read["beside"][3] == {1}


# What is drawn

NAMES = st.sampled_from(
    [V2, "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v3", "torch.Size",
     "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state",
     "torch._utils._rebuild_sparse_tensor", "torch._utils._rebuild_qtensor", "numpy.ndarray",
     "numpy.dtype", "numpy._core.multiarray._reconstruct", "numpy.core.multiarray.scalar",
     "numpy._core.numeric._frombuffer", "collections.OrderedDict", "collections.Counter",
     "_codecs.encode", "builtins.set", "builtins.bytearray", "argparse.Namespace", "torch.float32",
     "torch.FloatStorage", "torch.storage.UntypedStorage", "posix.system"]
)  # fmt: skip
NUMBERS = st.sampled_from([0, 1, 2, -1, 8, 63, 1 << 31, 1 << 40, 1 << 62, 1 << 63, -(1 << 63)])
TEXTS = st.sampled_from(
    ["0", "1", "f4", "f8", "O8", "V8", "<", "|", "latin1", "storage", "cpu", ""]
)
LEAVES = (
    NUMBERS | TEXTS | st.none() | st.booleans() | st.floats() | st.binary(max_size=16)
    | st.builds(Constant, NAMES)
)  # fmt: skip
REFERENCES = st.builds(storage, count=NUMBERS | TEXTS, key=TEXTS | NUMBERS)


def _of(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    few = st.lists(inner, max_size=5)
    return (
        few
        | few.map(tuple)
        | st.dictionaries(TEXTS | NUMBERS, inner, max_size=3)
        | st.builds(lambda name, args, state: Call(name, *args, state=state), NAMES, few, inner)
        | st.builds(lambda of, *args: Call(V2, of, *args, False, None), REFERENCES, NUMBERS,
                    few.map(tuple), few.map(tuple))
        | few.map(lambda parts: Reference(*parts))
    )  # fmt: skip


VALUES = st.recursive(LEAVES | REFERENCES, _of, max_leaves=20)
TABLES = st.dictionaries(st.sampled_from(["state_dict", "model", "res2net", "fc.weight"]), VALUES)
OPCODES = st.lists(
    st.binary(min_size=1, max_size=6) | VALUES.map(lambda value: forged(value)[2:-1]), max_size=12
).map(lambda parts: b"\x80\x04" + b"".join(parts) + b".")
PICKLES = TABLES.map(forged) | VALUES.map(forged) | OPCODES
STORAGES = st.dictionaries(st.sampled_from(["0", "1"]), st.binary(max_size=64))


@st.composite
def _damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 6))):
        last = len(content) - 1  # most of a file are numbers: its ends say what they are
        near = st.integers(0, min(4000, last))
        place = draw(st.integers(0, last) | near | near.map(lambda far, last=last: last - far))
        content[place] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.sampled_from([len(content)] * 4 + [len(content) // 2]))])


def files(whole: bytes) -> st.SearchStrategy[bytes]:
    """Of all forms that are told by their content."""
    return (
        st.builds(torch_zip, PICKLES, STORAGES)
        | st.builds(torch_zip, PICKLES, STORAGES).map(summed)
        | st.builds(torch_legacy, PICKLES, STORAGES)
        | _damaged(whole).map(summed)
        | _damaged(torch_legacy(forged({"a": tensor(0, (2,), (1,))}), HELD))
    )


def fuzz(examples: int, content: st.SearchStrategy[bytes], reader: Reader) -> None:
    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(content)
    def check(example: bytes) -> None:
        reader.read(example).check()

    check()


FORMS = {
    ".pth": ("res2net.weights.read.read_weights", files),
    ".pdparams": ("res2net.weights.read.read_weights", lambda whole: PICKLES),
    "": ("fuzzed.read_cifar_batch", lambda whole: PICKLES),
}


@pytest.mark.parametrize("suffix", FORMS)
@pytest.mark.parametrize("examples", [200, pytest.param(10_000, marks=pytest.mark.soak)])
@pytest.mark.timeout(7200)
def test_foreign_bytes(tmp_path: Path, whole: bytes, suffix: str, examples: int) -> None:
    function, content = FORMS[suffix]
    with Reader(function, tmp_path, suffix=suffix, warm=whole) as reader:
        fuzz(examples, content(whole), reader)
