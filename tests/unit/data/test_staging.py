"""Shards copied to a node's own disk: what is read there, and who copies it when."""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from res2net.config.load import load_config
from res2net.data import staging
from res2net.data.sharding.writer import write_shards
from res2net.data.sources.shards import ShardSource, open_shards
from res2net.data.staging import Staging, plan_staging
from res2net.errors import InputError, WorkError
from res2net.training.data import open_data, stage_data
from res2net.training.remarks import remarks
from sharding import make

SHARDS = 5

# a process of its own that copies in small pieces, so many of them a second
COPIER = """
import sys, time
from res2net.data import staging
from res2net.data.sources.shards import open_shards

root, place, pause = sys.argv[1:]
staging._CHUNK = 1 << 10
plan, _ = staging.plan_staging(place, *open_shards(root))
utime = staging.os.utime
def alive(what, *times):
    if not times:
        time.sleep(float(pause))
    utime(what, *times)
staging.os.utime = alive
print("ready", flush=True)
plan.copy()
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("staging")
    make(folder / "folder", {"train/ant": 12, "train/bee": 12, "val/ant": 6, "val/bee": 6})
    write_shards(str(folder / "folder"), str(folder / "shards"), shard_bytes=24_000)
    return folder / "shards"


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    """Of the test's own."""
    shutil.copytree(written, tmp_path / "root")
    assert len(list((tmp_path / "root").glob("*.tar"))) == SHARDS
    return tmp_path / "root"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "disk"


def plan(root: Path, place: Path | str) -> Staging:
    return plan_staging(str(place), *open_shards(str(root)))[0]


def images(source: ShardSource) -> list[bytes]:
    return [image.tobytes() for image in source.read(np.arange(len(source)))]


def names(source: ShardSource) -> list[str]:
    return [source.name(index) for index in range(len(source))]


def tars(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.tar")}


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.iterdir()}


