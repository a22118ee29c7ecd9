"""Updates of an open checkout and of an open payment: see `page_updates`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import datetime

from msgspec import ValidationError
from starlette.responses import Response

from cashier.consultation.answer import Consultation, NotOpen, OrderUnknown, RequiredSourceUnavailable
from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import FINAL
from cashier.domain.wording import PayerProblem
from cashier.pages.checkout_endpoints import consult, consult_request
from cashier.pages.checkout_view import Chosen, missing_sources, read_promotions
from cashier.pages.page_call import PageCall, PageRefused
from cashier.pages.page_updates import PageUpdates, Update, another_page, unchanged
from cashier.pages.payment_endpoints import PaymentEndpoints
from cashier.pages.payment_view import ChallengeNotice, may_be_retried
from cashier.pages.qr import QrCodes
from cashier.pages.rendering import Rendering
from cashier.pages.surroundings import MISSING_NAME, checkout_page, payment_page, shown
from cashier.pages.views import ActionView, CheckoutView
from cashier.payments.attempt import kind_of
from cashier.payments.errors import AcceptError
from cashier.tokens.jws import TokenRefused
from cashier.web.sse import accepts_event_stream

# What is still being checked is asked for again; the script takes longer from time to time.
_METHODS_RETRY_MS = 4_000
# A stream that ended for another reason than a final status goes on.
_PAYMENT_RETRY_MS = 500
_POLL_MS = 3_000


class LiveEndpoints:
    """`payments`: knows the payment of a browser. `clock`: the time of day."""

    def __init__(
        self,
        rendering: Rendering,
        payments: PaymentEndpoints,
        qr_codes: QrCodes,
        clock: Callable[[], datetime],
    ) -> None:
        self._updates = PageUpdates(rendering)
        self._payments = payments
        self._qr_codes = qr_codes
        self._clock = clock

    async def methods(self, call: PageCall) -> Response:
        """GET: the checkout, as its sources answer."""
        return await self._updates.respond(call, self._checkouts(call))

    async def payment(self, call: PageCall) -> Response:
        """GET: the payment of this browser, until it is final."""
        return await self._updates.respond(call, self._payment_pages(call))

    async def _checkouts(self, call: PageCall) -> AsyncGenerator[Update, None]:
        session, held = call.session, await self._payments.held(call)
        if held is not None and not may_be_retried(held):
            yield another_page(call)
            return
        call.require_admission()
        chosen = Chosen(read_promotions(call.query), call.request.query_params.get("method"))
        attempt = "" if held is None else held.payment_id
        async with aclosing(_improving(call, chosen)) as consultations:
            async for consultation in consultations:
                call.now = self._clock()
                if consultation is None:
                    yield unchanged(call, CheckoutView, _METHODS_RETRY_MS)
                    continue
                if consultation.blocked is not None:
                    yield another_page(call)
                    return
                call.session_or_none = shown(session, consultation)
                page, view = checkout_page(call, session, consultation, attempt, chosen)
                retry_ms = _METHODS_RETRY_MS if view.checking or view.checking_coupons else None
                yield await self._updates.update(page, view, poll_after_ms=retry_ms, retry_ms=retry_ms)

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
                    yield another_page(call)
                    return
                before = step
                yield await self._updates.update(page, view, poll_after_ms=poll_after_ms, retry_ms=retry_ms)

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


async def _improving(call: PageCall, chosen: Chosen) -> AsyncGenerator[Consultation | None, None]:
    """What is known within `first_answer_ms`, as in a page; then each answer that knows more, and
    the last one if it shows something else.

    None: the first or last answer knows less than the open page, which keeps what it shows. Raises
    `PageRefused`.
    """
    missing, sent = _missing_in_page(call), None
    latest = await consult(call, call.session, chosen)
    if latest.blocked is not None or missing is None or missing_sources(latest) <= missing:
        missing, sent = missing_sources(latest), latest
    yield sent
    if latest.blocked is not None or not missing_sources(latest):
        return
    async with aclosing(_consultations(call, chosen)) as consultations:
        async for latest in consultations:
            if latest.blocked is not None or missing_sources(latest) < missing:
                missing, sent = missing_sources(latest), latest
                yield sent
    if not missing_sources(latest) <= missing:
        yield None
    elif sent is None or _visible(latest) != _visible(sent):
        yield latest


def _missing_in_page(call: PageCall) -> frozenset[str] | None:
    """The sources that the open page is without; None if it does not say so."""
    named = call.request.query_params.get(MISSING_NAME)
    return None if named is None else frozenset(filter(None, named.split(",")))


def _visible(consultation: Consultation) -> tuple[object, ...]:
    """What a page has of it, but for its token."""
    return consultation.order, consultation.blocked, consultation.methods


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
