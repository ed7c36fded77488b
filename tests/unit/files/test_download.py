"""Downloads against a server on this machine that can misbehave in the ways real ones do."""

import hashlib
import io
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from res2net.errors import InputError, WorkError
from res2net.files import download as module
from res2net.files.download import download, verify

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT; `behaviour` says how, `asked` records the Range of each request."""

    behaviour = "ranges"
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []
        self.released = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/weights.bin"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        behaviour = self.server.behaviour
        wanted = self.headers["Range"]
        self.server.asked.append(wanted)
        if behaviour == "missing":
            self.send_error(404)
            return
        if behaviour == "silent":
            self.server.released.wait(20)
            return
        start = 0
        if wanted and behaviour != "no ranges":
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(CONTENT):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        else:
            self.send_response(200)
        body = CONTENT[start:]
        if behaviour != "unknown length":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if behaviour == "truncates":
            body = body[: len(body) // 2]
        if behaviour == "waits":
            self.wfile.write(body[:1000])
            self.server.released.wait(20)
            body = body[1000:]
        self.wfile.write(body)

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


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


@pytest.mark.parametrize("behaviour", ["ranges", "no ranges", "unknown length"])
def test_a_file_arrives_whole(tmp_path: Path, server: Server, behaviour: str) -> None:
    server.behaviour = behaviour
    destination = tmp_path / "new" / "weights.bin"
    assert download(server.url, destination, digest=SHA256) == destination
    assert destination.read_bytes() == CONTENT
    assert names(destination.parent) == ["weights.bin"]
    assert server.asked == [None]


@pytest.mark.parametrize(
    ("digest", "algorithm"), [(SHA256[:8], "sha256"), (SHA256.upper(), "sha256"), (MD5, "md5")]
)
def test_digests_come_as_published(
    tmp_path: Path, server: Server, digest: str, algorithm: module.Algorithm
) -> None:
    path = download(server.url, tmp_path / "w", digest=digest, algorithm=algorithm)
    assert verify(path, digest, algorithm)
    path.write_bytes(CONTENT[:-1])
    assert not verify(path, digest, algorithm)


def test_a_digest_that_would_pass_anything_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"")
    with pytest.raises(ValueError, match="shorter than 8"):
        verify(tmp_path / "w", "", "md5")


def test_a_file_that_is_there_is_not_fetched_again(tmp_path: Path, server: Server) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(CONTENT)
    download(server.url, path, digest=SHA256)
    path.write_bytes(b"another")
    with pytest.raises(InputError) as caught:
        download(server.url, path, digest=SHA256)
    assert hashlib.sha256(b"another").hexdigest() in str(caught.value)
    assert SHA256 in str(caught.value)
    assert path.read_bytes() == b"another"
    assert server.asked == []


def test_a_broken_connection_keeps_what_came_and_the_next_call_goes_on(
    tmp_path: Path, server: Server
) -> None:
    server.behaviour = "truncates"
    path = tmp_path / "weights.bin"
    with pytest.raises(WorkError) as caught:
        download(server.url, path, digest=SHA256)
    message = str(caught.value)
    assert "\n" not in message
    for part in (server.url, "closed after 256,000 of 512,000 bytes", f"{path}.part", str(path)):
        assert part in message
    assert names(tmp_path) == ["weights.bin.part"]

    server.behaviour = "ranges"
    download(server.url, path, digest=SHA256)
    assert path.read_bytes() == CONTENT
    assert names(tmp_path) == ["weights.bin"]
    assert server.asked == [None, "bytes=256000-"]


def test_a_server_without_ranges_sends_all_of_it_again(tmp_path: Path, server: Server) -> None:
    server.behaviour = "no ranges"
    (tmp_path / "weights.bin.part").write_bytes(CONTENT[:1000])
    path = download(server.url, tmp_path / "weights.bin", digest=SHA256)
    assert path.read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-"]


def test_a_part_that_is_whole_already_is_taken(tmp_path: Path, server: Server) -> None:
    (tmp_path / "weights.bin.part").write_bytes(CONTENT)
    path = download(server.url, tmp_path / "weights.bin", digest=SHA256)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"", b"of another file", CONTENT + b"more"])
def test_a_wrong_hash_leaves_nothing(tmp_path: Path, server: Server, part: bytes) -> None:
    digest = SHA256 if part else "0" * 64
    (tmp_path / "weights.bin.part").write_bytes(part)
    with pytest.raises(WorkError) as caught:
        download(server.url, tmp_path / "weights.bin", digest=digest)
    came = part + CONTENT[len(part) :]
    assert hashlib.sha256(came).hexdigest() in str(caught.value)
    assert digest in str(caught.value)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


def test_a_missing_file_is_named(tmp_path: Path, server: Server) -> None:
    server.behaviour = "missing"
    with pytest.raises(WorkError) as caught:
        download(server.url, tmp_path / "weights.bin", digest=SHA256)
    assert str(caught.value) == (
        f"{server.url}: the server answers 404 Not Found; nothing was kept; "
        f"try again, or put the file at {tmp_path / 'weights.bin'}"
    )
    assert names(tmp_path) == []


def test_a_silent_server_is_given_up(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.behaviour = "silent"
    monkeypatch.setattr(module, "TIMEOUT", 0.5)
    with pytest.raises(WorkError, match=r"no answer within 0\.5 seconds; nothing was kept"):
        download(server.url, tmp_path / "weights.bin", digest=SHA256)


def test_silence_on_the_way_keeps_what_came(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.behaviour = "waits"
    monkeypatch.setattr(module, "TIMEOUT", 0.5)
    monkeypatch.setattr(module, "_CHUNK", 500)
    with pytest.raises(WorkError, match=r"no answer within 0\.5 seconds; 1,000 bytes are kept"):
        download(server.url, tmp_path / "weights.bin", digest=SHA256)


def test_no_server(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(WorkError, match="Connection refused"):
        download(f"http://127.0.0.1:{port}/w", tmp_path / "weights.bin", digest=SHA256)
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path, server: Server) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WorkError, match="nothing was kept"):
        download(server.url, tmp_path / "file" / "weights.bin", digest=SHA256)


def test_those_who_come_later_wait_and_fetch_nothing(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.behaviour = "waits"
    path = tmp_path / "weights.bin"
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(download, server.url, path, digest=SHA256) for _ in range(3)]
        printed, give_up = "", time.monotonic() + 20
        while printed.count("waiting") < 2 and time.monotonic() < give_up:
            time.sleep(0.01)
            printed += capsys.readouterr().err
        server.released.set()
        assert [call.result() for call in calls] == [path] * 3
    assert server.asked == [None]
    assert path.read_bytes() == CONTENT
    assert names(tmp_path) == ["weights.bin"]
    assert printed == f"waiting for the process that fetches {path}.part\n" * 2


class Screen(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.parametrize(
    ("terminal", "progress", "shown"),
    [(True, True, True), (False, True, False), (True, False, False)],
)
def test_the_bar_shows_on_terminals_only(
    tmp_path: Path,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
    progress: bool,
    shown: bool,
) -> None:
    screen = Screen(terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    download(server.url, tmp_path / "weights.bin", digest=SHA256, progress=progress)
    assert ("weights.bin" in screen.getvalue()) == shown
    assert shown or screen.getvalue() == ""
