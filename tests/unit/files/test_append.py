"""A growing file on a disk that is full, read-only or over quota for a while."""

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from disks import SmallDisk
from res2net.files.append import AppendedFile

Mount = Callable[[float], SmallDisk]
PIECES = [f"piece {i} {'x' * (600 + i * 37 % 300)}\n".encode() for i in range(40)]


@pytest.fixture(autouse=True)
def rank_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def is_prefix_of_whole_pieces(path: Path, pieces: list[bytes]) -> bool:
    content = path.read_bytes()
    return any(content == b"".join(pieces[:n]) for n in range(len(pieces) + 1))


def test_a_full_disk_delays_and_loses_nothing(
    small_disk: Mount, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = small_disk(1)
    file = AppendedFile(disk.path / "new" / "rows.csv")
    waited = 0
    for i, piece in enumerate(PIECES):
        if i in (3, 20):
            disk.fill()
        if i in (11, 31):
            disk.free()
        file.append(piece)
        # nothing torn at any moment, and memory holds the rest
        assert is_prefix_of_whole_pieces(file.path, PIECES[: i + 1])
        assert file.path.read_bytes() + file.pending == b"".join(PIECES[: i + 1])
        assert file.length == file.path.stat().st_size
        waited += bool(file.pending)
    assert 4 < waited <= 8 + 11
    assert file.path.read_bytes() == b"".join(PIECES)
    lines = capsys.readouterr().err.splitlines()
    fails, works = lines[:2]
    assert fails.startswith(f"{file.path} cannot be written (No space left on device): ")
    assert works == f"{file.path} is written again"
    assert lines == [fails, works] * 2


def test_a_disk_full_before_the_file_begins(small_disk: Mount) -> None:
    disk = small_disk(1)
    disk.fill()
    file = AppendedFile(disk.path / "rows.csv")
    file.append(b"header\n", keep=0)
    file.append(b"1\n")
    assert (file.length, file.pending) == (0, b"header\n1\n")
    disk.free()
    file.sync()
    assert (file.path.read_bytes(), file.pending) == (b"header\n1\n", b"")


def test_a_disk_that_turns_read_only(small_disk: Mount, capsys: pytest.CaptureFixture[str]) -> None:
    disk = small_disk(1)
    file = AppendedFile(disk.path / "rows.csv")
    file.append(b"1\n")
    disk.read_only()
    file.append(b"2\n")
    file.append(b"3\n", keep=0)  # cannot be cut, either
    file.sync()
    assert (file.length, file.pending) == (0, b"3\n")
    assert file.path.read_bytes() == b"1\n"
    disk.read_only(False)
    file.append(b"4\n")
    assert file.path.read_bytes() == b"3\n4\n"
    (fails, _) = capsys.readouterr().err.splitlines()
    assert "(Read-only file system)" in fails


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """As a quota that this process has."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)


def test_what_a_short_write_left_is_cut_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("res2net.files.trouble.say", lambda text: None)  # a log is a file, too
    file = AppendedFile(tmp_path / "rows.csv")
    file.append(b"123456789\n")
    with file_size_limit(15):
        file.append(b"abcdefghi\n")
        assert file.path.read_bytes() == b"123456789\n"
        assert file.pending == b"abcdefghi\n"
    file.append(b"ABC\n")
    assert file.path.read_bytes() == b"123456789\nabcdefghi\nABC\n"


def test_what_could_not_be_cut_at_once_is_cut_later(tmp_path: Path) -> None:
    """A write that tore a piece as the disk went away: simulated, as no disk does it on demand."""
    file = AppendedFile(tmp_path / "rows.csv")
    file.append(b"1\n")
    file.path.open("ab").write(b"torn")
    file._cut_at, file.pending = 2, b"2\n"
    assert file.length == 2
    file.append(b"3\n")
    assert file.path.read_bytes() == b"1\n2\n3\n"


def test_a_quota_that_shows_when_the_file_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS: the write succeeds, the close says EDQUOT, and what stands there is uncertain."""
    file = AppendedFile(tmp_path / "rows.csv")
    file.append(b"1\n")
    opened = Path.open

    def open_over_quota(path: Path, *args: object, **options: object) -> object:
        stream = opened(path, *args, **options)  # type: ignore[call-overload]

        class OverQuota:
            def __enter__(self) -> object:
                return stream

            def __exit__(self, *_: object) -> None:
                stream.close()
                raise OSError(122, os.strerror(122))

        return OverQuota()

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_over_quota)
        file.append(b"2\n")
    assert (file.pending, file.length) == (b"2\n", 2)
    file.append(b"3\n")
    assert file.path.read_bytes() == b"1\n2\n3\n"


def test_cutting(tmp_path: Path) -> None:
    file = AppendedFile(tmp_path / "rows.csv")
    file.append(b"123\n456\n")
    file.append(b"abc\n", keep=4)
    assert file.path.read_bytes() == b"123\nabc\n"
    file.append(b"d\n", keep=1000)  # a file that is shorter is kept
    assert file.path.read_bytes() == b"123\nabc\nd\n"
