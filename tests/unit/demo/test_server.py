"""Where the page listens, and what is refused before anything is opened."""

import socket
import sys

import pytest

from res2net.demo.server import address_of, find_libraries, listen
from res2net.errors import InputError


def test_a_free_port_takes_connections_at_once() -> None:
    with listen("127.0.0.1", 0) as listening:
        url, private = address_of(listening)
        port = listening.getsockname()[1]
        assert (url, private) == (f"http://127.0.0.1:{port}/", True)
        socket.create_connection(("127.0.0.1", port), timeout=5).close()


def test_a_port_in_use_is_refused() -> None:
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(InputError, match=rf"^--port {port}: is in use on 127\.0\.0\.1; choose"):
            listen("127.0.0.1", port)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(InputError, match=r"^--host 192\.0\.2\.1: is no address of this machine"):
        listen("192.0.2.1", 0)


def test_all_addresses_are_not_private() -> None:
    with listen("0.0.0.0", 0) as listening:
        url, private = address_of(listening)
    assert url.startswith("http://0.0.0.0:") and not private


@pytest.mark.parametrize("module", ["gradio", "pytorch_grad_cam"])
def test_missing_libraries_are_told(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find_libraries()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"no {module}\): pip install .*\[demo\]'$"):
        find_libraries()
