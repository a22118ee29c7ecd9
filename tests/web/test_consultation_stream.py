"""Consultations as server-sent events: called as a server would call it, then over a real one."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace
from starlette.types import Message
from structlog.testing import capture_logs

from cashier.consultation.flow import Blockage, Consultation, OrderUnknown, RequiredSourceUnavailable
from cashier.domain.order import Blocked, ConsultRequest
from cashier.fanout.ask import SourceStatus
from cashier.web import CashierApp, app, owning_app
from cashier.web.sse import STALL_S
from tests.web.calling import JSON, Got, Wire, call, request, scope
from tests.web.offers import BODY, SOURCES, FakeEngine, consultation, opener
from tests.web.process import PATIENCE_S, Served, Talk, asking, served
from tests.web.test_openapi import check, described

EVENTS = JSON | {"accept": "text/event-stream"}
IN_TIME = replace(consultation(), sources=tuple(replace(source, status=SourceStatus.FRESH) for source in SOURCES))


class Unfolds(FakeEngine):
    """An engine whose stream is put in by the test: answers, an exception, and None for the end."""

    def __init__(self, *put: Consultation | Exception | None) -> None:
        super().__init__()
        self.wanted = 0
        self.closed = False
        self._next: asyncio.Queue[Consultation | Exception | None] = asyncio.Queue()
        for each in put:
            self.put(each)

    def put(self, each: Consultation | Exception | None) -> None:
        self._next.put_nowait(each)

    def stream(
        self, request: ConsultRequest, *, request_id: str, traceparent: str | None = None
    ) -> AsyncGenerator[Consultation, None]:
        self.asked.append((request, request_id, traceparent))
        self._told = self._tell()  # kept: what nobody holds is closed by the loop, and here it is the door that has to
        return self._told

    async def _tell(self) -> AsyncGenerator[Consultation, None]:
        try:
            while True:
                self.wanted += 1
                each = await self._next.get()
                if isinstance(each, Exception):
                    raise each
                if each is None:
                    return
                yield each
        finally:
            self.closed = True


class Event(NamedTuple):
    name: str
    number: str | None
    told: Any


def events(body: bytes) -> list[Event]:
    """As a browser would read them, but less forgiving."""
    found = []
    *blocks, rest = body.decode().split("\n\n")
    assert rest == ""
    for block in blocks:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        assert fields.keys() - {"id"} == {"event", "data"}
        found.append(Event(fields["event"], fields.get("id"), json.loads(fields["data"])))
    return found


class Reader:
    """A client under way that reads as the test lets it."""

    def __init__(self, door: CashierApp, asked: dict[str, Any] | None = None, body: bytes = BODY) -> None:
        """`asked`: the scope of another request than a consultation."""
        self.wire = Wire([request(body)])
        self.got = Got()
        self.reads = asyncio.Event()
        self.reads.set()
        self.blocked = asyncio.Event()
        self._sent = asyncio.Event()
        self.task = asyncio.create_task(self._run(door, asked or scope("POST", "/v1/consult", EVENTS)))

    async def over(self) -> None:
        await asyncio.wait_for(self.task, 30)

    async def until(self, count: int) -> list[Event]:
        """Waits for so many events, a while of virtual time at most."""
        async with asyncio.timeout(30):
            while self.got.body.count(b"\n\n") < count:
                self._sent.clear()
                await self._sent.wait()
        return events(self.got.body)

    async def _send(self, message: Message) -> None:
        if not self.reads.is_set():
            self.blocked.set()
            await self.reads.wait()
        await self.got.send(message)
        self._sent.set()

    async def _run(self, door: CashierApp, asked: dict[str, Any]) -> None:
        await door(asked, self.wire.receive, self._send)


async def test_each_answer_is_whole_and_numbered_and_then_comes_the_end() -> None:
    engine = Unfolds(consultation(), IN_TIME, None)
    got = await call(app(engine), headers=EVENTS | {"X-Request-Id": "r-1"})
    whole = (await call(app(FakeEngine()))).json
    assert got.status == 200
    assert got.ended
    first, second, end = events(got.body)
    assert first == ("answer", "1", {"seq": 1} | whole)
    assert second.told["seq"] == 2
    assert (second.name, second.number) == ("answer", "2")
    assert {source["status"] for source in second.told["sources"]} == {"FRESH"}
    assert end == ("end", None, {"seq": 2, "reason": "COMPLETE"})
    assert engine.closed
    assert engine.asked[0][1] == "r-1"


async def test_its_headers_say_that_it_is_a_stream_that_nobody_may_hold_back_or_keep() -> None:
    got = await call(app(Unfolds(consultation(), None)), headers=EVENTS | {"X-Request-Id": "r-1"})
    timing = got.headers.pop("server-timing")
    assert got.headers == {
        "content-type": "text/event-stream",
        "cache-control": "no-store",
        "x-accel-buffering": "no",
        "x-request-id": "r-1",
    }
    assert timing.startswith("total;dur=")
    assert 'quota;dur=7.4;desc="TIMEOUT"' in timing


async def test_the_document_tells_of_the_stream_and_what_is_in_it() -> None:
    document = await described()
    told = document["paths"]["/v1/consult"]["post"]["responses"]["200"]["content"]["text/event-stream"]
    assert events(told["example"].encode())[-1].name == "end"
    got = await call(app(Unfolds(consultation(), ZeroDivisionError())), headers=EVENTS)
    answer, error = events(got.body)
    check(document, {"$ref": "#/components/schemas/Consultation"}, answer.told)
    check(document, {"$ref": "#/components/schemas/Problem"}, error.told)


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
        (replace(consultation(), payable=False, blocked=Blockage(Blocked.ORDER_PAID, "It is paid.")), "COMPLETE"),
    ],
)
async def test_the_end_says_whether_time_was_up(last: Consultation, reason: str) -> None:
    got = await call(app(Unfolds(last, None)), headers=EVENTS)
    assert events(got.body)[-1] == ("end", None, {"seq": 1, "reason": reason})


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
async def test_who_names_event_streams_gets_one(accept: str) -> None:
    got = await call(app(Unfolds(consultation(), None)), headers=JSON | {"accept": accept})
    assert got.headers["content-type"] == "text/event-stream"


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
async def test_everybody_else_gets_json(accept: str) -> None:
    got = await call(app(FakeEngine()), headers=JSON | {"accept": accept})
    assert (got.status, got.headers["content-type"]) == (200, "application/json")


@pytest.mark.parametrize(
    ("raised", "status", "code"),
    [
        (OrderUnknown("o_1001"), 404, "ORDER_UNKNOWN"),
        (RequiredSourceUnavailable(SOURCES, ("order",)), 503, "REQUIRED_SOURCE_UNAVAILABLE"),
        (ZeroDivisionError("the secret is 4711"), 500, "INTERNAL"),
        (None, 500, "INTERNAL"),
    ],
)
async def test_what_goes_wrong_before_the_first_answer_is_an_ordinary_problem(
    raised: Exception | None, status: int, code: str
) -> None:
    got = await call(app(Unfolds(raised)), headers=EVENTS)
    assert got.problem() == (status, code)
    assert b"4711" not in got.body
    assert got.headers["content-length"] == str(len(got.body))


async def test_a_request_for_a_stream_is_refused_like_any_other() -> None:
    assert (await call(app(Unfolds()), b"{", headers=EVENTS)).problem() == (400, "MALFORMED")
    assert (await call(app(Unfolds()), method="GET", headers=EVENTS)).problem() == (405, "METHOD_NOT_ALLOWED")
    assert (await call(owning_app(opener(FakeEngine(), [])), headers=EVENTS)).problem() == (503, "NOT_READY")


async def test_a_bug_after_the_first_answer_is_told_in_the_stream_and_ends_it() -> None:
    engine = Unfolds(consultation(), ZeroDivisionError("the secret is 4711"))
    with capture_logs() as logs:
        got = await call(app(engine), headers=EVENTS | {"X-Request-Id": "r-1"})
    assert got.ended
    answer, error = events(got.body)
    assert answer.name == "answer"
    assert (error.name, error.number, error.told["code"], error.told["status"]) == ("error", None, "INTERNAL", 500)
    assert b"4711" not in got.body
    assert [(log["log_level"], log["request_id"]) for log in logs] == [("error", "r-1")]


@pytest.mark.looptime
async def test_an_answer_is_out_before_the_next_one_is_known() -> None:
    engine = Unfolds(consultation())
    reader = Reader(app(engine))
    assert [event.name for event in await reader.until(1)] == ["answer"]
    engine.put(consultation())
    assert [event.number for event in await reader.until(2)] == ["1", "2"]
    assert not reader.got.ended
    engine.put(None)
    await reader.over()
    assert reader.got.ended


@pytest.mark.looptime
async def test_a_slow_reader_is_asked_about_before_the_engine_is() -> None:
    engine = Unfolds(consultation(), consultation(), consultation(), None)
    reader = Reader(app(engine))
    reader.reads.clear()
    await reader.blocked.wait()
    await asyncio.sleep(STALL_S / 2)
    assert engine.wanted == 1
    reader.reads.set()
    await reader.over()
    assert [event.name for event in events(reader.got.body)] == ["answer", "answer", "answer", "end"]


async def nothing_is_left(door: CashierApp, engine: Unfolds) -> None:
    await asyncio.sleep(0.1)
    assert engine.closed
    assert "requests=0 sweeping=False" in repr(door)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.looptime
@pytest.mark.parametrize("reads", [True, False])
async def test_a_client_that_leaves_ends_the_consultation_and_leaves_nothing(reads: bool) -> None:
    engine = Unfolds(consultation())
    door = app(engine)
    reader = Reader(door)
    await reader.until(1)
    if not reads:
        reader.reads.clear()
        engine.put(consultation())
        await reader.blocked.wait()
    reader.wire.hang_up()
    await reader.over()
    assert not reader.got.ended
    await nothing_is_left(door, engine)


@pytest.mark.looptime
async def test_a_client_that_leaves_before_the_first_answer_is_told_nothing() -> None:
    engine = Unfolds()
    door = app(engine)
    reader = Reader(door)
    await asyncio.sleep(0.2)
    reader.wire.hang_up()
    await reader.over()
    assert reader.got.status is None
    await nothing_is_left(door, engine)


@pytest.mark.looptime
async def test_a_reader_that_stalls_is_given_up_after_a_while() -> None:
    engine = Unfolds(consultation())
    door = app(engine)
    reader = Reader(door)
    await reader.until(1)
    reader.reads.clear()
    engine.put(consultation())
    await reader.blocked.wait()
    began = asyncio.get_running_loop().time()
    with capture_logs() as logs:
        await reader.over()
    assert asyncio.get_running_loop().time() - began == pytest.approx(STALL_S)
    assert [log["event"] for log in logs] == ["event stream reader stalled"]
    await nothing_is_left(door, engine)


@pytest.mark.looptime
async def test_being_cancelled_by_the_server_is_not_mistaken_for_a_client_that_left() -> None:
    engine = Unfolds(consultation())
    door = app(engine)
    reader = Reader(door)
    await reader.until(1)
    reader.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader.over()
    await nothing_is_left(door, engine)


def streaming(body: bytes = BODY) -> bytes:
    return asking(body).replace(b"\r\n\r\n", b"\r\nAccept: text/event-stream\r\n\r\n", 1)


class Listener(Talk):
    """A connection on which events come, in chunks."""

    def __enter__(self) -> Listener:
        return self

    def event(self) -> Event | None:
        """The next one; None at the end of the stream. Each is written in one chunk."""
        length = int(self._until(b"\r\n"), 16)
        while len(self._come) < length + 2:
            self._more()
        chunk, self._come = self._come[:length], self._come[length + 2 :]
        return events(chunk)[0] if length else None


def test_over_a_real_connection_events_come_as_they_are_made_and_it_can_be_used_again(server: Served) -> None:
    with Listener(server.port) as talk:
        for _ in range(2):
            talk.say(streaming())
            head = talk.head().lower()
            assert b"transfer-encoding: chunked" in head
            assert b"content-length" not in head
            names = []
            while (event := talk.event()) is not None:
                names.append(event.name)
            assert names == ["answer", "answer", "end"]
        talk.say(asking())
        assert talk.reply().status == 200


def test_a_client_that_leaves_a_real_connection_ends_its_consultation() -> None:
    with served() as server:
        with Listener(server.port) as talk:
            talk.say(streaming(BODY.replace(b"o_1001", b"o_hang")))
            talk.head()
            first = talk.event()
            assert first is not None
            assert first.name == "answer"
            asked = server.line().removeprefix("asked ")
        assert server.line() == f"over {asked}"


def test_a_server_that_stops_lets_a_stream_come_to_its_end() -> None:
    with served(delay_ms=700) as server, Listener(server.port) as talk:
        talk.say(streaming())
        talk.head()
        assert talk.event() is not None
        server.process.send_signal(signal.SIGTERM)
        answer, end = talk.event(), talk.event()
        assert answer is not None
        assert end is not None
        assert (answer.number, end.name) == ("2", "end")
        assert talk.event() is None
        assert talk.ended()
        server.process.wait(PATIENCE_S)
