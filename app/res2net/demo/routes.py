"""The page's server: Gradio draws the page, and what visitors send is answered here alone."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakValueDictionary

import gradio as gr
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

from res2net.demo.gate import Busy, Places, SafeHeaders, SameOrigin, StaticOnly
from res2net.demo.page import STYLE, DemoPage
from res2net.demo.uploads import LARGEST, Uploads
from res2net.errors import InputError

_LARGEST_EVENT = 2**14
_UPLOAD_SECONDS, _EVENT_SECONDS = 120, 10
"""For a visitor's line to bring it all."""
_BUSY = "the page is busy: try again in a moment"


def make_app(page: DemoPage, uploads: Uploads, middleware: list[Middleware]) -> Starlette:
    """The server's application. `middleware` comes first: it may refuse requests."""
    routes = _Routes(page, uploads)
    return Starlette(
        routes=[
            Route("/gradio_api/upload", routes.upload, methods=["POST"]),
            Route("/gradio_api/upload_progress", _no_progress, methods=["GET"]),
            Route("/gradio_api/run/predict", routes.run, methods=["POST"]),
            Route("/gradio_api/file={name}", routes.file, methods=["GET"]),
            Mount("/", StaticOnly(_drawn_by_gradio(page.blocks))),
        ],
        middleware=[Middleware(SafeHeaders), *middleware, Middleware(SameOrigin)],
        lifespan=routes.forget_now_and_then,
    )


def _drawn_by_gradio(blocks: gr.Blocks) -> FastAPI:
    app = FastAPI(openapi_url=None)
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        footer_links=[],
        run_history=False,
        show_error=True,
        max_file_size=LARGEST,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=_theme(),
        css=STYLE,
    )
    return app


def _theme() -> Any:
    """Gradio's, with those of its fonts that have all letters: its semibold ones lack most."""
    from gradio.themes import Default
    from gradio.themes.utils.fonts import LocalFont

    weights = (400, 700)
    return Default(
        primary_hue="blue",
        font=(LocalFont("Source Sans Pro", weights), "system-ui", "sans-serif"),
        font_mono=(LocalFont("IBM Plex Mono", weights), "ui-monospace", "monospace"),
    )


class _Routes:
    """The three things that a page asks for."""

    def __init__(self, page: DemoPage, uploads: Uploads) -> None:
        self._page, self._uploads = page, uploads
        self._sending, self._looking = Places(total=16, each=4), Places(total=32, each=8)
        self._decoding: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._network = asyncio.Lock()

    @asynccontextmanager
    async def forget_now_and_then(self, app: Starlette) -> AsyncIterator[None]:
        """Deletes old images while the server runs."""

        async def forget() -> None:
            while True:
                await asyncio.sleep(60)
                self._uploads.forget()

        task = asyncio.create_task(forget())
        yield
        task.cancel()

    async def upload(self, request: Request) -> Response:
        """Takes one file of a form, and answers with its name in a list, as Gradio does."""
        address = _address(request)
        # one image of an address is decoded at a time, so that costly ones leave room for others'
        turn = self._decoding.setdefault(address, asyncio.Lock())
        try:
            with self._sending.take(address):
                async with asyncio.timeout(_UPLOAD_SECONDS):
                    file = await _file_of_form(request)
                try:
                    async with turn:
                        name = await self._uploads.add(file.filename or "", file.file)
                finally:
                    await file.close()
        except Busy:
            return PlainTextResponse(_BUSY, 503)
        except _TooLarge:
            return PlainTextResponse(f"an image may have {LARGEST // 2**20} MB", 413)
        except MultiPartException as error:
            return PlainTextResponse(error.message, 400)
        except (TimeoutError, ClientDisconnect):
            return PlainTextResponse("the file did not arrive", 408)
        except OSError as error:
            return PlainTextResponse(f"the file cannot be kept ({error.strerror})", 507)
        return JSONResponse([name])

    async def run(self, request: Request) -> Response:
        """Answers an event of the page: one at a time, as the network is one."""
        try:
            with self._looking.take(_address(request)):
                async with asyncio.timeout(_EVENT_SECONDS):
                    content = b"".join([part async for part in _body(request, _LARGEST_EVENT)])
                event, values = _event(content)
                async with self._network:
                    if await request.is_disconnected():
                        raise ClientDisconnect
                    data = await asyncio.to_thread(self._page.answer, event, values)
        except Busy:
            return _error(_BUSY, 503)
        except (InputError, _TooLarge) as error:
            return _error(str(error), 400)
        except (TimeoutError, ClientDisconnect):
            return _error("the question did not arrive", 408)
        except Exception:  # a bug, whose trace is for those who run the server
            traceback.print_exc()
            return _error("something failed here; the server's terminal says what", 500)
        return JSONResponse({"data": data, "is_generating": False})

    async def file(self, request: Request) -> Response:
        """An image that was uploaded, to who knows its name."""
        upload = self._uploads.get(request.path_params["name"])
        if upload is None or upload.pixels is None:
            return PlainTextResponse("Not Found\n", 404)
        request.scope["headers"] = []  # no ranges: browsers take all of it
        return FileResponse(
            upload.file,
            media_type=upload.media_type,
            headers={"cache-control": "private, no-store"},
        )


class _TooLarge(Exception):
    """More was sent than is taken."""


def _no_progress(request: Request) -> Response:
    """Ends the stream of how far an upload is: nobody is told of another's."""
    return PlainTextResponse('data: {"msg": "done"}\n\n', media_type="text/event-stream")


def _error(text: str, status: int) -> Response:
    return JSONResponse({"error": text}, status)


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


async def _body(request: Request, largest: int) -> AsyncGenerator[bytes]:
    """The body in parts. Raises _TooLarge: before it is read, where its length is told."""
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told[:20]) > largest:
        raise _TooLarge("too large")
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > largest:
            raise _TooLarge("too large")
        yield part


async def _file_of_form(request: Request) -> UploadFile:
    """The one file of a form. Raises MultiPartException, _TooLarge."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise MultiPartException("expected a form with a file")
    body = _body(request, LARGEST + 2**14)  # and what is around the file
    form = await MultiPartParser(
        request.headers, body, max_files=1, max_fields=4, max_part_size=1024
    ).parse()
    files = [each for _, each in form.multi_items() if isinstance(each, UploadFile)]
    if len(files) != 1:
        raise MultiPartException("expected a form with one file")
    return files[0]


def _event(content: bytes) -> tuple[Any, Any]:
    """Which event it is, and the values of its inputs. Raises InputError: neither."""
    try:
        body = json.loads(content)
        return body["fn_index"], body["data"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise InputError("expected an event of the page") from error
