"""Updates of an open page: as server-sent events, or a single one as JSON. `page.js` follows them.

An update is `<main>` as its template renders it now, so a page that improves in place and a page
that is loaded again are the same. What the page can do is not decided here: another kind of page is
loaded again, and gets its own headers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import datetime
from functools import partial
from time import perf_counter_ns
from typing import Any

import msgspec
from msgspec import Struct, ValidationError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cashier.consultation.answer import Consultation, NotOpen, OrderUnknown, RequiredSourceUnavailable
from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import FINAL
from cashier.domain.wording import PayerProblem
from cashier.pages.checkout_endpoints import consult_request
from cashier.pages.checkout_view import Chosen, read_promotions
from cashier.pages.page_call import PageCall, PageRefused
from cashier.pages.payment_endpoints import PaymentEndpoints
from cashier.pages.payment_view import ChallengeNotice, may_be_retried
from cashier.pages.qr import QrCodes
from cashier.pages.rendering import Rendering, name_of
from cashier.pages.surroundings import checkout_page, payment_page, shown
from cashier.pages.views import ActionView, ChallengeView, PageView, View
from cashier.payments.attempt import kind_of
from cashier.payments.errors import AcceptError
from cashier.tokens.jws import TokenRefused
from cashier.web.disconnect_watch import DisconnectWatch
from cashier.web.problem import RequestRefused
from cashier.web.sse import EventFormat, EventStream, accepts_event_stream

# A name that no page has: the open page is loaded again.
_ANOTHER_PAGE = ""
# Undetermined methods are asked for again; the script takes longer from time to time.
_METHODS_RETRY_MS = 4_000
# A stream that ended for another reason than a final status goes on.
_PAYMENT_RETRY_MS = 500
_POLL_MS = 3_000


class Update(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`html`: None where nothing may change under the payer's hands. `poll_after_ms`: without
    events; null if nothing follows. `retry_ms`: of the stream's end, likewise.
    """

    view: str
    now: str
    title: str | None = None
    html: str | None = None
    poll_after_ms: int | None
    retry_ms: int | None


