"""Serves the page from this process alone: nothing is asked of another host, nothing is kept."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import signal
import socket
import tempfile
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from res2net.errors import InputError

if TYPE_CHECKING:
    from res2net.inference.cam import Explainer

# Read by Gradio and what it imports: figures of use are sent to nobody.
_QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}


def find_libraries() -> None:
    """Raises InputError where the extra `demo` is not installed."""
    for module in ("gradio", "pytorch_grad_cam"):
        if find_spec(module) is None:  # importing it here would be too early, see `serve`
            raise InputError(
                f"the page needs Gradio and grad-cam (there is no {module}): "
                "pip install 'res2net-lightning[demo]'"
            )


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections from now on; they wait until `serve` answers them.

    Args:
        host: A name or address of this machine.
        port: 0 takes a free one.

    Raises:
        InputError: There is no such address here, or the port is in use or not allowed.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, ValueError) as error:  # ValueError: what IDNA does not take
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--host {host}: no such host ({reason})") from error
    listening = socket.socket(family, kind)
    try:
        if os.name == "posix":  # a port whose last connections are not forgotten yet is free
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise InputError(f"--host {host}: is no address of this machine") from error
        why = "is in use" if error.errno == errno.EADDRINUSE else f"fails ({error.strerror})"
        raise InputError(
            f"--port {port}: {why} on {host}; choose another, or 0 for a free one"
        ) from error
    return listening


def address_of(listening: socket.socket) -> tuple[str, bool]:
    """The URL of a socket, and whether only this machine reaches it."""
    host, port = listening.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/", ipaddress.ip_address(host).is_loopback


def serve(
    explainers: Mapping[str, Explainer], listening: socket.socket, on_ready: Callable[[], None]
) -> None:
    """Answer until SIGINT, SIGTERM or SIGHUP comes.

    What was uploaded is deleted at the end, or when it is little more than an hour old.

    Args:
        explainers: The models, by the name that the page gives them.
        listening: See `listen`; closed at the end.
        on_ready: Called when the page can be opened.
    """
    server: Any = None

    def stop(number: int, frame: object) -> None:
        if server is None:
            raise KeyboardInterrupt
        server.should_exit = True

    # uvicorn raises the signal again when it has ended: that finds these, and is over
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        known = getattr(signal, name, None)  # Windows has not all
        if known is not None and signal.getsignal(known) != signal.SIG_IGN:
            signal.signal(known, stop)
    with (
        tempfile.TemporaryDirectory(prefix="res2net-demo-", ignore_cleanup_errors=True) as folder,
        warnings.catch_warnings(),
    ):
        # Pillow's about odd metadata: what cannot be read is told on the page
        warnings.filterwarnings("ignore", module="PIL")
        os.environ.update(_QUIET, GRADIO_TEMP_DIR=folder)  # before Gradio is imported
        # it writes a line for each broken form, as many as a stranger likes
        logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
        server = _make_server(explainers, listening, Path(folder))
        on_ready()
        server.run(sockets=[listening])


def _make_server(
    explainers: Mapping[str, Explainer], listening: socket.socket, folder: Path
) -> Any:
    import uvicorn
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from res2net.demo.page import DemoPage
    from res2net.demo.routes import make_app
    from res2net.demo.uploads import Uploads

    middleware = []
    if address_of(listening)[1]:
        # A page of elsewhere, whose name is made to lead here, gets no answer.
        names = ["localhost", "127.0.0.1", "::1", "[::1]", listening.getsockname()[0]]
        middleware.append(
            Middleware(TrustedHostMiddleware, allowed_hosts=names, www_redirect=False)
        )
    uploads = Uploads(folder)
    config = uvicorn.Config(
        make_app(DemoPage(explainers, uploads), uploads, middleware),
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who asks is who is connected, whatever they say
        ws="none",
        timeout_graceful_shutdown=1,  # an upload may take long
    )
    return uvicorn.Server(config)
