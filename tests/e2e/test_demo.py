"""`res2net demo` as a user sees it: the command, and its page in Chromium.

RES2NET_SCREENSHOT=configs/demo.png writes the picture of the README.
"""

import base64
import io
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from broken_files import png_of_size
from res2net.inference.cam import Explainer
from res2net.inference.predictor import Predictor
from res2net.plots.heat import PICTURE_SIDE, overlay
from res2net.weights.shipped import SAMPLE
from runs import COMMAND
from samples import NAMES, encoded, photo, save_network, small_network

HOSTILE = {
    "bomb.png": (png_of_size(30_000, 30_000), "has 900,000,000 pixels, more than 64,000,000"),
    "archive.jpg": (b"PK\x03\x04" + bytes(500), "is no image in a known format"),
    "empty.jpg": (b"", "is no image in a known format"),
    "page <b>é.jpg": (b"<!DOCTYPE html><html>", "is no image in a known format"),
}
MARKUP = "<i>kind</i> & ${document.title='0'} {{value}}"


@pytest.fixture
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        pytest.fail(
            'no chromium on PATH: apt-get install chromium, or deselect by -m "not browser"'
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A run directory, one of whose classes is called like markup."""
    run = tmp_path / "runs" / "mine"
    run.parent.mkdir()
    save_network(small_network(), run / "last.ckpt", class_names=[MARKUP, *NAMES[1:]])
    return run


@pytest.fixture
def server(
    tmp_path: Path, model: Path, environment: dict[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """The command; its temporary files go to tmp_path/temporary."""
    (tmp_path / "temporary").mkdir()
    (tmp_path / "here").mkdir()
    process = subprocess.Popen(
        [COMMAND, "demo", "res2net_digits", str(model), "--port=0", "--device=cpu"],
        cwd=tmp_path / "here",
        env=environment | {"TMPDIR": str(tmp_path / "temporary")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


def temporary_files(folder: Path) -> list[Path]:
    """Of the server, without an empty folder that PyTorch makes."""
    files = (folder / "temporary").iterdir()
    return [each for each in files if not each.name.startswith("torchinductor_")]


def upload(page: Page, name: str, content: bytes) -> None:
    if page.locator("#image img").count():
        page.get_by_label("Remove Image").click()
        expect(page.locator("#classes h2")).to_have_count(0)
    file = {"name": name, "mimeType": "image/jpeg", "buffer": content}
    page.locator("#image input[type=file]").set_input_files([file])


def choose(page: Page, selector: str, option: str) -> None:
    page.locator(f"#{selector} input").click()
    page.get_by_role("option", name=option, exact=True).click()


def bars(page: Page) -> list[tuple[str, float]]:
    meters: list[Locator] = page.locator("#classes meter").all()
    return [
        (meter.get_attribute("aria-label") or "", float(meter.get_attribute("value") or "nan"))
        for meter in meters
    ]


def agree(page: Page, predictor: Predictor, image: bytes) -> None:
    expected = predictor(image)
    expect(page.locator("#classes h2")).to_have_text(expected.label)
    expect(page.locator("#caption")).to_have_text(
        f"Where it looks for {expected.label} ({expected.score:.1%})"
    )
    shown = bars(page)
    assert [label for label, _ in shown] == [label for label, _ in expected.topk]
    for (_, score), (_, value) in zip(shown, expected.topk, strict=True):
        assert score == pytest.approx(value, abs=1e-4)
    expect(page.locator("#message")).to_have_text("")


def heat(page: Page, caption: str) -> np.ndarray:
    """The picture that stands under this caption."""
    expect(page.locator("#caption")).to_have_text(caption)
    picture = page.locator("#heat img")
    expect(picture).to_be_visible()
    kind, _, content = (picture.get_attribute("src") or "").partition(",")
    assert kind == "data:image/png;base64"  # no file that others could ask for
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"), np.int16)


def drawn(explainer: Explainer, image: bytes, target: int, **how: object) -> np.ndarray:
    (each,) = explainer(image, target, **how)  # type: ignore[arg-type]
    return np.asarray(overlay(each.pixels, each.heat, PICTURE_SIDE), np.int16)


@pytest.mark.browser
def test_the_page(
    server: subprocess.Popen[str], browser: Browser, model: Path, tmp_path: Path
) -> None:
    assert server.stdout is not None and server.stderr is not None
    digits, mine = Explainer("res2net_digits", device="cpu"), Predictor(model, device="cpu")
    sample, photograph = SAMPLE.read_bytes(), encoded(photo(3, (320, 240)), "JPEG")
    url = server.stdout.readline().split()[0]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url)
    page = browser.new_page(viewport={"width": 1280, "height": 690}, color_scheme="light")
    page.set_default_timeout(20_000)
    expect.set_options(timeout=20_000)
    asked: list[str] = []
    wrong: list[str] = []
    page.on("response", lambda answer: wrong.append(answer.url) if not answer.ok else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)

    # an image: its classes and where the network looks for the first
    expect(page.locator("#facts")).to_have_text(
        "res2net_digits: res2net20_cifar, 10 classes; input 16 x 16 pixels, the centre square"
    )
    upload(page, "digit.png", sample)
    agree(page, Predictor("res2net_digits", device="cpu"), sample)
    assert bars(page)[0][0] == "3"
    scores = digits(sample)[0].scores
    first = heat(page, f"Where it looks for 3 ({scores[3]:.1%})")
    assert np.abs(first - drawn(digits, sample, 3)).max() <= 6
    address = page.locator("#heat img").get_attribute("src") or ""

    # in another stage, by another method, for another class
    for selector, option in (("stage", "2"), ("method", "Grad-CAM++"), ("class", "8")):
        choose(page, selector, option)
        expect(page.locator("#heat img")).not_to_have_attribute("src", address)
        address = page.locator("#heat img").get_attribute("src") or ""
        if selector == "method" and "RES2NET_SCREENSHOT" in os.environ:
            page.mouse.move(0, 0)
            expect(page.locator(".wrap.generating, .wrap.pending")).to_have_count(0)
            page.screenshot(path=os.environ["RES2NET_SCREENSHOT"], animations="disabled")
    second = heat(page, f"Where it looks for 8 ({scores[8]:.1%})")
    how = {"stage": 2, "method": "gradcam++"}
    assert np.abs(second - drawn(digits, sample, 8, **how)).max() <= 6
    assert np.abs(second - drawn(digits, sample, 3, **how)).max() > 60
    assert np.abs(second - first).max() > 60

    # another model, whose last stage is chosen; then another image
    choose(page, "model", "mine")
    agree(page, mine, sample)
    expect(page.locator("#facts")).to_contain_text("mine: res2net20_cifar, 10 classes; input 32")
    expect(page.locator("#stage input")).to_have_value("3")
    upload(page, "photo é.jpg", photograph)
    agree(page, mine, photograph)
    choose(page, "class", MARKUP)
    expect(page.locator("#caption")).to_contain_text(f"Where it looks for {MARKUP} (")

    # what is no image gets its line, and the page goes on
    for name, (content, why) in HOSTILE.items():
        upload(page, name, content)
        line = page.locator("#message p")
        expect(line).to_contain_text(why)
        assert re.fullmatch(r"[^/]+", line.inner_text())  # no folder of this machine
        assert bars(page) == [] and page.locator("#heat img").count() == 0
    page.get_by_label("Remove Image").click()
    expect(page.locator("#message")).to_have_text("")
    page.locator("#sample button").click()
    agree(page, mine, sample)  # the example

    # names are text wherever they stand, and the page has what it asks for
    assert page.title() == "Res2Net"
    previews = [each for each in wrong if each.startswith(f"{url}gradio_api/file=")]
    assert (len(previews), wrong) == (len(HOSTILE), previews)  # of what is no image

    # nothing was asked of another host, and nothing can be
    assert [each for each in asked if not each.startswith((url, "data:", "blob:"))] == []
    assert len(asked) > 20
    blocked = """new Promise(resolve => {
        document.addEventListener("securitypolicyviolation", event => resolve(event.blockedURI))
        new Image().src = "http://other.invalid/picture.png"
        setTimeout(() => resolve("nothing"), 5000)
    })"""
    assert page.evaluate(blocked) == "http://other.invalid/picture.png"
    assert httpx.get(url, headers={"Host": "other.invalid"}).status_code == 400
    for path in ("docs", f"gradio_api/file={model / 'last.ckpt'}"):
        assert httpx.get(url + path).status_code in (403, 404), path

    # uploads lie in one folder of our own, which goes with the server
    (kept,) = temporary_files(tmp_path)
    assert kept.name.startswith("res2net-demo-") and kept.stat().st_mode & 0o77 == 0
    assert sample in [each.read_bytes() for each in kept.rglob("*") if each.is_file()]
    server.send_signal(signal.SIGTERM)
    out, err = server.communicate(timeout=30)
    assert (server.returncode, out, err) == (0, "", "")
    assert [*temporary_files(tmp_path), *(tmp_path / "here").iterdir()] == []
