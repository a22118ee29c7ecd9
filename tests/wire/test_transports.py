"""Calls on every transport and kind of address: their end, abandonment and closing."""

from __future__ import annotations

import asyncio
from contextvars import Context, ContextVar

import pytest

from cashier.source_errors import SourceError, Unreachable
from cashier.wire.aiohttp_client import AiohttpHostPool
from cashier.wire.host_pool import HostPool
from cashier.wire.transport import CallHeaders, Request, Response
from tests.wire.client_side import CALL_HEADERS, OK, RecordedCall, answer, send, settle, until
from tests.wire.conftest import Wired, exchange

HELLO = Response(200, b"hello")
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_a_request_has_the_headers_of_the_contract_and_no_others(wired: Wired) -> None:
    call_headers = CallHeaders("r-77", traceparent=TRACEPARENT)
    call = RecordedCall(wired.transport, Request("/members/u_1/cards?currency=CNY"), call_headers, budget_ms=87)
    peer = await wired.upstream.peer()
    request = await peer.read_request()
    peer.write(answer(b"hello"))
    assert await call.outcome() == HELLO
    assert request.line == "GET /members/u_1/cards?currency=CNY HTTP/1.1"
    host = request.headers.pop("host")
    assert host == ("localhost" if not wired.upstream.port else f"127.0.0.1:{wired.upstream.port}")
    assert int(request.headers.pop("x-deadline-ms")) in range(1, 88)
    assert request.headers == {
        "x-request-id": "r-77",
        "x-caller": "cashier",
        "accept": "application/json",
        "accept-encoding": "identity",
        "traceparent": call_headers.traceparent,
    }


async def test_without_a_trace_there_is_no_traceparent(wired: Wired) -> None:
    call = send(wired.transport)
    request = await (await wired.upstream.peer()).read_request()
    call.abandon()
    assert not {"traceparent", "tracestate"} & set(request.headers)


async def test_a_tracestate_is_sent_with_its_traceparent(wired: Wired) -> None:
    call = RecordedCall(wired.transport, Request("/a"), CallHeaders("r-77", TRACEPARENT, "rojo=1,congo=a b"))
    request = await (await wired.upstream.peer()).read_request()
    call.call.abandon()
    assert (request.headers["traceparent"], request.headers["tracestate"]) == (TRACEPARENT, "rojo=1,congo=a b")


@pytest.mark.parametrize("body", [b'{"requests": []}', b""], ids=["with a body", "without a body"])
async def test_a_post_has_length_and_type_of_its_body(wired: Wired, body: bytes) -> None:
    call = send(wired.transport, "/batch", method="POST", body=body)
    peer = await wired.upstream.peer()
    request = await peer.read_request()
    peer.write(answer(b"hello"))
    assert await call.outcome() == HELLO
    assert request.body == body
    assert request.headers["content-length"] == str(len(body))
    assert request.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("request_", "call_headers"),
    [
        (Request("/a\r\nX-Injected: 1"), CALL_HEADERS),
        (Request("/a b"), CALL_HEADERS),
        (Request("/ä"), CALL_HEADERS),
        (Request("/a\x00"), CALL_HEADERS),
        (Request(""), CALL_HEADERS),
        (Request("http://elsewhere/a"), CALL_HEADERS),
        (Request("/a#b"), CALL_HEADERS),
        (Request("/a", method="GET / HTTP/1.1\r\nX: "), CALL_HEADERS),
        (Request("/a", method="HEAD"), CALL_HEADERS),
        (Request("/a"), CallHeaders("r\r\nX-Injected: 1")),
        (Request("/a"), CallHeaders("r\nX-Injected: 1")),
        (Request("/a"), CallHeaders("ü")),
        (Request("/a"), CallHeaders("")),
        (Request("/a"), CallHeaders("r", traceparent="00\r\nX-Injected: 1")),
        (Request("/a"), CallHeaders("r", TRACEPARENT, tracestate="a=1\r\nX-Injected: 1")),
        (Request("/a"), CallHeaders("r", TRACEPARENT, tracestate="a=ä")),
    ],
    ids=repr,
)
async def test_header_injection_is_refused_before_anything_is_sent(
    wired: Wired, request_: Request, call_headers: CallHeaders
) -> None:
    replies: list[Response | SourceError] = []
    with pytest.raises(ValueError, match=r"must be printable|is not a path|is not one of"):
        wired.transport.send(request_, call_headers, 100, replies.append)
    await exchange(wired)
    assert wired.upstream.untaken == 0
    assert replies == []


async def test_one_connection_serves_successive_requests(wired: Wired) -> None:
    peer = await exchange(wired)
    for _ in range(3):
        await exchange(wired, peer)
    assert wired.upstream.untaken == 0


CALLER: ContextVar[str] = ContextVar("caller", default="none")


class NotingCall(RecordedCall):
    """Notes whose context its answer comes in."""

    caller = ""

    def _on_response(self, outcome: Response | SourceError) -> None:
        self.caller = CALLER.get()
        super()._on_response(outcome)


async def test_an_answer_comes_in_no_other_callers_context(wired: Wired) -> None:
    """A log line about it must not have what belongs to the request that opened the connection."""
    peer = None
    for name in ("first", "second", "third"):
        context = Context()
        context.run(CALLER.set, name)
        call = context.run(NotingCall, wired.transport, Request("/thing"))
        peer = peer or await wired.upstream.peer()
        await peer.read_request()
        peer.write(answer(b"hello"))
        assert await call.outcome() == HELLO
        assert call.caller in ("none", name)


