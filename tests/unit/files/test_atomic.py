"""At every moment the old file or the new one, and nothing else left in the directory."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from res2net.errors import InputError
from res2net.files import atomic
from res2net.files.atomic import (
    atomic_write,
    atomic_write_json,
    atomic_write_text,
    link_or_copy,
    new_file,
    remove_stale_temporaries,
    try_folder,
)


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def test_the_new_content_appears_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"old")
    with atomic_write(path) as stream:
        stream.write(b"new")
        stream.flush()
        assert path.read_bytes() == b"old"
        assert names(tmp_path) == [f".last.ckpt.{os.getpid()}.tmp", "last.ckpt"]
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["last.ckpt"]


@pytest.mark.parametrize("exception", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, exception: type[BaseException]
) -> None:
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"old")
    with pytest.raises(exception), atomic_write(path) as stream:
        stream.write(b"half")
        raise exception
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["last.ckpt"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space"), atomic_write(path) as stream:
        stream.write(b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["last.ckpt"]


def test_file_then_name_then_directory_reach_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor: int) -> None:
        steps.append("directory" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    def watched_replace(source: Path, destination: Path) -> None:
        steps.append("replace")
        replace(source, destination)

    monkeypatch.setattr(atomic.os, "fsync", watched_fsync)
    monkeypatch.setattr(atomic.os, "replace", watched_replace)
    atomic_write_text(tmp_path / "a.txt", "text")
    assert steps == ["file", "replace", "directory"]


def test_a_killed_writer_leaves_the_old_file_and_a_temporary_that_can_be_cleared(
    tmp_path: Path,
) -> None:
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"old")
    code = (
        "import sys, time\n"
        "from res2net.files.atomic import atomic_write\n"
        "with atomic_write(sys.argv[1]) as stream:\n"
        "    stream.write(b'half'); stream.flush(); print('writing', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        writer.send_signal(signal.SIGKILL)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == [f".last.ckpt.{writer.pid}.tmp", "last.ckpt"]

    others = [".hidden", ".other.tmp", "x.12.tmp"]
    for other in others:
        (tmp_path / other).touch()
    remove_stale_temporaries(tmp_path)
    assert names(tmp_path) == sorted([*others, "last.ckpt"])


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    atomic_write_text(tmp_path / "atomic", "")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_text_and_json(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "a.txt", "für\r\n")
    assert (tmp_path / "a.txt").read_bytes() == "für\r\n".encode()
    value = {"schema": 1, "best": {"val/top1": 0.5}, "a": [1, None, "ü"]}
    atomic_write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text("utf-8")
    assert list(json.loads(text).items()) == list(value.items())
    assert text.startswith('{\n  "schema": 1') and "ü" in text and text.endswith("}\n")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_json_has_not_is_refused_before_anything_is_written(
    tmp_path: Path, value: object
) -> None:
    atomic_write_json(tmp_path / "a.json", 1)
    with pytest.raises((ValueError, TypeError)):
        atomic_write_json(tmp_path / "a.json", {"loss": value})
    assert (tmp_path / "a.json").read_text() == "1\n"
    assert names(tmp_path) == ["a.json"]


def test_a_link_shares_the_bytes_and_replaces_what_was_there(tmp_path: Path) -> None:
    source, destination = tmp_path / "last.ckpt", tmp_path / "best.ckpt"
    source.write_bytes(b"new")
    destination.write_bytes(b"old")
    for _ in range(2):  # the second time both are one file already
        link_or_copy(source, destination)
        assert destination.read_bytes() == b"new"
        assert os.path.samefile(source, destination)
        assert names(tmp_path) == ["best.ckpt", "last.ckpt"]
    atomic_write_text(source, "newer")
    assert destination.read_bytes() == b"new"


def test_a_symbolic_link_is_resolved(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"bytes")
    (tmp_path / "soft").symlink_to("real")
    link_or_copy(tmp_path / "soft", tmp_path / "copy")
    assert not (tmp_path / "copy").is_symlink()
    assert (tmp_path / "copy").read_bytes() == b"bytes"


def test_a_copy_where_links_are_not_supported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: str, destination: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(atomic.os, "link", refuse)
    source, destination = tmp_path / "last.ckpt", tmp_path / "best.ckpt"
    source.write_bytes(b"new")
    destination.write_bytes(b"old")
    link_or_copy(source, destination)
    assert destination.read_bytes() == b"new"
    assert not os.path.samefile(source, destination)
    assert names(tmp_path) == ["best.ckpt", "last.ckpt"]


def test_a_missing_source_leaves_the_destination(tmp_path: Path) -> None:
    (tmp_path / "best.ckpt").write_bytes(b"old")
    with pytest.raises(FileNotFoundError):
        link_or_copy(tmp_path / "missing", tmp_path / "best.ckpt")
    assert names(tmp_path) == ["best.ckpt"]
    assert (tmp_path / "best.ckpt").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/sys/x.png", r"the folder '/sys' cannot be written \("),  # root may, the kernel does not
        ("/proc/x.png", r"the folder '/proc' cannot be written \("),
        (250 * "a" + ".png", "the name is too long"),
        (300 * "a" + "/x.png", r"there is no folder"),
        ("x.png", None),
    ],
)
def test_where_a_new_file_can_be_made_is_tried(tmp_path: Path, path: str, message: str) -> None:
    if message is None:
        assert new_file(tmp_path / path, (".png",)) == tmp_path / path
    else:
        with pytest.raises(InputError, match=message):
            new_file(tmp_path / path, (".png",))
    assert names(tmp_path) == []


@pytest.mark.parametrize("path", ["/sys/a/b", "/proc/a", "a/b/" + 300 * "c", "file/a", "a/b", "."])
def test_where_a_folder_can_be_made_is_tried(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    if path in ("a/b", "."):
        try_folder(tmp_path / path)
    else:
        with pytest.raises(InputError, match=r"cannot be written \(.*\); choose another folder"):
            try_folder(tmp_path / path)
    assert names(tmp_path) == ["file"]
