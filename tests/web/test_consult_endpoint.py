"""The hot route, called as a server would call it."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from structlog.testing import capture_logs

from cashier.consultation.flow import OrderUnknown, RequiredSourceUnavailable
from cashier.web import CashierApp, app
from tests.web.calling import JSON, Got, Wire, call, request, scope
from tests.web.offers import BODY, SOURCES, FakeEngine


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def door(engine: FakeEngine) -> CashierApp:
    return app(engine, body_limit_bytes=1000, body_timeout_s=2.0)


class Visitor:
    """A request under way in a task of its own, whose bytes and end are in the hands of the test."""

    def __init__(
        self, door: CashierApp, body: bytes, *, more: bool = False, headers: dict[str, str] | None = None
    ) -> None:
        self.wire = Wire([request(body, more=more)])
        self.got = Got()
        self.task = asyncio.create_task(self._run(door, scope("POST", "/v1/consult", headers or JSON)))

    async def over(self) -> None:
        """Waits for the end; half a minute of virtual time is for ever."""
        await asyncio.wait_for(self.task, 30)

    async def _run(self, door: CashierApp, asked: dict[str, object]) -> None:
        await door(asked, self.wire.receive, self.got.send)


async def test_an_answer_is_the_consultation_as_json(door: CashierApp, engine: FakeEngine) -> None:
    got = await call(door)
    assert got.status == 200
    assert got.headers["content-type"] == "application/json"
    assert got.headers["content-length"] == str(len(got.body))
    assert got.headers["cache-control"] == "no-store"
    assert got.json["methods"][0]["amount"]["payable"] == {"currency": "CNY", "value": 11800}
    assert got.json["sources"][0]["class"] == "REQUIRED"
    assert engine.asked[0][0].deadline_ms == 150


async def test_server_timing_shows_the_whole_and_every_source(door: CashierApp) -> None:
    parts = (await call(door)).headers["server-timing"].split(", ")
    assert re.fullmatch(r"total;dur=\d+\.\d", parts[0])
    assert parts[1:] == [f'{source.name};dur=7.4;desc="{source.status.value}"' for source in SOURCES]


@pytest.mark.parametrize("claimed", ["a", "A-1_b.c:d", "x" * 64])
async def test_a_sane_request_id_is_taken_over(door: CashierApp, engine: FakeEngine, claimed: str) -> None:
    got = await call(door, headers=JSON | {"X-Request-Id": claimed})
    assert got.headers["x-request-id"] == engine.asked[0][1] == claimed


@pytest.mark.parametrize("claimed", ["", "x" * 65, "a b", "a\nb", "ä", "<script>"])
async def test_any_other_request_id_is_replaced(door: CashierApp, engine: FakeEngine, claimed: str) -> None:
    made = {(await call(door, headers=JSON | {"X-Request-Id": claimed})).headers["x-request-id"] for _ in range(3)}
    assert len(made) == 3
    assert claimed not in made
    assert all(re.fullmatch(r"[0-9a-f]{24}", each) for each in made)


async def test_a_trace_is_passed_on_and_a_broken_one_is_not(door: CashierApp, engine: FakeEngine) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    for claimed in (trace, trace + "0", trace.upper(), "00-" + "0" * 32 + trace[35:]):
        await call(door, headers=JSON | {"traceparent": claimed})
    assert [asked[2] for asked in engine.asked] == [trace, None, None, None]


@pytest.mark.parametrize(
    ("header", "in_body", "expected"),
    [
        ("80", 150, 80),
        ("200", 150, 150),
        ("80", None, 80),
        (None, None, None),
        ("7200000", None, 60_000),
        ("9" * 5000, None, 60_000),
    ],
)
async def test_the_shortest_patience_is_the_deadline(
    door: CashierApp, engine: FakeEngine, header: str | None, in_body: int | None, expected: int | None
) -> None:
    body = json.loads(BODY) | {"deadline_ms": in_body}
    got = await call(
        door, json.dumps(body).encode(), headers=JSON | ({"X-Request-Timeout-Ms": header} if header else {})
    )
    assert got.status == 200
    assert engine.asked[0][0].deadline_ms == expected


@pytest.mark.parametrize(
    ("header", "code"),
    [("0", "OUT_OF_RANGE"), ("-1", "BAD_FORMAT"), ("1.5", "BAD_FORMAT"), ("", "BAD_FORMAT"), ("²", "BAD_FORMAT")],
)
async def test_a_patience_that_is_none_is_a_fault_of_its_header(
    door: CashierApp, engine: FakeEngine, header: str, code: str
) -> None:
    got = await call(door, headers=JSON | {"X-Request-Timeout-Ms": header})
    assert got.problem() == (422, "INVALID")
    assert [(each["field"], each["code"]) for each in got.json["errors"]] == [("X-Request-Timeout-Ms", code)]
    assert not engine.asked


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "BREW"])
async def test_a_consultation_is_asked_for_with_post_only(door: CashierApp, method: str) -> None:
    got = await call(door, method=method)
    assert got.problem() == (405, "METHOD_NOT_ALLOWED")
    assert got.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "",
        "json",
        "application/xml; q=application/json",
    ],
)
async def test_a_body_that_is_said_to_be_something_else_is_refused(door: CashierApp, content_type: str) -> None:
    assert (await call(door, headers={"content-type": content_type})).problem() == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/vnd.shop+json"],
)
async def test_json_by_its_other_names_is_read(door: CashierApp, content_type: str) -> None:
    assert (await call(door, headers={"content-type": content_type})).status == 200


async def test_a_body_without_a_type_is_read(door: CashierApp) -> None:
    assert (await call(door, headers={})).status == 200


async def test_a_compressed_body_is_refused(door: CashierApp) -> None:
    assert (await call(door, headers=JSON | {"content-encoding": "gzip"})).problem() == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize("declared", ["1001", "9" * 30])
async def test_a_body_declared_too_large_is_refused_unread(door: CashierApp, declared: str) -> None:
    wire, got = Wire([request(BODY)]), Got()
    await door(scope("POST", "/v1/consult", JSON | {"content-length": declared}), wire.receive, got.send)
    assert got.problem() == (413, "TOO_LARGE")
    assert wire.received == 0


async def test_a_body_that_grows_too_large_is_refused_where_it_does(door: CashierApp, engine: FakeEngine) -> None:
    wire, got = Wire([request(b" " * 400, more=True) for _ in range(100)]), Got()
    await door(scope("POST", "/v1/consult", JSON), wire.receive, got.send)
    assert got.problem() == (413, "TOO_LARGE")
    assert wire.received == 3
    assert not engine.asked


@pytest.mark.parametrize(("padding", "status"), [(0, 200), (1, 413)])
async def test_the_limit_itself_is_allowed(door: CashierApp, padding: int, status: int) -> None:
    assert (await call(door, BODY + b" " * (1000 - len(BODY) + padding))).status == status
    pieces = [request(BODY, more=True), request(b" " * (1000 - len(BODY) + padding))]
    got = Got()
    await door(scope("POST", "/v1/consult", JSON), Wire(pieces).receive, got.send)
    assert got.status == status


async def test_a_body_in_pieces_is_one_body(door: CashierApp) -> None:
    wire, got = Wire([request(BODY[at : at + 7], more=True) for at in range(0, len(BODY), 7)] + [request(b"")]), Got()
    await door(scope("POST", "/v1/consult", JSON), wire.receive, got.send)
    assert got.status == 200


async def test_nothing_is_sent_to_a_client_that_left_in_the_middle_of_its_body(
    door: CashierApp, engine: FakeEngine
) -> None:
    for messages in ([{"type": "http.disconnect"}], [request(BODY[:9], more=True), {"type": "http.disconnect"}]):
        got = Got()
        await door(scope("POST", "/v1/consult", JSON), Wire(messages).receive, got.send)
        assert got.status is None
    assert not engine.asked


async def test_an_order_that_nobody_knows_is_a_problem(door: CashierApp, engine: FakeEngine) -> None:
    engine.raises = OrderUnknown("o_1001")
    assert (await call(door)).problem() == (404, "ORDER_UNKNOWN")


async def test_a_silent_required_source_is_named_with_what_the_others_did(door: CashierApp, engine: FakeEngine) -> None:
    engine.raises = RequiredSourceUnavailable(SOURCES, ("order",))
    got = await call(door)
    assert got.problem() == (503, "REQUIRED_SOURCE_UNAVAILABLE")
    assert got.headers["retry-after"] == "1"
    assert [each["name"] for each in got.json["sources"]] == [source.name for source in SOURCES]
    assert 'quota;dur=7.4;desc="TIMEOUT"' in got.headers["server-timing"]


async def test_our_own_bug_is_logged_with_the_request_id_and_not_told(door: CashierApp, engine: FakeEngine) -> None:
    engine.raises = ZeroDivisionError("the secret is 4711")
    with capture_logs() as logs:
        got = await call(door, headers=JSON | {"X-Request-Id": "r-1"})
    assert got.problem() == (500, "INTERNAL")
    assert b"4711" not in got.body
    assert b"ZeroDivision" not in got.body
    assert [(log["log_level"], log["request_id"]) for log in logs] == [("error", "r-1")]


async def test_every_problem_carries_its_request_id_and_timing(door: CashierApp) -> None:
    got = await call(door, b"{", headers=JSON | {"X-Request-Id": "r-1"})
    assert got.problem() == (400, "MALFORMED")
    assert got.headers["x-request-id"] == "r-1"
    assert got.headers["server-timing"].startswith("total;dur=")
    assert got.headers["cache-control"] == "no-store"


@pytest.mark.looptime
async def test_a_client_that_leaves_while_a_slow_consultation_runs_ends_it(
    door: CashierApp, engine: FakeEngine
) -> None:
    engine.open.clear()
    visitor = Visitor(door, BODY)
    await engine.entered.wait()
    visitor.wire.hang_up()
    await visitor.over()
    assert engine.cancelled.is_set()
    assert visitor.got.status is None


@pytest.mark.looptime
async def test_a_slow_consultation_is_answered_to_a_client_that_stays(door: CashierApp, engine: FakeEngine) -> None:
    engine.open.clear()
    visitor = Visitor(door, BODY)
    await engine.entered.wait()
    await asyncio.sleep(0.5)
    engine.open.set()
    await visitor.over()
    assert visitor.got.status == 200
    assert len(asyncio.all_tasks()) == 1


async def test_a_quick_consultation_is_not_watched(door: CashierApp) -> None:
    wire, got = Wire([request(BODY)]), Got()
    await door(scope("POST", "/v1/consult", JSON), wire.receive, got.send)
    assert wire.received == 1
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.looptime
async def test_a_body_that_takes_too_long_is_given_up(door: CashierApp, engine: FakeEngine) -> None:
    visitor = Visitor(door, BODY[:20], more=True)
    began = asyncio.get_running_loop().time()
    await visitor.over()
    assert asyncio.get_running_loop().time() - began == pytest.approx(2.0, abs=0.11)
    assert visitor.got.problem() == (408, "BODY_TIMEOUT")
    assert visitor.got.headers["connection"] == "close"
    assert not engine.asked


@pytest.mark.looptime
async def test_being_cancelled_by_the_server_is_not_mistaken_for_a_client_that_left(
    door: CashierApp, engine: FakeEngine
) -> None:
    engine.open.clear()
    visitor = Visitor(door, BODY)
    await engine.entered.wait()
    visitor.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await visitor.over()


@pytest.mark.looptime
async def test_nothing_ticks_when_nobody_is_there(door: CashierApp) -> None:
    await call(door)
    await asyncio.sleep(1)
    assert "requests=0 sweeping=False" in repr(door)
