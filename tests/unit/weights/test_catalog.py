"""Published files by name, and fetching against a server on this machine that misbehaves."""

import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import safetensors.torch
import torch

from res2net.errors import InputError, WorkError
from res2net.files import download as transfer
from res2net.weights.catalog import (
    cached,
    fetch,
    identify,
    resolve,
)
from res2net.weights.formats import from_ours
from res2net.weights.published import CATALOG
from res2net.zoo import create_model

# A small variant, whose weights somebody publishes here.
torch.manual_seed(0)
CONTENT = safetensors.torch.save(from_ours(create_model("res2net20_cifar").state_dict(), "timm"))
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PINNED, UNPINNED = "official/res2net50_26w_4s", "timm/res2net20_cifar"


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.released = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """The path says how it behaves."""

    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        behaviour = self.path.strip("/")
        if behaviour.isdigit():
            self.send_error(int(behaviour))
            return
        if behaviour == "silent":
            self.server.released.wait(20)
            return
        body = CONTENT if behaviour != "wrong" else CONTENT[::-1]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if behaviour == "truncated" else body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RES2NET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch, server: Server):
    """Put a published file on the server; the paths say how it behaves."""

    def put(behaviour: str, *, name: str = PINNED, mirror: str | None = None) -> str:
        source, variant = name.split("/")
        published = replace(
            CATALOG[f"{source}/res2net50_26w_4s"],
            variant=variant,
            url=f"{server.url}/{behaviour}",
            mirror=None if mirror is None else f"{server.url}/{mirror}",
            digest=SHA256[:8] if name == PINNED else None,
            file=CATALOG[name].file if name in CATALOG else f"{variant}.safetensors",
        )
        monkeypatch.setitem(CATALOG, name, published)
        return published.file

    return put


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


# --- Fetching -------------------------------------------------------------------------------------


def test_a_file_is_fetched_once_and_its_licence_said_once(server, publish, cache, capsys):
    file = publish("whole")
    assert fetch(PINNED) == cache / file
    assert (cache / file).read_bytes() == CONTENT
    assert capsys.readouterr().err == (
        f"fetching {PINNED}; licence of these weights: CC BY-NC-SA 4.0 (no commercial use)\n"
    )
    assert fetch("res2net50") == cache / file
    assert capsys.readouterr().err == ""
    assert server.asked == ["/whole"]
    assert names(cache) == [file]


