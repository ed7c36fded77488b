"""`res2net data download` against a server on loopback that serves small archives."""

import hashlib
import io
import os
import shutil
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from res2net.cli.main import main
from res2net.data import published
from res2net.data.sources import cifar
from samples import encoded, photo
from schemas import fits

IMAGES = {
    f"imagenette2-160/{split}/{wnid}/{wnid}_{number}.JPEG": encoded(photo(number), "JPEG")
    for number, (split, wnid) in enumerate(
        (split, wnid) for split in ("train", "val") for wnid in ("n01440764", "n02102040")
    )
}


@pytest.fixture
def site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Path, list[str | None]]]:
    """A folder that is served in place of the published sites; the requests made of it.

    The process works in an empty folder beside it.
    """
    folder = tmp_path / "site"
    folder.mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    requests: list[str | None] = []

    class Quiet(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            super().do_GET()

        def log_message(self, *arguments: object) -> None:
            pass

    handler = partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        address = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(published, "_SITE", address)
        monkeypatch.setattr(cifar, "_SITE", address)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield folder, requests
        server.shutdown()
        thread.join()


def pack(folder: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive that counts as the published one."""
    path = folder / "imagenette2-160.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    trust(path, monkeypatch)
    return path


def trust(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setitem(published._IMAGENETTE, "imagenette-160", ("imagenette2-160.tgz", md5))


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


UNPACKED = {name.replace("imagenette2-160", "data/imagenette-160") for name in IMAGES}
NAME = ["data", "download", "imagenette-160"]


def test_imagenette_is_downloaded_and_unpacked_once(
    site: tuple[Path, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, requests = site
    pack(folder, IMAGES, monkeypatch)
    assert main(NAME) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out == (
        "data/imagenette-160: imagenette-160 is there now; train with data.source=folder "
        "data.root=data/imagenette-160\n"
    )
    assert files_below(Path()) == UNPACKED  # the archive is gone
    assert os.listdir("data") == ["imagenette-160"]
    for name, content in IMAGES.items():
        path = Path(name.replace("imagenette2-160", "data/imagenette-160"))
        assert path.read_bytes() == content
    assert main([*NAME, "--json"]) == 0
    assert fits("data_download", capsys.readouterr().out) == {
        "name": "imagenette-160",
        "root": "data/imagenette-160",
        "source": "folder",
        "was_there": True,
    }
    assert requests == ["/imagenette2-160.tgz"]


def test_a_root_and_a_local_archive(
    site: tuple[Path, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, requests = site
    archive = pack(folder, IMAGES, monkeypatch)
    Path("here").mkdir()  # empty, and so taken
    assert main([*NAME, "--root", "here", "--archive", str(archive)]) == 0
    assert files_below(Path()) == {name.replace("imagenette2-160", "here") for name in IMAGES}
    assert archive.exists() and not requests
    assert main([*NAME, "--root", "here"]) == 0
    assert "is there already" in capsys.readouterr().out


def refused(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> str:
    before = files_below(Path())
    folders = {path for path in Path().rglob("*") if path.is_dir()}
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert files_below(Path()) == before
    assert list(Path().rglob("*.tmp")) == []
    assert {path for path in Path().rglob("*") if path.is_dir()} == folders
    return err


def test_without_network(site: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(NAME, 1, capsys)
    assert "404" in err and "data/imagenette2-160.tgz" in err and "--archive FILE" in err
    err = refused(["data", "download", "cifar10"], 1, capsys)
    assert "404" in err and "cifar-10-binary.tar.gz" in err and "--archive FILE" in err


def test_a_download_goes_on_where_it_stopped(
    site: tuple[Path, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The server here knows no ranges: what came first is written anew, and the hash is right."""
    archive = pack(site[0], IMAGES, monkeypatch)
    Path("data").mkdir()
    Path("data/imagenette2-160.tgz.part").write_bytes(archive.read_bytes()[:100])
    assert main(NAME) == 0
    assert files_below(Path()) == UNPACKED


def test_another_archive_is_refused(
    site: tuple[Path, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    archive = pack(site[0], IMAGES, monkeypatch)
    archive.write_bytes(archive.read_bytes() + b"more")
    err = refused(NAME, 1, capsys)
    assert "nothing was kept" in err
    err = refused([*NAME, "--archive", str(archive)], 2, capsys)
    assert "its md5 is" in err and "imagenette2-160.tgz" in err
    err = refused([*NAME, "--archive", "nowhere.tgz"], 2, capsys)
    assert "nowhere.tgz: no such file" in err


@pytest.mark.parametrize("damage", ["truncated", "outside", "other", "text"])
def test_an_archive_that_cannot_be_unpacked_leaves_nothing(
    site: tuple[Path, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    damage: str,
) -> None:
    folder, _ = site
    if damage == "outside":
        archive = pack(folder, IMAGES | {"../../outside": b"x"}, monkeypatch)
    elif damage == "other":
        archive = pack(folder, {"other/train/1.txt": b"x"}, monkeypatch)
    else:
        archive = pack(folder, IMAGES, monkeypatch)
        content = archive.read_bytes()
        archive.write_bytes(content[:-500] if damage == "truncated" else b"no archive")
        trust(archive, monkeypatch)
    err = refused([*NAME, "--archive", str(archive)], 2, capsys)
    assert "nothing was kept" in err
    assert not Path("data/imagenette-160").exists()
    assert not (Path().absolute().parent / "outside").exists()


def test_a_folder_with_something_else_is_not_touched(
    site: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("x")
    assert "neither empty nor" in refused([*NAME, "--root", "mine"], 2, capsys)
    assert "a file stands there" in refused([*NAME, "--root", "mine/notes.txt"], 2, capsys)


def test_a_full_disk(
    site: tuple[Path, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    archive = pack(site[0], IMAGES, monkeypatch)

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "extractall", full)
    err = refused([*NAME, "--archive", str(archive)], 1, capsys)
    assert "No space left on device" in err


def test_an_unknown_name(site: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(["data", "download", "imagenet"], 2, capsys)
    assert "'imagenet'" in err and "imagenette-320" in err and "cifar100" in err


# --- CIFAR ---------------------------------------------------------------------------------------


def cifar10(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive of five images a batch that counts as the published one."""
    import dataclasses

    form = cifar._FORMS["cifar10"][0]
    path = folder / form.archive
    with tarfile.open(path, "w:gz") as archive:
        contents = dict.fromkeys((*form.train, form.val), (b"\1" + bytes(3072)) * 5)
        for name, content in (contents | {form.meta: b"airplane\nautomobile\n"}).items():
            member = tarfile.TarInfo(f"{form.folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    forms = (dataclasses.replace(form, md5=md5), *cifar._FORMS["cifar10"][1:])
    monkeypatch.setitem(cifar._FORMS, "cifar10", forms)
    return path


@pytest.mark.parametrize("local", [False, True])
def test_cifar(
    site: tuple[Path, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    local: bool,
) -> None:
    folder, requests = site
    archive = cifar10(folder, monkeypatch)
    arguments = ["data", "download", "cifar10"]
    if local:
        archive = shutil.move(archive, folder / "under-another-name.tgz")
        arguments += ["--archive", str(archive)]
    assert main(arguments) == 0
    assert "data/cifar10: cifar10 is there now; train with data.source=cifar10" in (
        capsys.readouterr().out
    )
    assert files_below(Path()) == {"data/cifar10/cifar-10-binary.tar.gz"}
    assert requests == ([] if local else ["/cifar-10-binary.tar.gz"])
    assert main(arguments) == 0
    assert "is there already" in capsys.readouterr().out
    assert len(requests) <= 1 and archive.exists()


def test_another_archive_of_cifar_is_refused(
    site: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    file = site[0] / "cifar-10-binary.tar.gz"
    file.write_bytes(b"?")
    err = refused(["data", "download", "cifar10", "--archive", str(file)], 2, capsys)
    assert "cifar-10-binary.tar.gz (c32a1d4ab5d03f1284b67883e8d87530)" in err
