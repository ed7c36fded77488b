"""Writing shards: the same bytes however it went, and nothing that is not whole."""

import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from res2net.data.sharding import writer
from res2net.data.sharding.pixels import Corrupt, shrink
from res2net.data.sharding.writer import Written, write_shards
from res2net.data.sources.shards import UNFINISHED, open_shard_split, open_shards
from res2net.errors import InputError, WorkError
from res2net.inference.images import read_image
from res2net.preprocessing import to_rgb
from samples import encoded, photo
from sharding import contents, failure, files_of, jpeg, make, refusal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "folder", {"train/a": 12, "train/b": 9, "val/a": 3, "val/b": 2})


# Equality


def test_the_number_of_workers_does_not_show(folder: Path, tmp_path: Path) -> None:
    for resize in (None, 20):
        one, two = tmp_path / f"one {resize}", tmp_path / f"two {resize}"
        options = {"resize": resize, "shard_bytes": 10_000}
        write_shards(str(folder), str(one), workers=1, **options)  # type: ignore[arg-type]
        write_shards(str(folder), str(two), workers=2, **options)  # type: ignore[arg-type]
        assert files_of(one) == files_of(two)
        assert len(list(one.glob("*.tar"))) > 4


def test_shards_are_about_as_large_as_asked(tmp_path: Path) -> None:
    make(tmp_path / "folder", {"a": 60, "b": 60})
    write_shards(str(tmp_path / "folder"), str(tmp_path / "shards"), shard_bytes=100_000)
    sizes = [file.stat().st_size for file in sorted((tmp_path / "shards").glob("*.tar"))]
    assert len(sizes) > 2
    assert all(90_000 < size < 120_000 for size in sizes[:-1])


