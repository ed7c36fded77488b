"""The instrument itself: each kind of end is told apart, and belongs to its example."""

from collections.abc import Iterator

import pytest

from fuzzing import FREE, MEGABYTE, Reader


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("examples")
    with Reader("fuzzed.misbehave", folder, warm=b"fine", seconds=1) as reader:
        yield reader


@pytest.mark.parametrize(
    ("content", "kind", "detail"),
    [
        (b"fine", "ok", ""),
        (b"refuse", "refused", "no such thing"),
        (b"fail", "failed", "no room"),
        (b"raise", "traceback", "ZeroDivisionError"),
        (b"exit", "traceback", "SystemExit"),
        (b"leave", "crash", "without a word"),
        (b"crash", "crash", "SIGSEGV"),
        (b"spin", "hang", "SIGXCPU"),
        (b"sleep", "hang", "SIGALRM"),
        (b"fill", "ok", ""),
    ],
)
def test_ends_are_told_apart(reader: Reader, content: bytes, kind: str, detail: str) -> None:
    outcome = reader.read(content)
    assert outcome.kind == kind and detail in outcome.detail
    assert bool(outcome.faults()) == (content not in (b"fine", b"refuse"))
    assert reader.read(b"fine").kind == "ok"  # and the next example is read as ever


def test_memory_is_that_of_one_example(reader: Reader) -> None:
    assert FREE < reader.read(b"fill").memory < FREE + 40 * MEGABYTE
    assert reader.read(b"fine").memory < 4 * MEGABYTE
    assert reader.read(b"fine" + bytes(10 * MEGABYTE)).faults() == []


def test_a_directory_is_an_example_too(reader: Reader) -> None:
    assert reader.read({"a": b"", "below/b": b"fine"}).detail == "a, below, below/b"