async def test_concurrent_requests_have_a_connection_each(wired: Wired) -> None:
    calls = {"/a": send(wired.transport, "/a"), "/b": send(wired.transport, "/b")}
    for _ in range(2):
        peer = await wired.upstream.peer()
        target = (await peer.read_request()).line.split()[1]
        peer.write(answer(target.encode()))
    for target, call in calls.items():
        assert await call.outcome() == Response(200, target.encode())


@pytest.mark.parametrize(
    "data",
    [answer(b"hello"), OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nX-Sum: 1\r\n\r\n"],
    ids=["length", "chunks"],
)
async def test_an_answer_that_arrives_byte_by_byte_is_complete(wired: Wired, data: bytes) -> None:
    call = send(wired.transport)
    peer = await wired.upstream.peer()
    await peer.read_request()
    await peer.write_slowly(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + data)
    assert await call.outcome() == HELLO
    await exchange(wired, peer)


@pytest.mark.parametrize(
    "data",
    [b"", OK, OK + b"Content-Length: 5\r\n\r\nhe", OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhe"],
    ids=["before any byte", "within the head", "within the body", "within a chunk"],
)
async def test_an_abandoned_call_gets_no_answer_and_its_answer_reaches_no_other(wired: Wired, data: bytes) -> None:
    abandoned = send(wired.transport, "/abandoned")
    peer = await wired.upstream.peer()
    await peer.read_request()
    await peer.write_slowly(data)
    abandoned.abandon()
    abandoned.abandon()
    following = send(wired.transport, "/following")
    await peer.wait_closed()
    fresh = await wired.upstream.peer()
    assert (await fresh.read_request()).line == "GET /following HTTP/1.1"
    fresh.write(answer(b"hello"))
    assert await following.outcome() == HELLO
    assert abandoned.outcomes == []


async def test_a_late_answer_to_an_abandoned_call_is_dropped_with_its_connection(wired: Wired) -> None:
    peer = await exchange(wired)
    abandoned = send(wired.transport, "/abandoned")
    await peer.read_request()
    abandoned.abandon()
    peer.write(answer(b"WRONG"))
    following = send(wired.transport, "/following")
    fresh = await wired.upstream.peer()
    assert (await fresh.read_request()).line == "GET /following HTTP/1.1"
    fresh.write(answer(b"hello"))
    assert await following.outcome() == HELLO
    assert abandoned.outcomes == []


async def test_abandoning_after_the_outcome_changes_nothing(wired: Wired) -> None:
    call = send(wired.transport)
    peer = await wired.upstream.peer()
    await peer.read_request()
    peer.write(answer(b"hello"))
    assert await call.outcome() == HELLO
    call.abandon()
    await exchange(wired, peer)


async def test_a_call_abandoned_at_once_is_not_sent(wired: Wired) -> None:
    abandoned = send(wired.transport, "/abandoned")
    abandoned.abandon()
    following = send(wired.transport, "/following")
    # The connection opened for the first may serve the second, or stay idle.
    peer = await wired.upstream.peer_with_request()
    assert (await peer.read_request()).line == "GET /following HTTP/1.1"
    peer.write(answer(b"hello"))
    assert await following.outcome() == HELLO
    assert abandoned.outcomes == []


async def test_a_callback_that_raises_is_reported_to_the_loop_and_harms_no_connection(wired: Wired) -> None:
    loop = asyncio.get_running_loop()
    bugs: list[BaseException] = []
    loop.set_exception_handler(lambda _loop, context: bugs.append(context["exception"]))

    def buggy(_outcome: Response | SourceError) -> None:
        raise LookupError("ours")

    wired.transport.send(Request("/a"), CALL_HEADERS, 100, buggy)
    peer = await wired.upstream.peer()
    await peer.read_request()
    peer.write(answer(b"hello"))
    await until(lambda: bool(bugs))
    assert [str(bug) for bug in bugs] == ["ours"]
    await exchange(wired, peer)


async def test_a_bug_while_sending_is_reported_and_still_ends_the_call(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    bugs: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: bugs.append(context["exception"]))

    async def buggy(*_: object) -> None:
        raise LookupError("ours")

    monkeypatch.setattr(HostPool, "connect", buggy)
    monkeypatch.setattr(AiohttpHostPool, "send", buggy)
    outcome = await send(wired.transport).outcome()
    assert isinstance(outcome, Unreachable)
    assert "LookupError" in outcome.detail
    await until(lambda: bool(bugs))
    assert [str(bug) for bug in bugs] == ["ours"]


async def test_a_request_from_within_a_callback_uses_the_connection_just_freed(wired: Wired) -> None:
    following: list[RecordedCall] = []
    wired.transport.send(
        Request("/a"), CALL_HEADERS, 100, lambda _outcome: following.append(send(wired.transport, "/b"))
    )
    peer = await wired.upstream.peer()
    await peer.read_request()
    peer.write(answer(b"first"))
    assert (await peer.read_request()).line == "GET /b HTTP/1.1"
    peer.write(answer(b"hello"))
    assert await following[0].outcome() == HELLO


async def test_close_ends_outstanding_calls_with_unreachable(wired: Wired) -> None:
    await exchange(wired)
    calls = [send(wired.transport) for _ in range(3)]
    await wired.transport.close()
    for call in calls:
        assert isinstance(await call.outcome(), Unreachable)


async def test_after_close_every_call_ends_unreachable_but_not_synchronously(wired: Wired) -> None:
    await wired.transport.close()
    call = send(wired.transport)
    assert isinstance(await call.outcome(), Unreachable)
    abandoned = send(wired.transport)
    abandoned.abandon()
    await settle()
    assert abandoned.outcomes == []


async def test_close_is_idempotent(wired: Wired) -> None:
    await exchange(wired)
    await asyncio.gather(wired.transport.close(), wired.transport.close())
    await wired.transport.close()