def test_a_resized_image_is_what_pillow_makes_of_it(tmp_path: Path) -> None:
    kinds = {
        "wide.jpg": encoded(photo(1, (101, 48)), "JPEG"),
        "tall.png": encoded(photo(2, (48, 99))),
        "grey.png": encoded(photo(3, (60, 70)).convert("L")),
        "palette.png": encoded(photo(4, (64, 64)).convert("P")),
        "cmyk.jpg": encoded(photo(5, (64, 50)).convert("CMYK"), "JPEG"),
        "alpha.webp": encoded(photo(6, (64, 50)).convert("RGBA"), "WEBP"),
        "deep.png": encoded(Image.fromarray(np.arange(4900, dtype=np.uint16).reshape(70, 70) * 13)),
        "just.JPEG": encoded(photo(7, (32, 64)), "JPEG"),
        "small.bmp": encoded(photo(8, (20, 90)), "BMP"),
    }
    for name, content in kinds.items():
        for split in ("a", "b"):
            (tmp_path / "folder" / split).mkdir(parents=True, exist_ok=True)
            (tmp_path / "folder" / split / name).write_bytes(content)
    write_shards(str(tmp_path / "folder"), str(tmp_path / "shards"), resize=32, quality=77)
    source = open_shard_split(str(tmp_path / "shards"), "train")
    for index, name in enumerate(sorted(kinds)):
        stored = source.read(np.array([index]))[0].tobytes()
        with Image.open(io.BytesIO(kinds[name])) as image:
            width, height = image.size
            short = min(width, height)
            if short <= 32:
                assert stored == kinds[name]
                continue
            size = (32 * width // short, 32 * height // short)
            rgb = to_rgb(image)
        assert source.name(index).endswith(f"/a/{name.split('.')[0]}.jpg")
        expected = rgb.resize(size, Image.Resampling.BICUBIC)
        assert stored == encoded(expected, "JPEG", quality=77)
    assert source.name(4).endswith("/a/just.jpeg") and source.name(6).endswith("/a/small.bmp")


# Interruptions


def start(source: Path, destination: Path) -> subprocess.Popen[bytes]:
    code = (
        "import sys\nfrom res2net.data.sharding.writer import write_shards\n"
        "if __name__ == '__main__':\n"
        "    write_shards(*sys.argv[1:], resize=24, shard_bytes=20_000, workers=2)\n"
    )
    script = destination.parent / "write.py"
    script.write_text(code)
    return subprocess.Popen([sys.executable, script, source, destination])


def test_a_kill_leaves_no_trace(tmp_path: Path) -> None:
    source = make(tmp_path / "folder", {"train/a": 150, "train/b": 150, "val/a": 9}, (400, 320))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    write_shards(str(source), str(whole), resize=24, shard_bytes=20_000)
    process = start(source, killed)
    deadline = time.monotonic() + 60
    # not Path.glob: it fails where the folder, tried out first, goes while it looks
    while len(glob(f"{killed}/{UNFINISHED}/train-*.npz")) < 2:
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "shards.json").exists()
    assert "unfinished shards" in _open_refusal(killed)
    # the workers end with their parent: soon nothing is written any more
    time.sleep(0.5)
    before = _stats(killed)
    time.sleep(0.3)
    assert _stats(killed) == before
    kept = {name: stat for name, stat in before.items() if name.endswith(".tar")}
    (killed / UNFINISHED / ".train-000003.npz.99.tmp").touch()
    (killed / ".train-000003.tar.99.tmp").touch()

    seen: list[tuple[int, int]] = []
    written = write_shards(
        str(source),
        str(killed),
        resize=24,
        shard_bytes=20_000,
        workers=1,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert 0 < written.images_now < written.images == 309
    assert seen[0] == (309 - written.images_now, 309) and seen[-1] == (309, 309)
    assert files_of(killed) == files_of(whole)
    # a shard whose part of the index was not yet there is written again, at most one a worker
    assert sum(_stats(killed)[name] != stat for name, stat in kept.items()) <= 2


def _stats(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def _open_refusal(root: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_shards(str(root))
    return str(caught.value)


def test_once_more_changes_nothing(folder: Path, tmp_path: Path) -> None:
    done = tmp_path / "shards"
    first = write_shards(str(folder), str(done), shard_bytes=10_000)
    (done / UNFINISHED).mkdir()  # killed at the very end
    before = _stats(done)
    again = write_shards(str(folder), str(done), shard_bytes=10_000, workers=2)
    assert again == Written(26, first.shards, first.bytes, 0, images_now=0)
    assert first.images_now == 26
    assert files_of(done) and _stats(done) == {k: v for k, v in before.items() if k != UNFINISHED}


def test_other_options_or_images_are_refused(folder: Path, tmp_path: Path) -> None:
    done, begun = tmp_path / "done", tmp_path / "begun"
    write_shards(str(folder), str(done), resize=24)
    (folder / "train/a/x.jpg").write_bytes(b"not an image")
    failure(folder, begun, resize=24, shard_bytes=10_000)
    assert not (begun / "shards.json").exists()
    (folder / "train/a/x.jpg").unlink()
    for root, size in ((done, 256_000_000), (begun, 10_000)):
        other = {"resize": 16, "quality": 50, "shard_bytes": size}
        message = refusal(folder, root, **other)
        assert (
            f"{root}: its shards were made with --resize 24, now 16; --quality 90, now 50"
            in message
        )
        assert "with --resize 24, now none" in refusal(folder, root, shard_bytes=size)
    assert "--shard-size 256, now 7e-06" in refusal(folder, done, resize=24, shard_bytes=7)
    (folder / "train/a/y.jpg").write_bytes(jpeg(1))
    assert "other images or labels" in refusal(folder, done, resize=24)


def test_destinations_that_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thing").touch()
    for name in ("file", "full"):
        assert "exists already and holds no shards" in refusal(folder, tmp_path / name)
    for inside in (folder, folder / "shards", folder / "train/a/b"):
        assert "choose a folder outside" in refusal(folder, inside)
    assert not (folder / "shards").exists()
    (tmp_path / "empty").mkdir()
    assert write_shards(str(folder), str(tmp_path / "empty")).images == 26


def test_a_place_that_cannot_be_written_is_refused_before_the_source_is_looked_at(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "open_inputs", lambda *arguments, **options: pytest.fail("looked"))
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    before = sorted(tmp_path.rglob("*"))
    for name, why in (
        ("file/a/b", f"{tmp_path}/file is no folder"),
        ("link/a", f"{tmp_path}/link is no folder"),
        ("circle/a", "Symlink loop"),
        ("x" * 300, "File name too long"),
        ("new/" + "x" * 300, "File name too long"),
        ("/proc/a", "No such file or directory"),
    ):
        message = refusal(folder, tmp_path / name)
        assert message.startswith(f"{tmp_path / name}: no shards can be written there ({why}")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("begun", [False, True])
def test_a_folder_of_others_is_refused(tmp_path: Path, begun: bool) -> None:
    with tempfile.TemporaryDirectory() as reachable:
        os.chmod(reachable, 0o755)
        done = Path(reachable, "shards")
        closed = done / UNFINISHED if begun else done
        closed.mkdir(parents=True)
        closed.chmod(0o555)
        with _without_rights():
            for place in (done, closed / "a/b"):
                message = refusal(tmp_path / "none", place)
                assert message.startswith(f"{place}: ") and "(Permission denied)" in message
        closed.chmod(0o755)


def test_a_source_of_others_is_refused(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as reachable:
        os.chmod(reachable, 0o777)
        source = folder.rename(Path(reachable, "folder"))
        source.chmod(0)
        with _without_rights():
            message = refusal(source, Path(reachable, "shards"))
        assert message.startswith(f"{source}") and message.endswith("(Permission denied)")
        source.chmod(0o755)


@contextmanager
def _without_rights() -> Iterator[None]:
    """Root may write everywhere."""
    is_root = os.geteuid() == 0
    try:
        if is_root:
            os.seteuid(65534)
        yield
    finally:
        if is_root:
            os.seteuid(0)


def test_only_one_writer_at_a_time(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    with writer._alone(tmp_path / "shards"):
        assert "another process writes" in refusal(folder, tmp_path / "shards")
    assert write_shards(str(folder), str(tmp_path / "shards")).images == 26


def test_room_is_asked_for_before_the_work(folder: Path, tmp_path: Path, monkeypatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    message = refusal(folder, tmp_path / "shards", shard_bytes=10_000)
    assert "0.0 GB are free there" in message
    assert not (tmp_path / "shards").exists()


# Images that cannot be decoded


@pytest.mark.parametrize("workers", [1, 2])
def test_a_corrupt_image_is_named_and_what_is_done_stays(
    folder: Path, tmp_path: Path, workers: int
) -> None:
    bad, done = folder / "val/b/1.jpg", tmp_path / "shards"
    whole = bad.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    options = {"resize": 24, "shard_bytes": 10_000, "workers": workers}
    message = failure(folder, done, **options)
    assert message.startswith(f"{bad} cannot be decoded (") and "truncated" in message.lower()
    assert " shards finished and kept: mend the file, or" in message
    kept = {name for name in _stats(done) if name.endswith(".tar")}
    if workers == 1:
        assert len(kept) > 2
    assert not list(done.rglob("*.tmp"))

    skipped = write_shards(str(folder), str(done), skip_corrupt=True, **options)  # type: ignore[arg-type]
    assert (skipped.images, skipped.left_out) == (25, 1)
    (line,) = (done / "quarantine.txt").read_text().splitlines()
    assert line.startswith(f"{bad}\tcannot be decoded (") and "truncated" in line.lower()
    assert open_shard_split(str(done), "val").labels.tolist() == [0, 0, 0, 1]
    # the same as when they had been left out from the beginning
    write_shards(
        str(folder), str(tmp_path / "at once"), skip_corrupt=True, resize=24, shard_bytes=10_000
    )
    assert files_of(tmp_path / "at once") == files_of(done)


def test_a_mended_image_lets_it_go_on(folder: Path, tmp_path: Path) -> None:
    bad, done = folder / "train/b/3.jpg", tmp_path / "shards"
    whole = bad.read_bytes()
    bad.write_bytes(b"")
    assert f"{bad} is empty; " in failure(folder, done, shard_bytes=10_000)
    bad.write_bytes(whole)
    write_shards(str(folder), str(done), shard_bytes=10_000)
    assert contents(done, "train")[15] == whole


def test_nothing_but_corrupt_images(tmp_path: Path) -> None:
    for name in ("a/0.jpg", "a/1.jpg", "b/0.jpg", "b/1.jpg"):
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(b"no image")
    message = failure(tmp_path / "folder", tmp_path / "shards", resize=8, skip_corrupt=True)
    assert "none of the images looked at can be decoded" in message
    assert f"{tmp_path}/folder/a/0.jpg cannot be decoded (no image in a known format)" in message
    assert not (tmp_path / "shards").exists()


def test_another_process_has_finished_meanwhile(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, alone = tmp_path / "shards", writer._alone
    options = {"shard_bytes": 10_000}

    @contextmanager
    def late(directory: Path) -> Iterator[None]:
        monkeypatch.setattr(writer, "_alone", alone)
        write_shards(str(folder), str(done), **options)  # type: ignore[arg-type]
        (directory / UNFINISHED).mkdir()  # as one that was about to write
        with alone(directory):
            yield

    monkeypatch.setattr(writer, "_alone", late)
    assert write_shards(str(folder), str(done), **options).images_now == 0  # type: ignore[arg-type]
    assert not (done / UNFINISHED).exists()
    write_shards(str(folder), str(tmp_path / "once"), **options)  # type: ignore[arg-type]
    assert files_of(done) == files_of(tmp_path / "once")


def test_an_image_that_cannot_be_read_is_never_skipped(folder: Path, tmp_path: Path) -> None:
    images = writer.open_inputs(str(folder))["train"]
    (folder / "train/a/0.jpg").unlink()
    with pytest.raises(WorkError, match=r"a/0\.jpg: cannot be read"):
        from res2net.data.sharding.shard_file import Recipe, write_shard

        (tmp_path / "other" / UNFINISHED).mkdir(parents=True)
        recipe = Recipe(skip_corrupt=True)
        write_shard(tmp_path / "other", "train", 0, range(3), images, {}, recipe, lambda: None)
    assert os.listdir(tmp_path / "other") == [UNFINISHED]


def test_too_many_pixels_in_our_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(Corrupt, match=r"^cannot be decoded \(1,280 pixels, more than 1,000\)$"):
        shrink(jpeg(1), 16, 90)
    with pytest.raises(InputError, match=r"^the image: has 1,280 pixels, more than 1,000$"):
        read_image(jpeg(1), source="the image")
