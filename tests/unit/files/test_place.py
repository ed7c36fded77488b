"""A folder that is held: by what it is, not by what it is called."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from res2net.files.append import AppendedFile
from res2net.files.atomic import atomic_write_text, link_or_copy
from res2net.files.lock import Lock
from res2net.files.place import GoneError, Place, check, is_any_gone, make_folder_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "runs/one"
    path.mkdir(parents=True)
    (path / "file").write_text("first")
    return path


@pytest.fixture
def place(folder: Path) -> Iterator[Place]:
    held = Place(folder)
    yield held
    held.let_go()


def rename(folder: Path) -> None:
    folder.rename(folder.with_name("two"))


def rename_the_folder_above(folder: Path) -> None:
    folder.parent.rename(folder.parent.with_name("elsewhere"))


def replace(folder: Path) -> None:
    rename(folder)
    folder.mkdir()


def replace_by_copy(folder: Path) -> None:
    rename(folder)
    shutil.copytree(folder.with_name("two"), folder)


def replace_by_file(folder: Path) -> None:
    rename(folder)
    folder.touch()


def replace_by_link(folder: Path) -> None:
    rename(folder)
    folder.with_name("three").mkdir()
    folder.symlink_to(folder.with_name("three"))


CHANGES = (
    rename,
    rename_the_folder_above,
    replace,
    replace_by_copy,
    replace_by_file,
    replace_by_link,
    shutil.rmtree,
)


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_is_written_where_it_was(
    folder: Path, place: Place, change: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = AppendedFile(folder / "rows")
    rows.append(b"a")
    check(folder / "new")
    change(folder)
    top = folder.parents[1]
    before = sorted(str(path) for path in top.rglob("*"))
    assert place.is_gone() and is_any_gone()
    for write in (
        lambda: atomic_write_text(folder / "new", ""),
        lambda: atomic_write_text(folder / "plots/new", ""),
        lambda: link_or_copy(folder / "file", folder / "new"),
        lambda: make_folder_of(folder / "plots/new"),
    ):
        with pytest.raises(GoneError, match="was moved, deleted or replaced"):
            write()
    rows.append(b"b")  # waits, and says nothing: the end of the run tells
    assert rows.pending == b"b" and capsys.readouterr().err == ""
    assert sorted(str(path) for path in top.rglob("*")) == before
    atomic_write_text(top / "beside", "")  # which is nobody's


def test_where_it_is_now(folder: Path, place: Place) -> None:
    assert place.now() == folder
    rename(folder)
    assert place.now() == folder.with_name("two")
    shutil.rmtree(folder.with_name("two"))
    assert place.now() is None


def test_a_folder_that_was_let_go_is_nobody_s(folder: Path) -> None:
    place = Place(folder)
    place.let_go()
    place.let_go()
    replace(folder)
    atomic_write_text(folder / "new", "")
    assert not is_any_gone()


def test_the_same_folder_by_another_way(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder where the process works is moved with all that is in it."""
    monkeypatch.chdir(tmp_path / "runs")
    place = Place(Path("one"))
    (tmp_path / "runs").rename(tmp_path / "moved")
    assert not place.is_gone()
    place.let_go()


def test_another_file_system_is_asked_what_lies_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that was away gets another number when it comes back."""
    answers = [True, False]
    place = Place(folder, lambda: answers.pop(0))
    stat = os.stat_result((0o40755, 1, place._status.st_dev + 1, 2, 0, 0, 0, 0, 0, 0))
    with monkeypatch.context() as patch:
        patch.setattr("os.stat", lambda path: stat)
        found = [place.is_gone(), place.is_gone()]

        def fail(path: Path) -> None:
            raise OSError(5, "the server does not answer")

        patch.setattr("os.stat", fail)
        found.append(place.is_gone())
    place.let_go()
    assert found == [False, True, False]


@pytest.mark.parametrize("change", [rename, replace, replace_by_copy, shutil.rmtree])
def test_a_lock_in_a_folder_that_is_gone(folder: Path, change: Callable[[Path], None]) -> None:
    lock = Lock(folder / "lock")
    lock.acquire()
    assert not lock.is_lost()
    change(folder)
    there = folder.exists() and {path: path.read_text() for path in folder.iterdir()}
    assert lock.is_lost() and lock.lost and not lock.held
    said = lock.loss()
    assert said.startswith(f"the run directory {folder} was moved, deleted or replaced")
    moved = folder.with_name("two")
    deleted = change is shutil.rmtree
    assert ("nowhere on its disk" if deleted else f"run.name={moved.name} ") in said
    lock.release()
    # it is taken away where it is, and a copy of it is somebody else's
    assert not (moved / "lock").exists()
    assert (folder.exists() and {path: path.read_text() for path in folder.iterdir()}) == there
    assert not is_any_gone()
