"""The fragments of the pages, rendered once for all who look, and their streams."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

import orjson
from jinja2 import Environment
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from cashier.ops.console.rendering import Page

TICK_S = 2.0
MOST_STREAMS = 16
# A browser reconnects by itself, and is admitted anew: a session may have ended.
LONGEST_STREAM_S = 300.0
_RETRY_MS = 3000
# Two viewers share what is younger.
_SHARED_S = 1.0


class LivePages:
    """`look`: the context of a page's templates now."""

    def __init__(
        self,
        templates: Environment,
        look: Callable[[Page], Mapping[str, Any]],
        stopping: asyncio.Event,
        clock_s: Callable[[], float] = time.monotonic,
        tick_s: float = TICK_S,
    ) -> None:
        self._templates = templates
        self._look = look
        self._stopping = stopping
        self._clock_s = clock_s
        self._tick_s = tick_s
        self._rendered: dict[str, tuple[float, dict[str, str]]] = {}
        self.streams = 0

    def __repr__(self) -> str:
        return f"<LivePages {self.streams} streams>"

    @property
    def is_full(self) -> bool:
        return self.streams >= MOST_STREAMS

    def fragments(self, page: Page) -> dict[str, str]:
        """The HTML of each fragment of the page."""
        now_s = self._clock_s()
        at_s, parts = self._rendered.get(page.name, (float("-inf"), {}))
        if now_s - at_s >= _SHARED_S:
            seen = self._look(page)
            parts = {
                name: self._templates.get_template(f"live/{page.name}-{name}.html").render(seen)
                for name in page.fragments
            }
            self._rendered[page.name] = (now_s, parts)
        return parts

    async def events(self, page: Page) -> AsyncGenerator[bytes, None]:
        """Server-sent events `parts`: those fragments that have changed since the last one."""
        sent: dict[str, bytes] = {}
        ends_s = self._clock_s() + LONGEST_STREAM_S
        yield f"retry: {_RETRY_MS}\n\n".encode()
        while not self._stopping.is_set() and self._clock_s() < ends_s:
            changed = {}
            for name, html in self.fragments(page).items():
                digest = hashlib.sha256(html.encode()).digest()
                if sent.get(name) != digest:
                    sent[name], changed[name] = digest, html
            # Also without changes: it shows the reader, and proxies, that the stream lives.
            yield b"event: parts\ndata: " + orjson.dumps(changed) + b"\n\n"
            try:
                await asyncio.wait_for(self._stopping.wait(), self._tick_s)
            except TimeoutError:
                continue


class EventsResponse(StreamingResponse):
    """The stream of a page, or 503 where too many are open.

    It is counted from here on and not from its first event: of a burst each would find a place.
    """

    def __init__(self, live: LivePages, page: Page) -> None:
        super().__init__(live.events(page), media_type="text/event-stream", headers={"x-accel-buffering": "no"})
        self._live = live

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._live.is_full:
            full = PlainTextResponse("Too many pages are open.\n", 503, {"retry-after": "30"})
            await full(scope, receive, send)
            return
        self._live.streams += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._live.streams -= 1