class LiveEndpoints:
    """`payments`: knows the payment of a browser. `clock`: the time of day."""

    def __init__(
        self,
        rendering: Rendering,
        payments: PaymentEndpoints,
        qr_codes: QrCodes,
        clock: Callable[[], datetime],
    ) -> None:
        self._rendering = rendering
        self._payments = payments
        self._qr_codes = qr_codes
        self._clock = clock
        self._watch = DisconnectWatch(body_timeout_s=10.0)

    async def methods(self, call: PageCall) -> Response:
        """GET: the checkout, as its sources answer."""
        return await self._respond(call, self._checkouts(call))

    async def payment(self, call: PageCall) -> Response:
        """GET: the payment of this browser, until it is final."""
        return await self._respond(call, self._payment_pages(call))

    async def _respond(self, call: PageCall, updates: AsyncGenerator[Update, None]) -> Response:
        """Raises `PageRefused`, in whose place the page keeps what it shows and tries again."""
        if not accepts_event_stream(call.headers.get(b"accept")):
            return await _last(updates)
        return UpdateStream(await EventStream.start(updates, call.request_id, _FORMAT), self._watch)

    async def _checkouts(self, call: PageCall) -> AsyncGenerator[Update, None]:
        session, held = call.session, await self._payments.held(call)
        if held is not None and not may_be_retried(held):
            yield _another_page(call)
            return
        call.require_admission()
        chosen = Chosen(read_promotions(call.query))
        attempt = "" if held is None else held.payment_id
        async with aclosing(_consultations(call, chosen)) as consultations:
            async for consultation in consultations:
                if consultation.blocked is not None:
                    yield _another_page(call)
                    return
                call.now, call.session_or_none = self._clock(), shown(session, consultation)
                page, view = checkout_page(call, session, consultation, attempt, chosen)
                retry_ms = _METHODS_RETRY_MS if view.checking else None
                yield self._update(page, view, poll_after_ms=retry_ms, retry_ms=retry_ms)

    async def _payment_pages(self, call: PageCall) -> AsyncGenerator[Update, None]:
        session, held = call.session, call.held_payment()
        if held is None:
            raise PageRefused(403, PayerProblem.TOKEN_EXPIRED)
        kind, before = kind_of(self._payments.port(call).choice_of(*held).method_id), None
        async with aclosing(self._statuses(call, *held)) as payments:
            async for payment in payments:
                call.now = self._clock()
                page, view = await payment_page(call, session, payment, kind, self._qr_codes, ChallengeNotice())
                is_final = payment.status in FINAL
                poll_after_ms = None if is_final else payment.poll_after_ms or _POLL_MS
                retry_ms = None if is_final else _PAYMENT_RETRY_MS
                step = type(view.step) if isinstance(view, ActionView) else None
                if before is not None and step not in (None, before):
                    # A form that leads to a bank needs the policy of its own document.
                    yield _another_page(call)
                    return
                before = step
                yield self._update(page, view, poll_after_ms=poll_after_ms, retry_ms=retry_ms)

    async def _statuses(self, call: PageCall, payment_id: str, token: str) -> AsyncGenerator[Payment, None]:
        """Raises `PageRefused`."""
        port, request_id, traceparent = self._payments.port(call), call.request_id, call.traceparent
        try:
            if accepts_event_stream(call.headers.get(b"accept")):
                async with aclosing(
                    port.follow(payment_id, token, request_id=request_id, traceparent=traceparent)
                ) as payments:
                    async for payment in payments:
                        yield payment
            else:
                yield await port.look(payment_id, token, request_id=request_id, traceparent=traceparent)
        except TokenRefused:
            raise PageRefused(403, PayerProblem.TOKEN_EXPIRED) from None
        except AcceptError:
            raise PageRefused(503, PayerProblem.STATUS_UNAVAILABLE) from None

    def _update(self, page: PageView, view: View, *, poll_after_ms: int | None, retry_ms: int | None) -> Update:
        """A challenge keeps what it says about the last answer, and what the payer is typing."""
        return Update(
            view=name_of(view),
            now=page.now,
            title=self._rendering.title(page, view),
            html=None if isinstance(view, ChallengeView) else self._rendering.main(page, view),
            poll_after_ms=poll_after_ms,
            retry_ms=retry_ms,
        )


class UpdateStream(Response):
    """Streams until the last update, or until the browser has gone."""

    media_type = "text/event-stream"

    def __init__(self, stream: EventStream[Update], watch: DisconnectWatch) -> None:
        super().__init__()
        self._stream = stream
        self._watch = watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watched = self._watch.enter(receive)
        try:
            await receive()  # the end of a request without a body
            watched.body_complete = True
            await self._stream.send(partial(self._with_headers, send), watched, perf_counter_ns())
        finally:
            self._watch.leave(watched)

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


async def _consultations(call: PageCall, chosen: Chosen) -> AsyncGenerator[Consultation, None]:
    """For as long as the service permits: a page that is shown can wait. Raises `PageRefused`."""
    longest_ms = call.cashier.config.settings.consult.max_deadline_ms
    try:
        request = consult_request(call, call.session, chosen, longest_ms)
        headers = {"request_id": call.request_id, "traceparent": call.traceparent}
        async with aclosing(call.cashier.stream(request, **headers)) as answers:
            async for answer in answers:
                yield answer
    except ValidationError:
        raise PageRefused(422, PayerProblem.INVALID) from None
    except OrderUnknown:
        raise PageRefused(404, PayerProblem.ORDER_UNKNOWN) from None
    except RequiredSourceUnavailable:
        raise PageRefused(503, PayerProblem.REQUIRED_SOURCE_UNAVAILABLE) from None
    except NotOpen:
        raise PageRefused(503, PayerProblem.NOT_READY) from None


def _another_page(call: PageCall) -> Update:
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
