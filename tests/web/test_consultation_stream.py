"""Consultations as server-sent events, over ASGI and over real connections."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace
from starlette.types import Message
from structlog.testing import capture_logs

from cashier.consultation.answer import Blockage, Consultation, OrderUnknown, RequiredSourceUnavailable
from cashier.domain.order import Blocked, ConsultRequest
from cashier.fanout.ask import SourceStatus
from cashier.web import CashierApp, app, owning_app
from cashier.web.sse import STALL_S
from tests.web.asgi_client import JSON, IncomingMessages, PendingRequest, call, request, scope
from tests.web.fake_service import BODY, SOURCES, FakeService, consultation, opener
from tests.web.server_process import TIMEOUT_S, RawClient, ServerProcess, consult_request, running_server
from tests.web.test_openapi import check, fetch_document

EVENTS = JSON | {"accept": "text/event-stream"}
IN_TIME = replace(consultation(), sources=tuple(replace(source, status=SourceStatus.FRESH) for source in SOURCES))
NOT_DEGRADED = replace(IN_TIME, degraded=False)


class ScriptedStream(FakeService):
    """A service whose stream the test scripts: consultations, an exception, None for the end."""

    def __init__(self, *steps: Consultation | Exception | None) -> None:
        super().__init__()
        self.requested = 0
        self.closed = False
        self._next: asyncio.Queue[Consultation | Exception | None] = asyncio.Queue()
        for step in steps:
            self.put(step)

    def put(self, step: Consultation | Exception | None) -> None:
        self._next.put_nowait(step)

    def stream(
        self, request: ConsultRequest, *, request_id: str, traceparent: str | None = None
    ) -> AsyncGenerator[Consultation, None]:
        self.calls.append((request, request_id, traceparent))
        # Keep a reference: the loop closes unreferenced generators, and the application must close
        # it.
        self._generator = self._generate()
        return self._generator

    async def _generate(self) -> AsyncGenerator[Consultation, None]:
        try:
            while True:
                self.requested += 1
                step = await self._next.get()
                if isinstance(step, Exception):
                    raise step
                if step is None:
                    return
                yield step
        finally:
            self.closed = True


class Event(NamedTuple):
    name: str
    event_id: str | None
    data: Any


def events(body: bytes) -> list[Event]:
    """Parse a body strictly."""
    parsed = []
    *blocks, rest = body.decode().split("\n\n")
    assert rest == ""
    for block in blocks:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        assert fields.keys() - {"id"} == {"event", "data"}
        parsed.append(Event(fields["event"], fields.get("id"), json.loads(fields["data"])))
    return parsed


class EventReader(PendingRequest):
    """A client of an event stream."""

    def __init__(
        self, application: CashierApp, request_scope: dict[str, Any] | None = None, body: bytes = BODY
    ) -> None:
        """`request_scope`: by default a consultation."""
        super().__init__(application, request_scope or scope("POST", "/v1/consult", EVENTS), body)

    async def wait_for_events(self, count: int) -> list[Event]:
        return events(await self.wait_for(lambda body: body.count(b"\n\n") >= count))


async def test_each_event_is_complete_and_numbered_and_the_stream_ends_with_end() -> None:
    service = ScriptedStream(consultation(), IN_TIME, None)
    response = await call(app(service), headers=EVENTS | {"X-Request-Id": "r-1"})
    consultation_json = (await call(app(FakeService()))).json
    assert response.status == 200
    assert response.ended
    first, second, end = events(response.body)
    assert first == ("answer", "1", {"seq": 1} | consultation_json)
    assert second.data["seq"] == 2
    assert (second.name, second.event_id) == ("answer", "2")
    assert {source["status"] for source in second.data["sources"]} == {"FRESH"}
    assert end == ("end", None, {"seq": 2, "reason": "COMPLETE"})
    assert service.closed
    assert service.calls[0][1] == "r-1"


async def test_the_headers_of_a_stream_forbid_caching_and_buffering() -> None:
    response = await call(app(ScriptedStream(consultation(), None)), headers=EVENTS | {"X-Request-Id": "r-1"})
    timing = response.headers.pop("server-timing")
    assert response.headers == {
        "content-type": "text/event-stream",
        "cache-control": "no-store",
        "x-accel-buffering": "no",
        "x-request-id": "r-1",
    }
    assert timing.startswith("total;dur=")
    assert 'quota;dur=7.4;desc="TIMEOUT"' in timing


async def test_the_stream_and_its_events_match_the_document() -> None:
    document = await fetch_document()
    content = document["paths"]["/v1/consult"]["post"]["responses"]["200"]["content"]["text/event-stream"]
    assert events(content["example"].encode())[-1].name == "end"
    response = await call(app(ScriptedStream(consultation(), ZeroDivisionError())), headers=EVENTS)
    answer, error = events(response.body)
    check(document, {"$ref": "#/components/schemas/Consultation"}, answer.data)
    check(document, {"$ref": "#/components/schemas/Problem"}, error.data)


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (consultation(), "DEADLINE"),
        (IN_TIME, "COMPLETE"),
        (
            replace(consultation(), sources=tuple(replace(source, status=SourceStatus.ERROR) for source in SOURCES)),
            "COMPLETE",
        ),
        (
            replace(consultation(), sources=tuple(replace(source, status=SourceStatus.SKIPPED) for source in SOURCES)),
            "DEADLINE",
        ),
        (
            replace(NOT_DEGRADED, sources=tuple(replace(source, status=SourceStatus.SKIPPED) for source in SOURCES)),
            "COMPLETE",
        ),
        (replace(consultation(), payable=False, blocked=Blockage(Blocked.ORDER_PAID, "It is paid.")), "COMPLETE"),
    ],
)
async def test_the_end_event_reports_whether_time_ran_out(last: Consultation, reason: str) -> None:
    response = await call(app(ScriptedStream(last, None)), headers=EVENTS)
    assert events(response.body)[-1] == ("end", None, {"seq": 1, "reason": reason})


@pytest.mark.parametrize(
    "accept",
    [
        "text/event-stream",
        "Text/Event-Stream",
        "application/json, text/event-stream",
        "text/event-stream;q=0.5, */*",
        "text/event-stream ; charset=utf-8 ; q=0.001",
    ],
)
async def test_an_accept_header_that_names_event_streams_gets_one(accept: str) -> None:
    response = await call(app(ScriptedStream(consultation(), None)), headers=JSON | {"accept": accept})
    assert response.headers["content-type"] == "text/event-stream"


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "text/*",
        "application/json",
        "text/event-stream;q=0",
        "text/event-stream; q=0.000, application/json",
        "text/event-streams",
        'application/json;like="text/event-stream"',
    ],
)
async def test_any_other_accept_header_gets_json(accept: str) -> None:
    response = await call(app(FakeService()), headers=JSON | {"accept": accept})
    assert (response.status, response.headers["content-type"]) == (200, "application/json")


@pytest.mark.parametrize(
    ("raised", "status", "code"),
    [
        (OrderUnknown("o_1001"), 404, "ORDER_UNKNOWN"),
        (RequiredSourceUnavailable(SOURCES, ("order",)), 503, "REQUIRED_SOURCE_UNAVAILABLE"),
        (ZeroDivisionError("the secret is 4711"), 500, "INTERNAL"),
        (None, 500, "INTERNAL"),
    ],
)
async def test_an_error_before_the_first_event_is_a_problem_response(
    raised: Exception | None, status: int, code: str
) -> None:
    response = await call(app(ScriptedStream(raised)), headers=EVENTS)
    assert response.problem() == (status, code)
    assert b"4711" not in response.body
    assert response.headers["content-length"] == str(len(response.body))


async def test_an_invalid_request_for_a_stream_is_refused_like_any_other() -> None:
    assert (await call(app(ScriptedStream()), b"{", headers=EVENTS)).problem() == (400, "MALFORMED")
    assert (await call(app(ScriptedStream()), method="GET", headers=EVENTS)).problem() == (405, "METHOD_NOT_ALLOWED")
    assert (await call(owning_app(opener(FakeService(), [])), headers=EVENTS)).problem() == (503, "NOT_READY")


async def test_a_bug_after_the_first_event_ends_the_stream_with_an_error_event() -> None:
    service = ScriptedStream(consultation(), ZeroDivisionError("the secret is 4711"))
    with capture_logs() as logs:
        response = await call(app(service), headers=EVENTS | {"X-Request-Id": "r-1"})
    assert response.ended
    answer, error = events(response.body)
    assert answer.name == "answer"
    assert (error.name, error.event_id, error.data["code"], error.data["status"]) == ("error", None, "INTERNAL", 500)
    assert b"4711" not in response.body
    assert [(log["log_level"], log["request_id"]) for log in logs] == [("error", "r-1")]


@pytest.mark.looptime
async def test_an_event_is_sent_before_the_next_one_is_known() -> None:
    service = ScriptedStream(consultation())
    reader = EventReader(app(service))
    assert [event.name for event in await reader.wait_for_events(1)] == ["answer"]
    service.put(consultation())
    assert [event.event_id for event in await reader.wait_for_events(2)] == ["1", "2"]
    assert not reader.response.ended
    service.put(None)
    await reader.finished()
    assert reader.response.ended


@pytest.mark.looptime
async def test_the_next_consultation_is_requested_only_after_the_reader_took_the_last() -> None:
    service = ScriptedStream(consultation(), consultation(), consultation(), None)
    reader = EventReader(app(service))
    reader.reads.clear()
    await reader.blocked.wait()
    await asyncio.sleep(STALL_S / 2)
    assert service.requested == 1
    reader.reads.set()
    await reader.finished()
    assert [event.name for event in events(reader.response.body)] == ["answer", "answer", "answer", "end"]


async def assert_nothing_left(application: CashierApp, service: ScriptedStream) -> None:
    await asyncio.sleep(0.1)
    assert service.closed
    assert "requests=0 sweeping=False" in repr(application)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.looptime
@pytest.mark.parametrize("reads", [True, False])
async def test_a_disconnect_ends_the_consultation_and_leaves_nothing_behind(reads: bool) -> None:
    service = ScriptedStream(consultation())
    application = app(service)
    reader = EventReader(application)
    await reader.wait_for_events(1)
    if not reads:
        reader.reads.clear()
        service.put(consultation())
        await reader.blocked.wait()
    reader.incoming.disconnect()
    await reader.finished()
    assert not reader.response.ended
    await assert_nothing_left(application, service)


@pytest.mark.looptime
@pytest.mark.parametrize("ends_by", ["disconnect", "cancellation", "stall"])
async def test_a_client_that_reads_not_even_the_head_leaves_nothing_behind(ends_by: str) -> None:
    service = ScriptedStream(consultation())
    application = app(service)
    reader = EventReader(application)
    reader.reads.clear()
    await reader.blocked.wait()
    if ends_by == "disconnect":
        reader.incoming.disconnect()
    elif ends_by == "cancellation":
        reader.task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reader.finished()
    assert not reader.response.body
    await assert_nothing_left(application, service)


@pytest.mark.looptime
async def test_a_disconnect_before_the_first_event_sends_nothing() -> None:
    service = ScriptedStream()
    application = app(service)
    reader = EventReader(application)
    await asyncio.sleep(0.2)
    reader.incoming.disconnect()
    await reader.finished()
    assert (reader.response.status, reader.response.body) == (499, b"")
    await assert_nothing_left(application, service)


@pytest.mark.looptime
async def test_a_stalled_reader_is_disconnected() -> None:
    service = ScriptedStream(consultation())
    application = app(service)
    reader = EventReader(application)
    await reader.wait_for_events(1)
    reader.reads.clear()
    service.put(consultation())
    await reader.blocked.wait()
    began = asyncio.get_running_loop().time()
    with capture_logs() as logs:
        await reader.finished()
    assert asyncio.get_running_loop().time() - began == pytest.approx(STALL_S)
    assert [log["event"] for log in logs] == ["event stream reader stalled"]
    await assert_nothing_left(application, service)


@pytest.mark.looptime
async def test_a_cancellation_by_the_server_is_not_taken_for_a_disconnect() -> None:
    service = ScriptedStream(consultation())
    application = app(service)
    reader = EventReader(application)
    await reader.wait_for_events(1)
    reader.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader.finished()
    await assert_nothing_left(application, service)


def streaming(body: bytes = BODY) -> bytes:
    return consult_request(body).replace(b"\r\n\r\n", b"\r\nAccept: text/event-stream\r\n\r\n", 1)


class EventClient(RawClient):
    """A connection that receives events in chunks."""

    def __enter__(self) -> EventClient:
        return self

    def event(self) -> Event | None:
        """The next event, which fills one chunk; None at the end of the stream."""
        length = int(self._until(b"\r\n"), 16)
        while len(self._buffer) < length + 2:
            self._receive()
        chunk, self._buffer = self._buffer[:length], self._buffer[length + 2 :]
        return events(chunk)[0] if length else None


async def test_head_and_events_are_sent_in_loop_iterations_of_their_own() -> None:
    """The event loop merges the writes of one iteration, and the server holds the head until the
    body begins.
    """
    loop, iteration = asyncio.get_running_loop(), 0
    sent: list[tuple[int, bytes]] = []

    def count() -> None:
        nonlocal iteration
        iteration += 1
        loop.call_soon(count)

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            sent.append((iteration, message["body"]))

    loop.call_soon(count)
    incoming = IncomingMessages([request(BODY)])
    application = app(ScriptedStream(consultation(), IN_TIME, None))
    await application(scope("POST", "/v1/consult", EVENTS), incoming.receive, send)
    assert [body.partition(b"\n")[0] for _, body in sent] == [
        b"", b"event: answer", b"event: answer", b"event: end", b""
    ]  # fmt: skip
    iterations = [each for each, _ in sent]
    assert sorted(set(iterations)) == iterations


def test_a_real_connection_carries_events_one_by_one_and_stays_usable(server: ServerProcess) -> None:
    with EventClient(server.port) as client:
        for _ in range(2):
            client.send(streaming())
            head = client.read_head().lower()
            assert b"transfer-encoding: chunked" in head
            assert b"content-length" not in head
            names = []
            while (event := client.event()) is not None:
                names.append(event.name)
            assert names == ["answer", "answer", "end"]
        client.send(consult_request())
        assert client.read_response().status == 200


def test_closing_a_real_connection_ends_its_consultation() -> None:
    with running_server() as server:
        with EventClient(server.port) as client:
            client.send(streaming(BODY.replace(b"o_1001", b"o_hang")))
            client.read_head()
            first = client.event()
            assert first is not None
            assert first.name == "answer"
            request_id = server.line().removeprefix("started ")
        assert server.line() == f"ended {request_id}"


def test_a_stopping_server_lets_a_stream_end() -> None:
    with running_server() as server, EventClient(server.port) as client:
        client.send(streaming(BODY.replace(b"o_1001", b"o_held")))
        client.read_head()
        assert client.event() is not None
        assert server.line() == "held"
        server.process.send_signal(signal.SIGTERM)
        answer, end = client.event(), client.event()
        assert answer is not None
        assert end is not None
        assert (answer.event_id, end.name) == ("2", "end")
        assert client.event() is None
        assert client.is_closed()
        server.process.wait(TIMEOUT_S)
