"""`res2net demo --host 0.0.0.0` as a stranger in the network meets it: bare HTTP, hostile requests.

A refusal is not believed: after each attack no new file lies in the server's folder, no byte of the
secret came back, and the page still answers a normal question.
"""

import io
import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from PIL import Image

from broken_files import jpeg_of_size, png_of_size
from images_that_cost import many_scans
from res2net.weights.shipped import SAMPLE
from runs import COMMAND, clean_environment
from samples import encoded, photo

SECRET = "salt-and-pepper-7741"
MODEL = "res2net_digits"
FILE = {"_type": "gradio.FileData"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The command, open to all, and a client on it; `folder`: where its temporary files lie."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "here").mkdir()
    (folder / "temporary").mkdir()
    process = subprocess.Popen(
        [COMMAND, "demo", MODEL, "--host=0.0.0.0", "--port=0", "--device=cpu"],
        cwd=folder / "here",
        env=clean_environment() | {"TMPDIR": str(folder / "temporary")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    port = int(re.findall(r":(\d+)/", process.stdout.readline())[0])
    url = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=url, headers={"Origin": url}, timeout=60) as client:
        yield SimpleNamespace(
            client=client, url=url, port=port, folder=folder / "temporary", process=process
        )
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    # no trace of whatever was sent, and nothing is left
    assert (process.returncode, out) == (0, "")
    assert err.strip() in ("", "everyone who reaches this address can use it")
    left = [each for each in (folder / "temporary").iterdir() if "torchinductor" not in each.name]
    assert [*left, *(folder / "here").iterdir()] == []


def files(server: SimpleNamespace) -> set[Path]:
    return {each for each in server.folder.rglob("*") if not each.is_dir()}


def upload(server: SimpleNamespace, content: bytes, name: str = "a.png") -> httpx.Response:
    return server.client.post("/gradio_api/upload", files={"files": (name, content)})


def event(server: SimpleNamespace, image: object, **more: object) -> httpx.Response:
    """The event of a new image, as the page sends it."""
    body = {"data": [MODEL, image, "Grad-CAM", 3], "fn_index": 1, "session_hash": "ab"} | more
    return server.client.post("/gradio_api/run/predict", json=body)


def message(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return answer.json()["data"][0]


def is_well(server: SimpleNamespace) -> None:
    answer = event(server, {"path": "sample"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"][1].startswith("Where it looks for 3 (")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Things on the disk that are nobody's business, by what they are."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "secret.txt").write_text(SECRET)
    photo(3, (64, 64)).save(folder / "secret.png")
    os.mkfifo(folder / "pipe")
    (folder / "link.png").symlink_to(folder / "secret.png")
    return {
        "password file": "/etc/passwd",
        "text": str(folder / "secret.txt"),
        "image": str(folder / "secret.png"),
        "link": str(folder / "link.png"),
        "endless": "/dev/zero",
        "pipe": str(folder / "pipe"),
        "folder": str(folder),
        "nothing": str(folder / "nothing.png"),
        "zero byte": "/etc/passwd\0.png",
        "file URL": f"file://{folder}/secret.png",
    }


def wrapped(path: str) -> list[object]:
    """A path in the forms in which Gradio takes files."""
    return [
        {"path": path, "meta": FILE},
        {"path": path},
        {"path": path, "url": path, "meta": FILE, "is_stream": True},
        {"path": None, "url": path, "meta": FILE},
        [{"path": path, "meta": FILE}],
        {"image": {"deep": [{"path": path, "meta": FILE}]}},
        path,
    ]


@pytest.mark.timeout(120)
def test_no_path_of_the_disk_is_opened(server: SimpleNamespace, planted: dict[str, str]) -> None:
    given = upload(server, SAMPLE.read_bytes()).json()[0]
    (mine,) = [each for each in files(server) if each.suffix == ".ppm"]
    paths = [
        *planted.values(),
        str(mine),  # a file of the uploads, even one's own
        f"../{mine.parent.name}/{mine.name}",
        f"{mine.parent}/../../{Path(planted['image']).relative_to(server.folder.anchor)}",
        f"{given}/../{given}",
    ]
    before = files(server)
    asked = 0
    for path in paths:
        for image in wrapped(path):
            for number in range(7) if path == planted["image"] else (1,):
                answer = event(server, image, fn_index=number)
                asked += 1
                assert answer.status_code in (200, 400)
                if answer.status_code == 200:
                    data = answer.json()["data"]
                    assert "there is no such image here any more" in data[0]
                    assert data[2] is None and SECRET not in answer.text
        for address in (f"/gradio_api/file={path}", f"/gradio_api/file/{path}", f"/file={path}"):
            for method in ("GET", "HEAD"):
                if "\0" not in path:
                    assert server.client.request(method, address).status_code == 404
    assert asked == (len(paths) - 1) * 7 + 7 * 7
    assert files(server) == before
    is_well(server)


@pytest.mark.timeout(120)
def test_nothing_is_fetched_from_elsewhere(server: SimpleNamespace) -> None:
    came: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(0.2)
        place = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/picture.png"
        before = files(server)
        for image in wrapped(place):
            for number in range(7):
                event(server, image, fn_index=number)
        for address in ("file=", "proxy=", "file/"):
            assert server.client.get(f"/gradio_api/{address}{place}").status_code == 404
        with pytest.raises(TimeoutError):
            came.append(elsewhere.accept())
    assert came == [] and files(server) == before
    is_well(server)


# Gradio's other routes, each of which copies, fetches, keeps or tells something
READ = """
    config config/ docs redoc openapi.json gradio_api/openapi.json gradio_api/docs gradio_api/redoc
    gradio_api/info gradio_api/info/ gradio_api/app_id gradio_api/token gradio_api/user
    gradio_api/login_check gradio_api/dev/reload gradio_api/runs gradio_api/run-history/buckets
    gradio_api/deep_link?session_hash=ab gradio_api/queue/data?session_hash=ab gradio_api/vibe-code
    gradio_api/queue/status gradio_api/heartbeat/ab gradio_api/startup-events gradio_api/mcp/sse
    gradio_api/custom_component/image/client/component/../../../../etc/passwd
    gradio_api/stream/ab/0/1/playlist.m3u8 gradio_api/stream/ab/0/1/playlist-file
    gradio_api/call/predict/ab gradio_api/profiling/traces gradio_api/upload gradio_api/theme.css
    gradio_api/file= gradio_api/file=. gradio_api/file=/ gradio_api/file gradio_api monitoring
    monitoring/summary monitoring/ab manifest.json robots.txt pwa_icon svelte/x login logout
    static/../../../routes.py static/%2e%2e/%2e%2e/routes.py assets/%2e%2e%2f%2e%2e%2froutes.py
    assets//etc/passwd static/..%5c..%5croutes.py assets/%00 static/%ff
"""
SENT = """
    gradio_api/queue/join gradio_api/call/look gradio_api/call/v2/look gradio_api/api/predict
    gradio_api/run/look gradio_api/run/predict/ gradio_api/component_server gradio_api/reset
    gradio_api/component_server/ gradio_api/cancel gradio_api/stream/ab gradio_api/stream/ab/close
    gradio_api/process_recording gradio_api/vibe-edit gradio_api/vibe-code gradio_api/upload/
    gradio_api/run-history/connect login config upload run/predict
"""


def test_what_the_page_does_not_need_is_not_there(
    server: SimpleNamespace, planted: dict[str, str]
) -> None:
    image = {"path": planted["image"], "meta": FILE}
    body = {"data": [MODEL, image, "Grad-CAM", 3], "fn_index": 1, "session_hash": "ab"}
    before = files(server)
    for method, paths in (("GET", READ), ("POST", SENT)):
        for path in paths.split():
            sent = {"json": body} if method == "POST" else {}
            answer = server.client.request(method, f"/{path}", **sent)
            assert answer.status_code in (404, 405), (path, answer.status_code)
            assert len(answer.content) < 100, path
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "QUERY"):
        for path in ("", "gradio_api/upload", "gradio_api/run/predict", "gradio_api/file=sample"):
            assert server.client.request(method, f"/{path}").status_code in (404, 405)
    # a link to a kept state or another page of Gradio's is the page itself
    plain = server.client.get("/").text
    assert server.client.get("/?deep_link=../../etc&page=x&__theme=dark").text == plain
    assert files(server) == before
    is_well(server)


def test_the_page_tells_nothing_of_this_machine(server: SimpleNamespace) -> None:
    page = server.client.get("/").text
    assert "Res2Net: what it sees" in page
    for path in (str(server.folder), str(SAMPLE.parent), os.getcwd(), os.path.expanduser("~")):
        if path != "/":
            assert path not in page
    for name in ("X-Forwarded-Host", "X-Gradio-Server", "Forwarded", "X-Forwarded-Prefix"):
        assert "other.invalid" not in server.client.get("/", headers={name: "other.invalid"}).text
    ranges = {"Range": "bytes=0-1,1-2," + ",".join(["0-9"] * 1000)}
    answer = server.client.get("/gradio_api/file=sample", headers=ranges)
    assert (answer.status_code, answer.content) == (200, SAMPLE.read_bytes())
    headers = server.client.get("/gradio_api/file=sample").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "server" not in headers and "access-control-allow-origin" not in headers


def test_events_that_are_none_get_a_line(server: SimpleNamespace) -> None:
    bodies: list[object] = [
        None,
        [],
        0,
        "x",
        {},
        {"data": []},
        {"fn_index": 1},
        {"fn_index": [], "data": []},
    ]
    good = [MODEL, {"path": "sample"}, "Grad-CAM", 3]
    bodies += [{"fn_index": n, "data": good} for n in (-1, 10**40, 1.5, True, "1", None, {}, 99)]
    hostile = [None, True, -1, 0, 10**30, 1.5, "x" * 5000, "/etc/passwd", [], {}, [[]], {"a": {}}]
    for place in range(4):
        for value in hostile:
            if (place, value) != (1, None):
                bodies.append({"fn_index": 1, "data": [*good[:place], value, *good[place + 1 :]]})
    bodies += [{"fn_index": 1, "data": [*good, 1]}, {"fn_index": 1, "data": good[:3]}]
    for body in bodies:
        answer = server.client.post("/gradio_api/run/predict", json=body)
        assert answer.status_code == 400, body
        assert re.fullmatch(r"[\w ]{5,60}", answer.json()["error"]), answer.text
    raw = [b"", b"\xff", b"[" * 10_000, b"{" * 10_000, b'{"fn_index":' + b"9" * 6000, b"NaN",
           b'{"a":' * 2000 + b"1" + b"}" * 2000, b" " * 100_000]  # fmt: skip
    for content in raw:
        answer = server.client.post("/gradio_api/run/predict", content=content)
        assert answer.status_code == 400 and "Traceback" not in answer.text, content[:20]
    is_well(server)


FOREIGN = [
    {"Origin": "http://other.invalid"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://[::1"},
    {"Origin": "file://"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Host": "other.invalid:99"},  # the name of the page is not the Origin's
]


def test_other_sites_pages_are_refused(server: SimpleNamespace) -> None:
    sample = SAMPLE.read_bytes()
    before = files(server)
    body = {"data": [MODEL, {"path": "sample"}, "Grad-CAM", 3], "fn_index": 1}
    for headers in FOREIGN:
        for path, sent in (
            ("upload", {"files": {"files": ("a.png", sample)}}),
            ("run/predict", {"json": body}),
            (
                "run/predict",
                {"content": json.dumps(body), "headers": {"Content-Type": "text/plain"}},
            ),
        ):
            more = headers | sent.pop("headers", {})  # type: ignore[operator, attr-defined]
            answer = server.client.post(f"/gradio_api/{path}", headers=more, **sent)  # type: ignore[arg-type]
            assert answer.status_code == 403, (headers, path)
            assert "access-control-allow-origin" not in answer.headers
        if "Host" not in headers:
            answer = server.client.get("/gradio_api/file=sample", headers=headers)
            assert answer.status_code == 403, headers
    # no browser sends a form or a request without its Origin, so it is no page's
    bare = httpx.post(f"{server.url}/gradio_api/upload", files={"files": ("a.png", sample)})
    assert bare.status_code == 403
    for host in ("", "a b", '"><script>', "a,b", "x/y", "user@x"):
        assert server.client.get("/", headers={"Host": host}).status_code in (400, 403), host
    assert files(server) == before

    # the page's own requests come through, whatever name leads here; so do links to it
    named = {"Host": "gpu7.lan:7860", "Origin": "http://gpu7.lan:7860"}
    own = named | {"Sec-Fetch-Site": "same-origin"}
    assert server.client.post("/gradio_api/run/predict", json=body, headers=own).status_code == 200
    tls = named | {"Origin": "https://gpu7.lan:7860"}  # TLS that ends before us
    assert server.client.post("/gradio_api/run/predict", json=body, headers=tls).status_code == 200
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert httpx.get(f"{server.url}/", headers=link).status_code == 200
    assert httpx.get(f"{server.url}/gradio_api/file=sample", headers=link).status_code == 403
    is_well(server)


def test_names_of_files_are_text(server: SimpleNamespace) -> None:
    before = files(server)
    for name in (
        "../../../../tmp/x.png", "/etc/cron.d/x", "..", "a\\..\\b.png", "<img src=x onerror=1>",
        "x" * 4000, "a\x1b[31mb\r\nSet-Cookie: x", "${1}{{2}}",
    ):  # fmt: skip
        answer = upload(server, b"no image", name)
        assert answer.status_code == 200, name
        (given,) = answer.json()
        assert re.fullmatch(r"[\w-]{22}", given)
        told = message(event(server, {"path": given}))
        assert re.fullmatch(r"<p>[^/<>\x00-\x1f]{1,400}</p>", told), told
        assert "is no image in a known format: JPEG, PNG" in told
        assert server.client.get(f"/gradio_api/file={given}").status_code == 404
    assert files(server) == before  # what is no image is not kept

    # what is served is an image and is called one
    for kind in ("JPEG", "AVIF"):
        content = encoded(photo(3, (64, 48)), kind)
        (given,) = upload(server, content, "page.html").json()
        answer = server.client.get(f"/gradio_api/file={given}")
        assert answer.headers["content-type"] == f"image/{kind.lower()}"
        assert answer.content == content
        assert message(event(server, {"path": given})) == ""


def tiff(side: int) -> bytes:
    return encoded(Image.new("1", (side, side)), "TIFF", compression="group4")


LONG = pytest.param(
    {"scans.jpg": (many_scans(8000, 8000, 3000), "takes longer than 10 seconds to decode")},
    marks=pytest.mark.soak,
    id="long",
)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("more", [pytest.param({}, id="short"), LONG])
def test_an_image_that_costs_too_much_holds_nobody(
    server: SimpleNamespace, more: dict[str, tuple[bytes, str]]
) -> None:
    """Each kind is uploaded while others ask their questions."""
    content = encoded(photo(3, (64, 48)), "EPS")
    costly = {
        "png.png": (png_of_size(13_000, 13_000), "has 169,000,000 pixels, more than 64,000,000"),
        "jpg.jpg": (jpeg_of_size(13_000, 13_000), "has 169,000,000 pixels, more than 64,000,000"),
        "65535.jpg": (jpeg_of_size(65_535, 65_535), "pixels, more than 64,000,000"),
        "tiff.tif": (tiff(13_000), "is no image in a known format: JPEG, PNG"),
        "postscript.eps": (content, "is no image in a known format: JPEG, PNG"),
        "cut.png": (SAMPLE.read_bytes()[:80], "cut.png: "),
        **more,
    }
    before = files(server)
    told: dict[str, str] = {}

    waiting = list(costly)

    def send() -> None:
        with httpx.Client(base_url=server.url, headers={"Origin": server.url}, timeout=90) as own:
            place = SimpleNamespace(client=own)
            while waiting:
                name = waiting.pop()
                (given,) = upload(place, costly[name][0], name).json()
                told[name] = message(event(place, {"path": given}))

    threads = [threading.Thread(target=send) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        is_well(server)
        threads[0].join(0.2)
    assert told.keys() == costly.keys()
    for name, (_, why) in costly.items():
        assert name in told[name] and why in told[name]
    assert files(server) == before

    # a large one that is allowed is seen
    wide = io.BytesIO()
    photo(3, (64, 64)).resize((7000, 7000)).save(wide, "JPEG")
    (given,) = upload(server, wide.getvalue(), "wide.jpg").json()
    assert message(event(server, {"path": given})) == ""
    sizes = sorted(each.stat().st_size for each in files(server) - before)
    assert sizes[0] == len(wide.getvalue()) and sizes[1] <= 48_000_100


def test_too_much_is_not_taken(server: SimpleNamespace) -> None:
    before = files(server)
    large = bytes(33 * 2**20)
    assert upload(server, large).status_code == 413

    def unnamed() -> Iterator[bytes]:  # without a length
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        for _ in range(34):
            yield bytes(2**20)

    form = {"Content-Type": "multipart/form-data; boundary=x"}
    try:
        answer = server.client.post("/gradio_api/upload", content=unnamed(), headers=form)
        assert answer.status_code == 413
    except httpx.WriteError:
        pass  # the server hung up
    two = [("files", ("a.png", b"a")), ("files", ("b.png", b"b"))]
    assert server.client.post("/gradio_api/upload", files=two).status_code == 400
    fields = {f"field{number}": "x" for number in range(50)}
    one = {"files": ("a.png", b"a")}
    assert server.client.post("/gradio_api/upload", files=one, data=fields).status_code == 400
    assert server.client.post("/gradio_api/upload", json={}).status_code == 400
    for content in (b"", b"--x--", b"--x\r\n\r\n", b"--y\r\n" * 1000):
        answer = server.client.post("/gradio_api/upload", content=content, headers=form)
        assert answer.status_code == 400, content
    assert files(server) == before
    is_well(server)


def test_slow_visitors_hold_only_their_places(server: SimpleNamespace) -> None:
    head = (
        f"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        f"Origin: {server.url}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        "Content-Length: 1000\r\n\r\n--x"
    )
    slow = [socket.create_connection(("127.0.0.1", server.port), timeout=30) for _ in range(20)]
    answers = []
    try:
        for each in slow[:12]:
            each.sendall(head.encode())
        for each in slow[12:]:
            each.sendall(head[:30].encode())
        for each in slow[4:12]:
            answers.append(each.recv(12))
        is_well(server)
    finally:
        for each in slow:
            each.close()
    assert answers == [b"HTTP/1.1 503"] * 8
    for _ in range(50):  # until they are seen to be gone
        if upload(server, SAMPLE.read_bytes()).status_code == 200:
            break
    else:
        pytest.fail("the places of those who went away are still taken")
