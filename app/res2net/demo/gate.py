"""What comes in and goes out of the page's server: who may ask, for what, and how much at once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# What a page of ours may load, whatever Gradio's code would like to; and who may frame it.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}

# All that the page needs of Gradio's server: what it is made of, the same for everybody.
_STATIC = re.compile(r"/|/theme\.css|/favicon\.ico|/(assets|static)(/[\w.-]+)+", re.ASCII)
# The last: that a proxy before us speaks TLS, which whoever claims it may have.
_FORWARDED = {
    b"host", b"accept-encoding", b"if-none-match", b"if-modified-since", b"x-forwarded-proto"
}  # fmt: skip

_HOST = re.compile(r"[\w.-]+(:\d+)?|\[[\da-fA-F:.]+\](:\d+)?", re.ASCII)


class SafeHeaders:
    """Sends what keeps a browser from loading, framing or guessing more than we mean."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_more(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                ours = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                others = [each for each in message.get("headers", ()) if each not in ours]
                message = {**message, "headers": [*others, *ours]}
            await send(message)

        await self._app(scope, receive, send_more)


class SameOrigin:
    """Refuses what another site's page asks for by the browser of somebody who looks at it.

    Browsers name the asking page's origin with each POST, a form's too: one that names none is no
    browser's and is refused as well. Links to the page may stand anywhere.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (problem := _foreign(scope)):
            await PlainTextResponse(f"{problem}\n", 403)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _foreign(scope: Scope) -> str:
    """Why a request is refused; empty: it is not."""
    headers = Headers(scope=scope)
    hosts, origins = headers.getlist("host"), headers.getlist("origin")
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        return "one Host, a name or an address, is needed"
    if origins and (len(origins) > 1 or not _leads_to(origins[0], hosts[0])):
        return "asked for by the page of another site"
    reads = scope["method"] in ("GET", "HEAD")
    if not reads and not origins:
        return "an Origin is needed to send something"
    link = reads and scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not link:
        return "asked for by the page of another site"
    return ""


def _leads_to(origin: str, host: str) -> bool:
    """Whether a browser's Origin is the page at this Host (TLS may end before us)."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


class StaticOnly:
    """Hands Gradio's server nothing but plain requests for what the page is made of.

    Its other routes copy and fetch files, forward requests, keep what was asked and describe
    themselves: they do not exist here. Neither queries nor a visitor's other headers get there.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            known = _STATIC.fullmatch(path) and ".." not in path
            if not known or scope["method"] not in ("GET", "HEAD"):
                await PlainTextResponse("Not Found\n", 404)(scope, receive, send)
                return
            headers = [each for each in scope["headers"] if each[0] in _FORWARDED]
            scope = {**scope, "headers": headers, "query_string": b"", "raw_path": path.encode()}
        await self._app(scope, receive, send)


class Busy(Exception):
    """All places are taken."""


class Places:
    """Who is served or waits at a time: so many in all, so many from one address."""

    def __init__(self, total: int, each: int) -> None:
        self._total, self._each = total, each
        self._taken: Counter[str] = Counter()

    @contextmanager
    def take(self, address: str) -> Iterator[None]:
        """Hold a place. Raises Busy."""
        if self._taken.total() >= self._total or self._taken[address] >= self._each:
            raise Busy
        self._taken[address] += 1
        try:
            yield
        finally:
            self._taken[address] -= 1
            if not self._taken[address]:
                del self._taken[address]
