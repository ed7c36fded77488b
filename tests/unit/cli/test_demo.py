"""`res2net demo`: what it refuses in one line; the page itself is opened in tests/e2e."""

import socket

import pytest

from res2net.cli.demo import _name
from res2net.cli.main import main
from res2net.demo import server
from res2net.inference.cam import Explainer


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["demo", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return err


@pytest.mark.parametrize("port", ["65536", "-1", "http"])
def test_a_port_is_a_number(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"'{port}' is not an integer from 0 to 65,535" in refusal(capsys, f"--port={port}")


def test_a_port_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert refusal(capsys, f"--port={port}").startswith(f"error: --port {port}: is in use")
        assert "model 'nosuch'" in refusal(capsys, "nosuch", f"--port={port}")


def test_a_model_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nosuch" in refusal(capsys, "res2net_digits", "nosuch", "--port=0")
    assert "--weights" in refusal(capsys, "res2net50_26w_4s", "--port=0")


def test_images_are_seen_as_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Explainer] = []
    monkeypatch.setattr(server, "serve", lambda models, *_: served.extend(models.values()))
    assert main(["demo", "--port=0", "--image-size=24", "--crop-fraction=0.75"]) == 0
    (shown,) = served
    assert (shown.preprocessing.image_size, shown.preprocessing.resize_size) == (24, 32)


def test_names_are_short_and_differ() -> None:
    names: list[str] = []
    for model in ("runs/a/mine", "runs/b/mine", "res2net_digits", "runs/c/mine/"):
        names.append(_name(model, names))
    assert names == ["mine", "mine (2)", "res2net_digits", "mine (3)"]
