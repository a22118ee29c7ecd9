"""Updates of an open page: as server-sent events, or a single one as JSON. `page.js` follows them.

An update is `<main>` as its template renders it now, so a page that improves in place and a page
that is loaded again are the same. What the page can do is not decided here: another kind of page is
loaded again, and gets its own headers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from time import perf_counter_ns
from typing import Any

import msgspec
from msgspec import Struct
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cashier.domain.wording import PayerProblem
from cashier.pages.browser_call import BrowserCall
from cashier.pages.page_call import PageRefused
from cashier.pages.rendering import AnyView, Rendering, name_of
from cashier.pages.turns import in_turns
from cashier.pages.views import ChallengeView, PageView, ResultView
from cashier.web.disconnect_watch import DisconnectWatch
from cashier.web.problem import RequestRefused
from cashier.web.sse import EventFormat, EventStream, accepts_event_stream

# Open streams of one session: some tabs and devices. A page without one asks from time to time.
MOST_STREAMS = 12
# A name that no page has: the open page is loaded again.
_ANOTHER_PAGE = ""


class Update(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`html`: None where nothing may change under the payer's hands. `outcome`, `payment_id`: of a
    result. `poll_after_ms`: without events; null if nothing follows. `retry_ms`: of the stream's
    end, likewise.
    """

    view: str
    now: str
    title: str | None = None
    html: str | None = None
    outcome: str | None = None
    payment_id: str | None = None
    poll_after_ms: int | None
    retry_ms: int | None


class PageUpdates:
    """Renders updates and sends them."""

    def __init__(self, rendering: Rendering) -> None:
        self._rendering = rendering
        self._watch = DisconnectWatch(body_timeout_s=10.0)
        self._open: Counter[str] = Counter()

    async def respond(self, call: BrowserCall, updates: AsyncGenerator[Update, None]) -> Response:
        """Raises `PageRefused`, in whose place the page keeps what it shows and tries again."""
        if not accepts_event_stream(call.headers.get(b"accept")):
            return await _last(updates)
        session_id = call.session.session_id
        if self._open[session_id] >= MOST_STREAMS:
            raise PageRefused(429, PayerProblem.OVERLOADED)
        self._open[session_id] += 1
        try:
            stream = await EventStream.start(updates, call.request_id, _FORMAT)
        except BaseException:
            self._close(session_id)
            raise
        return UpdateStream(stream, self._watch, partial(self._close, session_id))

    async def update(self, page: PageView, view: AnyView, *, poll_after_ms: int | None, retry_ms: int | None) -> Update:
        """A challenge keeps what it says about the last answer, and what the payer is typing."""
        result = view if isinstance(view, ResultView) else None
        return Update(
            view=name_of(view),
            outcome=None if result is None else result.outcome,
            payment_id=None if result is None else result.payment.payment_id,
            now=page.now,
            title=self._rendering.title(page, view),
            html=None if isinstance(view, ChallengeView) else await in_turns(self._rendering.pieces(page, view)),
            poll_after_ms=poll_after_ms,
            retry_ms=retry_ms,
        )

    def _close(self, session_id: str) -> None:
        self._open[session_id] -= 1
        if not self._open[session_id]:
            del self._open[session_id]


class UpdateStream(Response):
    """Streams until the last update, or until the browser has gone. `ended`: called once, then."""

    media_type = "text/event-stream"

    def __init__(self, stream: EventStream[Update], watch: DisconnectWatch, ended: Callable[[], None]) -> None:
        super().__init__()
        self._stream = stream
        self._watch = watch
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watched = self._watch.enter(receive)
        try:
            await receive()  # the end of a request without a body
            watched.body_complete = True
            await self._stream.send(partial(self._with_headers, send), watched, perf_counter_ns())
        finally:
            self._watch.leave(watched)
            self._ended()

    async def _with_headers(self, send: Send, message: dict[str, Any]) -> None:
        """Those of every page beside those of a stream."""
        if message["type"] == "http.response.start":
            own = {name for name, _ in message["headers"]} | {b"content-length"}
            message["headers"] += [(name, value) for name, value in self.raw_headers if name not in own]
        await send(message)


async def _last(updates: AsyncGenerator[Update, None]) -> Response:
    async with aclosing(updates):
        last = [update async for update in updates][-1]
    return Response(msgspec.json.encode(last), media_type="application/json")


def unchanged(call: BrowserCall, view: type[AnyView], retry_ms: int) -> Update:
    """The open page keeps what it shows."""
    now = call.now.isoformat(timespec="seconds")
    return Update(view=name_of(view), now=now, poll_after_ms=retry_ms, retry_ms=retry_ms)


def another_page(call: BrowserCall) -> Update:
    now = call.now.isoformat(timespec="seconds")
    return Update(view=_ANOTHER_PAGE, now=now, poll_after_ms=None, retry_ms=None)


def _no_refusal(_error: Exception) -> RequestRefused | None:
    """After the first update an error is a bug: the script tries again."""
    return None


_FORMAT = EventFormat[Update](
    event=b"update",
    encode=lambda _, update: msgspec.json.encode(update),
    end=lambda _, last: {"retry_ms": last.retry_ms},
    sources=lambda _: (),
    refusal_for=_no_refusal,
    failure_log="updates of a page failed",
    failure_detail="The updates of the page failed.",
    heartbeat=b"event: beat\ndata: {}\n\n",
)