def test_what_a_user_may_call_weights(server, publish, cache, tmp_path, monkeypatch):
    file, theirs = publish("whole"), publish("whole", name=UNPINNED)
    for weights in ("in1k", "official", PINNED):
        assert resolve(weights, "res2net50") == cache / file
    assert resolve("timm", "res2net20_cifar", cache=tmp_path) == tmp_path / theirs
    with pytest.raises(InputError, match="weights '': an empty name"):
        resolve("", "res2net50")
    assert resolve("runs/a.ckpt", "res2net50") == Path("runs/a.ckpt")
    with pytest.raises(InputError, match=r"'bogus': no such file.*weights \(names: in1k, officia"):
        resolve("bogus", "res2net50_14w_8s")
    with pytest.raises(InputError) as caught:
        resolve("null", "resnet20_cifar")
    assert str(caught.value) == (
        "weights 'null': no such file or run directory, and nobody published weights for "
        "resnet20_cifar; for none leave it out, in a configuration empty (model.weights=)"
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in1k").touch()
    assert resolve("in1k", "res2net50") == Path("in1k")  # a file comes before a name
    assert resolve(tmp_path / "in1k", "res2net50") == tmp_path / "in1k"


# --- Which file it is -----------------------------------------------------------------------------


def test_a_published_file_is_known_by_its_hash_wherever_it_lies(publish, cache, tmp_path):
    publish("whole")
    copy = tmp_path / "mine.pth"
    copy.write_bytes(CONTENT)
    assert identify(copy).name == identify(str(copy)).name == PINNED
    copy.write_bytes(CONTENT[:-1])  # cut short, or written anew
    assert identify(copy) is None


def test_without_a_published_hash_a_file_is_known_by_the_recorded_one(publish, cache, tmp_path):
    file = publish("whole", name=UNPINNED)
    copy = tmp_path / "mine.safetensors"
    copy.write_bytes(CONTENT)
    assert identify(copy) is None  # its name says nothing, nor would it in the cache
    cache.mkdir()
    (cache / file).write_bytes(CONTENT)
    assert identify(cache / file) is None
    assert fetch(UNPINNED) == cache / file
    assert identify(cache / file).name == identify(copy).name == UNPINNED
    assert identify(cache / file, cache=tmp_path) is None  # another cache has no record
    (cache / file).write_bytes(b"another")
    assert identify(cache / file) is None
    (cache / f"{file}.sha256").write_text("")
    assert identify(copy) is None


def test_what_no_published_file_can_be_is_not_read(publish, cache, tmp_path, monkeypatch):
    publish("whole")
    monkeypatch.setattr(transfer, "file_hash", None)
    checkpoint = tmp_path / "last.ckpt"
    checkpoint.write_bytes(CONTENT)
    for path in (checkpoint, tmp_path, tmp_path / "missing.pth"):
        assert identify(path) is None


def test_what_lies_in_the_cache(publish, cache, tmp_path):
    publish("whole")
    assert cached(CATALOG[PINNED]) is None
    path = fetch(PINNED)
    assert cached(CATALOG[PINNED]) == path
    assert cached(CATALOG[PINNED], cache=tmp_path) is None


# --- Failures -------------------------------------------------------------------------------------


FAILURES = {
    "truncated": rf"closed after {len(CONTENT) // 2:,} of {len(CONTENT):,} bytes",
    "403": r"the server answers 403 Forbidden; nothing was kept",
    "404": r"the server answers 404 Not Found; nothing was kept",
    "silent": r"no answer within 0\.3 seconds; nothing was kept",
    "wrong": r"(the sha256 of what came is [0-9a-f]{64}, expected [0-9a-f]{8}|what came is not "
    r"timm/res2net20_cifar \(weights .* is damaged.*\)); nothing was kept",
}


@pytest.mark.parametrize(
    ("name", "behaviour"),
    [(name, how) for name in (PINNED, UNPINNED) for how in FAILURES],
)
def test_failures_are_one_line_and_leave_no_file(publish, cache, monkeypatch, name, behaviour):
    monkeypatch.setattr(transfer, "TIMEOUT", 0.3)
    file = publish(behaviour, name=name)
    with pytest.raises(WorkError) as caught:
        fetch(name)
    message = str(caught.value)
    assert re.search(FAILURES[behaviour], message)
    assert "\n" not in message
    assert f"put the file at {cache / file}" in message
    # What came before the line broke is kept, and only as a part to go on from.
    assert names(cache) == ([f"{file}.part"] if behaviour == "truncated" else [])


def test_a_broken_download_goes_on(server, publish, cache):
    file = publish("truncated")
    with pytest.raises(WorkError):
        fetch(PINNED)
    publish("whole")
    assert fetch(PINNED).read_bytes() == CONTENT
    assert names(cache) == [file]


def test_the_copy_helps_out_and_is_checked_too(server, publish, cache, capsys):
    file = publish("403", mirror="whole")
    assert fetch(PINNED).read_bytes() == CONTENT
    _, second = capsys.readouterr().err.splitlines()
    # It is not told to try again while it does.
    assert second == (
        f"{server.url}/403: the server answers 403 Forbidden; now from the copy {server.url}/whole"
    )
    assert server.asked == ["/403", "/whole"]
    (cache / file).unlink()
    publish("403", mirror="wrong")
    with pytest.raises(WorkError, match="expected"):
        fetch(PINNED)
    assert names(cache) == []


def test_offline(publish, cache, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for name in (PINNED, UNPINNED):
        file = publish("whole", name=name)
        url = f"http://127.0.0.1:{port}/{file}"
        monkeypatch.setitem(CATALOG, name, replace(CATALOG[name], url=url))
        with pytest.raises(WorkError, match=f"put the file at {cache / file}"):
            fetch(name)
        (cache / file).write_bytes(CONTENT)
        assert fetch(name) == cache / file


def test_without_a_published_hash_the_first_download_s_holds(publish, cache, capsys):
    file = publish("whole", name=UNPINNED)
    path = fetch(UNPINNED)
    assert f"recorded beside it: sha256 {SHA256}\n" in capsys.readouterr().err
    assert (cache / f"{file}.sha256").read_text() == f"{SHA256}  {file}\n"
    assert fetch(UNPINNED) == path
    assert capsys.readouterr().err == ""
    path.write_bytes(b"another")
    with pytest.raises(InputError, match=f"expected {SHA256}"):
        fetch(UNPINNED)


def test_no_hash_is_recorded_of_what_are_not_these_weights(publish, cache, capsys):
    file = publish("whole", name=UNPINNED)
    cache.mkdir()
    other = from_ours(create_model("res2net50_48w_2s", num_classes=2).state_dict(), "timm")
    for content, reason in (
        (b"garbage", "is damaged, cut short or no safetensors file"),
        (safetensors.torch.save(other), "these are weights of res2net50_48w_2s, not of res2net20"),
    ):
        (cache / file).write_bytes(content)
        with pytest.raises(InputError, match=f"{reason}.*; remove it to have it fetched from http"):
            fetch(UNPINNED)
        assert names(cache) == [file]
    (cache / file).write_bytes(CONTENT)  # the right one, by hand
    assert fetch(UNPINNED) == cache / file
    assert f"recorded beside it: sha256 {SHA256}\n" in capsys.readouterr().err


def test_a_damaged_file_in_the_cache_is_not_used(publish, cache):
    file = publish("whole")
    cache.mkdir()
    (cache / file).write_bytes(b"another")
    with pytest.raises(InputError, match="remove it to have it fetched"):
        fetch(PINNED)
