"""A browser's `EventSource` follows a payment by ticket: once to its end, and then it rests."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from cashier.domain.payment_state import PaymentStatus
from cashier.payments.errors import TooManyPayments
from cashier.web import CashierApp, app
from cashier.web import payment_endpoints as module
from tests.web.asgi_client import CapturedResponse, call
from tests.web.fake_payments import ID, LIVE, PAID, PAYMENT_PATH, TICKET, TOKEN, FakePayments
from tests.web.fake_service import FakeService
from tests.web.test_consultation_stream import Event, events
from tests.web.test_openapi import check, check_response, fetch_document

EVENTS = f"{PAYMENT_PATH}/events"
STREAM_TICKET = f"{PAYMENT_PATH}/stream-ticket"
ACTING = replace(LIVE, status=PaymentStatus.ACTION_REQUIRED)


class EventSource:
    """As the HTML standard, section 9.2: reconnects until a response is not 200 or no event stream.

    `last_event_id`: of the last event dispatched, sent with each connection unless it is empty.
    """

    def __init__(self, application: CashierApp, ticket: str = TICKET, *, sends_ids: bool = True) -> None:
        self._application = application
        self._query = f"ticket={ticket}".encode()
        self._sends_ids = sends_ids
        self.last_event_id = ""
        self.events: list[Event] = []
        self.closed = False

    async def connect(self) -> CapturedResponse:
        headers = {"accept": "text/event-stream"}
        if self.last_event_id and self._sends_ids:
            headers["last-event-id"] = self.last_event_id
        response = await call(self._application, b"", method="GET", path=EVENTS, query=self._query, headers=headers)
        if response.status != 200 or response.headers["content-type"] != "text/event-stream":
            self.closed = True
            return response
        for event in events(response.body):
            self.events.append(event)
            self.last_event_id = event.event_id if event.event_id is not None else self.last_event_id
        return response


@pytest.fixture
def payments() -> FakePayments:
    return FakePayments()


@pytest.fixture
def application(payments: FakePayments) -> CashierApp:
    return app(FakeService(payments))


async def issue(application: CashierApp, **headers: str) -> CapturedResponse:
    return await call(application, b"", path=STREAM_TICKET, headers={"x-payment-token": TOKEN} | headers)


async def test_a_ticket_is_issued_for_a_payment_token(application: CashierApp, payments: FakePayments) -> None:
    response = await issue(application)
    assert response.status == 200
    assert response.json == {"ticket": TICKET, "expires_at": "2026-05-01T12:30:00Z"}
    assert payments.calls[0].args == (ID, TOKEN)
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["referrer-policy"] == "no-referrer"
    check_response(await fetch_document(), response, "/v1/payments/{payment_id}/stream-ticket")


async def test_a_stream_ends_once_and_the_reconnect_gets_204(application: CashierApp, payments: FakePayments) -> None:
    source = EventSource(application)
    payments.publish(LIVE, ACTING, PAID, None)
    response = await source.connect()
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert [(event.name, event.event_id) for event in source.events] == [
        ("payment", "1"),
        ("payment", "2"),
        ("payment", "3"),
        ("end", "end"),
    ]
    response = await source.connect()
    assert source.closed
    assert (response.status, response.body) == (204, b"")
    assert not {"content-type", "content-length"} & set(response.headers)
    assert [recorded.operation for recorded in payments.calls] == ["follow"], "a 204 sends no request"


async def test_after_timeout_stopping_and_lost_connections_the_stream_goes_on(
    application: CashierApp, payments: FakePayments
) -> None:
    source = EventSource(application)
    payments.publish(LIVE, None)
    await source.connect()
    application.draining = True
    payments.publish(LIVE, None)
    await source.connect()
    application.draining = False
    assert [event.data["reason"] for event in source.events if event.name == "end"] == ["TIMEOUT", "STOPPING"]
    # The final event was sent, but not its `end`.
    source.last_event_id = "3"
    payments.publish(PAID, None)
    await source.connect()
    assert source.events[-2].data["status"] == "SUCCEEDED"
    assert source.events[-1].data == {"reason": "FINAL"}
    await source.connect()
    assert source.closed


async def test_a_client_without_last_event_id_rests_too(application: CashierApp, payments: FakePayments) -> None:
    source = EventSource(application, sends_ids=False)
    payments.publish(PAID, None)
    assert [(await source.connect()).status for _ in range(2)] == [200, 204]
    # One that has seen an event, but not the end, still gets it.
    interrupted = EventSource(application)
    interrupted.last_event_id = "2"
    payments.publish(PAID, None)
    await interrupted.connect()
    assert interrupted.events[-1].data == {"reason": "FINAL"}


async def test_the_memory_of_ended_tickets_is_bounded(
    monkeypatch: pytest.MonkeyPatch, application: CashierApp, payments: FakePayments
) -> None:
    monkeypatch.setattr(module, "_MAX_ENDED", 3)
    monkeypatch.setattr(payments, "read_stream_ticket", lambda payment_id, _: payments._read_token(payment_id, ""))
    for number in range(5):
        payments.publish(PAID, None)
        await EventSource(application, f"a.b.{number}").connect()
    ended = application._payment_endpoints._ended
    assert list(ended) == ["2", "3", "4"]


async def test_a_payment_token_stream_gets_204_after_its_end_too(
    application: CashierApp, payments: FakePayments
) -> None:
    headers = {"x-payment-token": TOKEN, "last-event-id": "end"}
    response = await call(application, b"", method="GET", path=EVENTS, headers=headers)
    assert (response.status, response.body) == (204, b"")
    assert payments.calls == []


async def test_events_by_ticket_have_no_token_and_else_everything(
    application: CashierApp, payments: FakePayments
) -> None:
    payments.publish(LIVE, PAID, None)
    await (by_ticket := EventSource(application)).connect()
    payments.publish(LIVE, PAID, None)
    by_token = await call(application, b"", method="GET", path=EVENTS, headers={"x-payment-token": TOKEN})
    schema = (await fetch_document())["components"]["schemas"]["Payment"]
    for event, full in zip(by_ticket.events, events(by_token.body), strict=True):
        if event.name == "payment":
            assert full.data == event.data | {"payment_token": TOKEN}
            check(await fetch_document(), schema, full.data)
            assert TOKEN not in json.dumps(event.data)


async def test_a_ticket_opens_nothing_else(application: CashierApp, payments: FakePayments) -> None:
    query = f"ticket={TICKET}".encode()
    for path, method, body in (
        (PAYMENT_PATH, "GET", b""),
        (f"{PAYMENT_PATH}/cancel", "POST", b""),
        (f"{PAYMENT_PATH}/challenge", "POST", b'{"value": "1"}'),
        (STREAM_TICKET, "POST", b""),
    ):
        response = await call(application, body, method=method, path=path, query=query)
        assert response.problem() == (422, "INVALID")
    assert payments.calls == []


async def test_errors_before_the_first_event_close_the_source(application: CashierApp, payments: FakePayments) -> None:
    payments.publish(TooManyPayments())
    source = EventSource(application)
    assert (await source.connect()).problem() == (503, "OVERLOADED")
    assert source.closed
    for ticket, code in ((TOKEN, "TOKEN_MALFORMED"), ("", "TOKEN_MALFORMED"), ("%00", "TOKEN_MALFORMED")):
        assert (await EventSource(application, ticket).connect()).problem() == (403, code)
    other = await call(
        application, b"", method="GET", path=EVENTS.replace("a2a2", "b3b3"), query=f"ticket={TICKET}".encode()
    )
    assert other.problem() == (403, "TOKEN_OTHER_PAYMENT")
    assert (await EventSource(app(FakeService())).connect()).problem() == (501, "PAYMENTS_NOT_CONFIGURED")
    closed = FakeService(payments)
    closed.ready = False
    assert (await EventSource(app(closed)).connect()).problem() == (503, "NOT_READY")


async def test_no_log_line_has_the_ticket(application: CashierApp, payments: FakePayments) -> None:
    payments.publish(ZeroDivisionError())
    with capture_logs() as logs:
        assert (await EventSource(application).connect()).problem() == (500, "INTERNAL")
        payments.publish(LIVE, ZeroDivisionError())
        await EventSource(application).connect()
        payments.outcome = ZeroDivisionError()
        assert (await issue(application)).problem() == (500, "INTERNAL")
    assert len(logs) == 3
    lines: list[Any] = [{name: repr(value) for name, value in log.items()} for log in logs]
    assert not re.search(f"{TICKET}|{TOKEN}", json.dumps(lines))