def copier(root: Path, place: Path, *, pause: float = 0) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", COPIER, str(root), str(place), str(pause)]
    process = subprocess.Popen(arguments, stdout=-1, stderr=-1, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_shards_that_are_links_to_other_names(root: Path, place: Path, tmp_path: Path) -> None:
    """As caches by content have them."""
    for number, shard in enumerate(sorted(root.glob("*.tar"))):
        shard.rename(tmp_path / f"blob-{number}")
        shard.symlink_to(tmp_path / f"blob-{number}")
    originals = open_shards(str(root))
    staged, sources = plan_staging(str(place), *originals)
    (tmp_path / "linked").symlink_to(root)
    assert plan(tmp_path / "linked", place) == staged
    staged.copy()
    assert tars(staged.folder) == tars(root)
    assert not any(path.is_symlink() for path in staged.folder.iterdir())
    assert [*map(images, sources)] == [*map(images, originals)]


def test_the_same_images_labels_and_names_are_read_from_the_copies(root: Path, place: Path) -> None:
    originals = open_shards(str(root))
    expected = [(images(s), names(s), s.labels.tolist()) for s in originals]
    staged, sources = plan_staging(str(place), *originals)
    assert not place.exists()  # nothing is copied by planning
    staged.copy()
    assert tars(staged.folder) == tars(root)
    assert staged.folder.parent == place
    for path in root.glob("*.tar"):
        path.unlink()
    assert [(images(s), names(s), s.labels.tolist()) for s in sources] == expected
    some = sources[0].subset(np.array([20, 3]))
    assert images(some) == [expected[0][0][20], expected[0][0][3]]
    assert str(root) in some.name(0)


def test_only_the_files_that_are_read(root: Path, place: Path) -> None:
    train, _ = open_shards(str(root))
    first = train.subset(np.flatnonzero(train._records["shard"] == 0))
    staged, _ = plan_staging(str(place), first)
    staged.copy()
    assert list(tars(staged.folder)) == ["train-000000.tar"]


def test_whole_copies_serve_again_and_others_are_made_anew(root: Path, place: Path) -> None:
    staged = plan(root, place)
    staged.copy()
    before = stamps(staged.folder)
    plan(root, place).copy()
    assert stamps(staged.folder) == before

    first, second = sorted(staged.folder.glob("*.tar"))[:2]
    os.truncate(first, 1000)
    os.utime(first, ns=(before[first.name][1],) * 2)
    content = bytearray(second.read_bytes())
    second.write_bytes(content[::-1])  # as long as before
    os.utime(second, (1, 1))
    plan(root, place).copy()
    assert tars(staged.folder) == tars(root)
    after = stamps(staged.folder)
    changed = {name for name in before if before[name][0] != after[name][0]}
    assert changed == {first.name, second.name}


def test_shards_written_anew_have_a_folder_of_their_own(root: Path, place: Path) -> None:
    former = plan(root, place)
    former.copy()
    before = tars(former.folder)
    os.utime(root / "train-000000.tar", (1, 1))
    later = plan(root, place)
    later.copy()
    assert later.folder != former.folder
    assert tars(former.folder) == before


def test_a_copier_that_is_killed_leaves_nothing_that_looks_whole(root: Path, place: Path) -> None:
    folder = plan(root, place).folder
    process = copier(root, place, pause=0.02)
    until(lambda: tars(folder) and list(folder.glob(".*.part")))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    halves = list(folder.glob(".*.part"))
    assert len(halves) == 1 and len(tars(folder)) < SHARDS
    for name, content in tars(folder).items():
        assert content == (root / name).read_bytes()

    kept = {name: stamp for name, stamp in stamps(folder).items() if name.endswith(".tar")}
    plan(root, place).copy()
    assert tars(folder) == tars(root)
    assert not list(folder.glob(".*.part"))
    assert kept.items() <= stamps(folder).items()  # it went on


def test_one_copies_the_others_wait_and_follow_one_that_dies(root: Path, place: Path) -> None:
    folder = plan(root, place).folder
    first = copier(root, place, pause=0.02)
    until(lambda: tars(folder))
    others = [copier(root, place), copier(root, place)]
    time.sleep(0.3)
    assert [other.poll() for other in others] == [None, None]  # it still holds the lock
    first.send_signal(signal.SIGKILL)
    first.communicate()
    told = [other.communicate(timeout=60)[1] for other in others]
    assert [other.returncode for other in others] == [0, 0], told
    assert tars(folder) == tars(root)
    assert all("waiting for the process that copies the data" in text for text in told)
    assert sorted(text.count("copying ") for text in told) == [0, 1]
    # it went on where the first one stopped
    assert re.search(r"copying [1-4] shards?, ", "".join(told))


def test_a_stuck_copier_is_an_error_a_slow_one_is_waited_for(
    root: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "PATIENCE", 0.5)
    monkeypatch.setattr(staging, "_POLL", 0.01)
    staged = plan(root, place)
    staged.folder.mkdir(parents=True)
    with open(staged.folder / ".lock", "wb") as lock:
        os.utime(lock.fileno(), (1, 1))  # however old it is
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(WorkError, match="no sign of life"):
            staged.copy()
        assert not tars(staged.folder)

        def slowly() -> None:
            for _ in range(12):
                time.sleep(0.1)
                os.utime(lock.fileno())
            fcntl.flock(lock, fcntl.LOCK_UN)

        thread = threading.Thread(target=slowly)
        start = time.monotonic()
        thread.start()
        staged.copy()
        assert time.monotonic() - start > 1
        thread.join()
    assert tars(staged.folder) == tars(root)


def test_too_little_space_is_told_before_anything_is_copied(
    root: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = plan(root, place)
    need = sum(path.stat().st_size for path in root.glob("*.tar"))

    def disk(free: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))

    disk(need - 1)
    with pytest.raises(InputError) as caught:
        staged.copy()
    assert f"has {need - 1:,} bytes free and the data take {need:,};" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not tars(staged.folder)
    (staged.folder / ".train-000000.tar.part").write_bytes(b"1")  # to be written over
    staged.copy()
    disk(0)
    plan(root, place).copy()  # all is there


def test_a_disk_that_fails_on_the_way(
    root: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = plan(root, place)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(WorkError, match=r"train-000000\.tar to .* failed \(No space left"):
        staged.copy()


def test_what_cannot_be_a_place(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NODE_DISK", raising=False)
    with pytest.raises(InputError, match=r"data\.stage_to=\$NODE_DISK/x: .* no such environment"):
        plan(root, "$NODE_DISK/x")
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "disk"))
    assert plan(root, "$NODE_DISK/x").folder.parent == tmp_path / "disk/x"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert plan(root, "~/x").folder.parent == tmp_path / "x"
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"data\.stage_to: .* cannot be written \(Not a dir"):
        plan(root, tmp_path / "file").copy()


def config(*overrides: str):  # type: ignore[no-untyped-def]
    return load_config("quickstart", overrides)


def test_what_the_sources_of_a_configuration_make_of_it(
    root: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_shards = ["data.source=shards", f"data.root={root}"]
    without = config(*of_shards).data
    train, val = open_data(without)
    assert stage_data(without, train, val) == (None, train, val)
    asked = config(*of_shards, f"data.stage_to={place}").data
    staged, *sources = stage_data(asked, train, val)
    assert staged is not None
    assert len(staged.files) == SHARDS
    assert all(file.startswith(str(place)) for s in sources for file in s.files)  # type: ignore[attr-defined]
    monkeypatch.delenv("NODE_DISK", raising=False)
    elsewhere = config(*of_shards, "data.stage_to=$NODE_DISK").data
    assert stage_data(elsewhere, train, val, here=False) == (None, train, val)

    folder = [f"data.root={root.parent}", "data.source=folder", f"data.stage_to={place}"]
    with pytest.raises(InputError, match=r"not folders.*res2net data shard"):
        stage_data(config(*folder).data, train, val, here=False)
    digits = config(f"data.stage_to={place}")
    assert stage_data(digits.data, train, val) == (None, train, val)
    assert [line for line in remarks(digits) if line.startswith("data.stage_to=")]
    assert not [line for line in remarks(config(*of_shards)) if "stage_to" in line]
    assert not place.exists()
