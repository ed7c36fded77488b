"""The reader of foreign files: what it takes, and what it refuses in one line."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from foreign_bytes import JSON_PIECES, YAML_PIECES
from res2net.errors import InputError
from res2net.files.foreign import (
    DEEPEST,
    count_lines,
    last_lines,
    parse_json,
    read_bytes,
    read_json,
    read_text,
)
from res2net.files.foreign_yaml import MOST_NODES, read_yaml


def refusal(read: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    return message


@pytest.mark.parametrize("read", [read_bytes, read_text, read_json, read_yaml, last_lines])
def test_what_is_no_plain_file_is_refused_and_not_waited_for(tmp_path: Path, read: Any) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for name, what in (("pipe", "a pipe or a device"), ("link", "a pipe or a device")):
        assert refusal(read, tmp_path / name) == f"{tmp_path / name}: is {what}, not a plain file"
    assert refusal(read, tmp_path) == f"{tmp_path}: is a directory, not a plain file"
    with pytest.raises(OSError, match="symbolic links"):
        read(tmp_path / "circle")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none")


def test_no_more_is_read_than_may_be(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    assert read_bytes(path, most=100) == b"x" * 100
    assert refusal(read_bytes, path, most=99) == f"{path}: has 100 bytes, and its kind at most 99"
    os.truncate(path, 2**40)  # a hole: nothing of it is on the disk
    assert "has 1,099,511,627,776 bytes" in refusal(read_bytes, path)
    assert last_lines(path) == [] and count_lines(path) == 1


def test_the_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one\ntwo\n\xffthree\nhalf")
    assert last_lines(path) == ["one", "two", "\udcffthree"] and count_lines(path) == 4
    assert last_lines(path, most=13) == ["\udcffthree"]


@pytest.mark.parametrize("content", [b"\xff\xfea\0", "é".encode("latin1"), b"\xed\xa0\x80"])
def test_text_is_utf_8(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    for read in (read_text, read_json, read_yaml):
        assert refusal(read, path) == f"{path}: is no text in UTF-8 (byte 0)"
    path.write_bytes(b"\xef\xbb\xbf1")
    assert read_text(path) == "1" and read_json(path) == 1 and read_yaml(path) == 1


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "not JSON"),
        ("[" * 100_000, f"more than {DEEPEST} deep"),
        ("[" * 33 + "]" * 33, f"more than {DEEPEST} deep"),
        ('{"a":' * 500 + "1" + "}" * 500, f"more than {DEEPEST} deep"),
        ("[" + "[]," * 600_001 + "0]", "more than 600,000 values"),
        ('{"a": NaN}', "NaN is no number"),
        ("[-Infinity]", "-Infinity is no number"),
        ("1e400", "1e400 is beyond all numbers"),
        ("9" * 5000, "an integer of 5000 digits"),
        (str(2**63), "an integer of 19 digits"),
        ('["\\ud800"]', "a text that is no Unicode"),
        ('{"\\udfff": 1}', "a text that is no Unicode"),
    ],
)
def test_json_that_is_refused(text: str, what: str) -> None:
    message = refusal(parse_json, text, "the file")
    assert message.startswith("the file: ") and what in message


def test_json_that_is_read() -> None:
    assert parse_json("[" * 32 + "]" * 32, "file")
    told = '{"a": [1, -2.5e3, true, null, "\\udcff é"], "b": 9223372036854775807}'
    assert parse_json(told, "file") == {"a": [1, -2500.0, True, None, "\udcff é"], "b": 2**63 - 1}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[" * 100_000, f"more than {DEEPEST} deep"),
        ("- " * 3000, f"more than {DEEPEST} deep"),
        ("".join("  " * depth + "a:\n" for depth in range(200)), f"more than {DEEPEST} deep"),
        (
            "a0: &a0 x\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 40)),
            f"more than {DEEPEST} deep",
        ),
        (YAML_PIECES[-1].decode(), f"more than {MOST_NODES:,} values"),
        ("- a\n" * 10_001, f"more than {MOST_NODES:,} values"),
        ("x" * (2**18 + 1), "at most 262,144"),
        ("a: &a [*a]", "line 1, column 8: broken YAML: nothing before is called &a"),
        ("a: 1\na: 2", "line 2: a: given twice"),
        ("? [a]\n: 1", "line 1: a list or mapping stands where a key should"),
        ("a: !!python/object/apply:os.system [id]", "has the tag 'tag:yaml.org,2002:python/"),
        ("a: !!binary aGk=", "has the tag 'tag:yaml.org,2002:binary'"),
        ("a: 1\n---\nb: 2", "line 2, column 1: broken YAML: a second document begins"),
        ('"\\ud800"', "a text that is no Unicode"),
        ('"\\U00110000"', "broken YAML"),
        ("a: \0", "broken YAML"),
        ("a:\n\t- 1", "line 2, column 1: broken YAML"),
    ],
)
def test_yaml_that_is_refused(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    message = refusal(read_yaml, path)
    assert message.startswith(str(path)) and what in message


def test_yaml_that_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(
        "a: {int: 1, float: 1.5e-3, bool: on, none: ~, text: '1', time: 2020-01-01}\n"
        "b: [0x1f, 12:30, 1e-5, .nan, 1_000]\n"
        "<<: {c: &c [x]}\nd: *c\n"
        "huge: " + "9" * 5000
    )
    assert read_yaml(path) == {
        "a": {"int": 1, "float": 0.0015, "bool": True, "none": None, "text": "1",
              "time": "2020-01-01"},
        "b": ["0x1f", "12:30", "1e-5", ".nan", 1000],
        "<<": {"c": ["x"]},
        "d": ["x"],
        "huge": "9" * 5000,
    }  # fmt: skip
    path.write_text('root: "/data/\\uDCFF"')  # as a name that is no UTF-8 is written
    assert read_yaml(path) == {"root": "/data/\udcff"}
    path.write_text("")
    assert read_yaml(path) is None


@pytest.mark.parametrize("piece", [*JSON_PIECES, *YAML_PIECES], ids=lambda piece: repr(piece[:20]))
def test_alone_no_piece_does_any_harm(tmp_path: Path, piece: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(piece)
    for read in (read_json, read_yaml):
        try:
            read(path)
        except InputError as error:
            assert re.match(rf"{path}(, line \d+)?[:,] ", str(error)) and len(str(error)) < 1000
