"""A small application that speaks to `page.js` as the pages do, and does what a test says."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from cashier.pages.scripts import scripts

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " frame-ancestors 'none'; form-action 'self'; base-uri 'none';"
    " require-trusted-types-for 'script'; trusted-types 'none'"
)
_DOCUMENT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{view}</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="/page.css">
<script src="/page.js" defer></script></head><body>
{main}<p id="status" role="status"></p></body></html>"""
_MAIN = (
    '<main id="main" tabindex="-1" data-view="{view}" data-now="{now}"{live} data-text-checking="Still checking"'
    ' data-text-gone="Choose again" data-text-hours="{{hours}} h {{minutes}} min left"'
    ' data-text-minutes="{{minutes}} min left"{more}>{content}</main>'
)
_STYLE = ".row { min-height: 60px } [hidden] { display: none } ul { list-style: none }"


def row(key: str, kind: str = "CARD", *, amount: str = "¥10.00", state: str = "", more: str = "") -> str:
    """`state`: `checked`, `disabled` or `checking`."""
    look = "row checking" if state == "checking" else "row"
    state = "disabled" if state == "checking" else state
    return (
        f'<li class="{look}" id="{key}" data-kind="{kind}"><input type="radio" id="{key}-pick" name="method"'
        f' value="{key}" data-amount="{amount}"{" " + state if state else ""}>'
        f'<label for="{key}-pick">{key} {amount}</label>{more}</li>'
    )


def checkout(*rows: str, rest: tuple[str, ...] = (), before: str = "") -> str:
    hidden = "" if rest else " hidden"
    folded = f'<details id="others"{hidden}><summary>More</summary><ul data-rows>{"".join(rest)}</ul></details>'
    return (
        f'{before}<form id="pay" method="post" action="/pay"><fieldset id="methods"><legend>Methods</legend>'
        f"<ul data-rows>{''.join(rows)}</ul>{folded}</fieldset>"
        "<button><span>Pay</span> <bdi data-payable hidden></bdi></button></form>"
    )


def at(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


class ScriptServer:
    """`content`, `view`, `live`: of the document. `stream`: what an event stream does.

    `asked`: the addresses that were asked for JSON. `sent`: the forms that came. `loads`: how often
    the document was asked for. `opened`: how many streams could be told something.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.content = checkout()
        self.view = "checkout"
        self.live: str | None = "/events"
        self.reload_after_s = 0
        self.stream = "open"  # or "silent", or "refused"
        self.update: dict[str, Any] | None = None
        self.asked: list[str] = []
        self.followed: list[str] = []
        self.sent: list[dict[str, str]] = []
        self.loads = 0
        self.opened = 0
        self.hold = False
        self._readers: set[asyncio.Queue[str | None]] = set()

    def show(self, content: str, view: str = "checkout") -> dict[str, Any]:
        """Send an update to all open streams."""
        self.update = {
            "view": view,
            "title": f"Now {view}",
            "now": at(0),
            "html": self.main(content, view),
            "poll_after_ms": 1000,
        }
        self._tell(f"event: update\ndata: {json.dumps(self.update)}\n\n")
        return self.update

    def main(self, content: str, view: str) -> str:
        live = f' data-live="{self.live}"' if self.live else ""
        more = f' data-reload-after="{self.reload_after_s}"' if self.reload_after_s else ""
        return _MAIN.format(view=view, now=at(0), live=live, more=more, content=content)

    def end(self, retry_ms: int | None = None) -> None:
        self._tell(f"event: end\ndata: {json.dumps({'retry_ms': retry_ms})}\n\n")

    def cut(self) -> None:
        """Close all streams, as a service that dies."""
        for reader in list(self._readers):
            self.loop.call_soon_threadsafe(reader.put_nowait, None)

    @property
    def readers(self) -> int:
        return len(self._readers)

    def _tell(self, event: str) -> None:
        for reader in list(self._readers):
            self.loop.call_soon_threadsafe(reader.put_nowait, event)

    async def document(self, _request: Request) -> Response:
        self.loads += 1
        html = _DOCUMENT.format(view=self.view, main=self.main(self.content, self.view))
        return HTMLResponse(html, headers={"Content-Security-Policy": POLICY, "Cache-Control": "no-store"})

    async def follow(self, request: Request) -> Response:
        query = f"?{request.url.query}" if request.url.query else ""
        if "text/event-stream" not in request.headers["accept"]:
            self.asked.append(request.url.path + query)
            return JSONResponse(self.update) if self.update else Response(status_code=503)
        self.followed.append(request.url.path + query)
        if self.stream == "refused":
            return Response(status_code=503)
        return StreamingResponse(self._stream(), media_type="text/event-stream")

    async def _stream(self) -> AsyncIterator[str]:
        reader: asyncio.Queue[str | None] = asyncio.Queue()
        if self.stream == "silent":
            await asyncio.Event().wait()
        self._readers.add(reader)
        self.opened += 1
        try:
            yield "event: beat\ndata: {}\n\n"  # on a busy machine a page would take silence for trouble
            while (event := await reader.get()) is not None:
                yield event
        finally:
            self._readers.discard(reader)

    async def pay(self, request: Request) -> Response:
        self.sent.append(dict(parse_qsl((await request.body()).decode())))
        while self.hold:  # noqa: ASYNC110 - a test sets it from its own thread
            await asyncio.sleep(0.01)
        return RedirectResponse("/paid", 303)

    async def paid(self, _request: Request) -> Response:
        return HTMLResponse("<title>Paid</title><h1>Paid</h1><link rel=icon href='data:,'>")

    async def asset(self, request: Request) -> Response:
        name = request.url.path[1:]
        if name == "page.css":
            return Response(_STYLE, media_type="text/css")
        return Response(scripts()[name], media_type="text/javascript")

    def application(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/", self.document),
                Route("/events", self.follow),
                Route("/methods", self.follow),
                Route("/pay", self.pay, methods=["POST"]),
                Route("/paid", self.paid),
                Route("/page.js", self.asset),
                Route("/page.css", self.asset),
            ]
        )

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve in a thread. Its address."""
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            config = uvicorn.Config(
                self.application(), log_level="critical", lifespan="off", timeout_graceful_shutdown=1
            )
            server = uvicorn.Server(config)
            started = threading.Event()

            async def serve() -> None:
                self.loop = asyncio.get_running_loop()
                started.set()
                await server.serve([listening])

            thread = threading.Thread(target=asyncio.run, args=(serve(),))
            thread.start()
            started.wait()
            try:
                yield f"http://127.0.0.1:{listening.getsockname()[1]}"
            finally:
                server.should_exit = True
                thread.join()
