"""What holds for every transport and every kind of address: how calls end, are repeated, abandoned and closed."""

from __future__ import annotations

import asyncio

import pytest

from cashier.source_errors import SourceError, Unreachable
from cashier.wire.aiohttp_client import AiohttpHostPool
from cashier.wire.host_pool import HostPool
from cashier.wire.transport import CallHeaders, Request, Response
from tests.wire.asking import OK, CALL_HEADERS, Asked, answer, arrival, ask, until
from tests.wire.conftest import Wired, answered

HELLO = Response(200, b"hello")


async def test_a_question_carries_all_that_the_contract_wants_and_nothing_else(wired: Wired) -> None:
    call_headers = CallHeaders("r-77", traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    asked = Asked(wired.wire, Request("/members/u_1/cards?currency=CNY"), call_headers, budget_ms=87)
    peer = await wired.upstream.peer()
    question = await peer.question()
    peer.say(answer(b"hello"))
    assert await asked.outcome() == HELLO
    assert question.line == "GET /members/u_1/cards?currency=CNY HTTP/1.1"
    host = question.headers.pop("host")
    assert host == ("localhost" if not wired.upstream.port else f"127.0.0.1:{wired.upstream.port}")
    assert int(question.headers.pop("x-deadline-ms")) in range(1, 88)
    assert question.headers == {
        "x-request-id": "r-77",
        "x-caller": "cashier",
        "accept": "application/json",
        "accept-encoding": "identity",
        "traceparent": call_headers.traceparent,
    }


async def test_without_a_trace_there_is_no_traceparent(wired: Wired) -> None:
    asked = ask(wired.wire)
    question = await (await wired.upstream.peer()).question()
    asked.exchange.abandon()
    assert "traceparent" not in question.headers


@pytest.mark.parametrize("body", [b'{"requests": []}', b""], ids=["with a body", "without a body"])
async def test_a_post_announces_its_body(wired: Wired, body: bytes) -> None:
    asked = ask(wired.wire, "/batch", method="POST", body=body)
    peer = await wired.upstream.peer()
    question = await peer.question()
    peer.say(answer(b"hello"))
    assert await asked.outcome() == HELLO
    assert question.body == body
    assert question.headers["content-length"] == str(len(body))
    assert question.headers["content-type"] == "application/json"


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
    ],
    ids=repr,
)
async def test_what_could_begin_another_header_is_refused_before_anything_is_sent(
    wired: Wired, request_: Request, call_headers: CallHeaders
) -> None:
    replies: list[Response | SourceError] = []
    with pytest.raises(ValueError, match=r"must be printable|is not a path|is not one of"):
        wired.wire.send(request_, call_headers, 100, replies.append)
    await answered(wired)
    assert wired.upstream.unseen == 0
    assert replies == []


async def test_one_connection_serves_one_question_after_the_other(wired: Wired) -> None:
    peer = await answered(wired)
    for _ in range(3):
        await answered(wired, peer)
    assert wired.upstream.unseen == 0


async def test_two_questions_at_once_have_a_connection_each(wired: Wired) -> None:
    asked = {"/a": ask(wired.wire, "/a"), "/b": ask(wired.wire, "/b")}
    for _ in range(2):
        peer = await wired.upstream.peer()
        target = (await peer.question()).line.split()[1]
        peer.say(answer(target.encode()))
    for target, each in asked.items():
        assert await each.outcome() == Response(200, target.encode())


@pytest.mark.parametrize(
    "said",
    [answer(b"hello"), OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nX-Sum: 1\r\n\r\n"],
    ids=["length", "chunks"],
)
async def test_an_answer_that_comes_byte_by_byte_is_an_answer(wired: Wired, said: bytes) -> None:
    asked = ask(wired.wire)
    peer = await wired.upstream.peer()
    await peer.question()
    await peer.say_slowly(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + said)
    assert await asked.outcome() == HELLO
    await answered(wired, peer)


@pytest.mark.parametrize(
    "said",
    [b"", OK, OK + b"Content-Length: 5\r\n\r\nhe", OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhe"],
    ids=["before a word", "within the head", "within the body", "within a chunk"],
)
async def test_an_abandoned_call_is_never_answered_and_its_answer_goes_to_nobody(wired: Wired, said: bytes) -> None:
    abandoned = ask(wired.wire, "/abandoned")
    peer = await wired.upstream.peer()
    await peer.question()
    await peer.say_slowly(said)
    abandoned.exchange.abandon()
    abandoned.exchange.abandon()
    following = ask(wired.wire, "/following")
    await peer.gone()
    fresh = await wired.upstream.peer()
    assert (await fresh.question()).line == "GET /following HTTP/1.1"
    fresh.say(answer(b"hello"))
    assert await following.outcome() == HELLO
    assert abandoned.outcomes == []


async def test_a_late_answer_to_an_abandoned_call_meets_a_closed_connection(wired: Wired) -> None:
    peer = await answered(wired)
    abandoned = ask(wired.wire, "/abandoned")
    await peer.question()
    abandoned.exchange.abandon()
    peer.say(answer(b"WRONG"))
    following = ask(wired.wire, "/following")
    fresh = await wired.upstream.peer()
    assert (await fresh.question()).line == "GET /following HTTP/1.1"
    fresh.say(answer(b"hello"))
    assert await following.outcome() == HELLO
    assert abandoned.outcomes == []


async def test_abandoning_after_the_reply_changes_nothing(wired: Wired) -> None:
    asked = ask(wired.wire)
    peer = await wired.upstream.peer()
    await peer.question()
    peer.say(answer(b"hello"))
    assert await asked.outcome() == HELLO
    asked.exchange.abandon()
    await answered(wired, peer)


async def test_a_call_abandoned_at_once_is_not_sent(wired: Wired) -> None:
    abandoned = ask(wired.wire, "/abandoned")
    abandoned.exchange.abandon()
    following = ask(wired.wire, "/following")
    # The connection begun for the first may serve the second, or stay spare.
    peer = await wired.upstream.asked()
    assert (await peer.question()).line == "GET /following HTTP/1.1"
    peer.say(answer(b"hello"))
    assert await following.outcome() == HELLO
    assert abandoned.outcomes == []


async def test_a_reply_that_raises_goes_to_the_loop_and_harms_no_connection(wired: Wired) -> None:
    loop = asyncio.get_running_loop()
    bugs: list[BaseException] = []
    loop.set_exception_handler(lambda _loop, context: bugs.append(context["exception"]))

    def buggy(_outcome: Response | SourceError) -> None:
        raise LookupError("ours")

    wired.wire.send(Request("/a"), CALL_HEADERS, 100, buggy)
    peer = await wired.upstream.peer()
    await peer.question()
    peer.say(answer(b"hello"))
    await until(lambda: bool(bugs))
    assert [str(bug) for bug in bugs] == ["ours"]
    await answered(wired, peer)


async def test_a_bug_on_the_way_to_the_upstream_is_reported_and_told(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    bugs: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: bugs.append(context["exception"]))

    async def buggy(*_: object) -> None:
        raise LookupError("ours")

    monkeypatch.setattr(HostPool, "connect", buggy)
    monkeypatch.setattr(AiohttpHostPool, "send", buggy)
    outcome = await ask(wired.wire).outcome()
    assert isinstance(outcome, Unreachable)
    assert "LookupError" in outcome.detail
    await until(lambda: bool(bugs))
    assert [str(bug) for bug in bugs] == ["ours"]


async def test_a_question_asked_from_within_a_reply_uses_the_connection_just_freed(wired: Wired) -> None:
    following: list[Asked] = []
    wired.wire.send(Request("/a"), CALL_HEADERS, 100, lambda _outcome: following.append(ask(wired.wire, "/b")))
    peer = await wired.upstream.peer()
    await peer.question()
    peer.say(answer(b"first"))
    assert (await peer.question()).line == "GET /b HTTP/1.1"
    peer.say(answer(b"hello"))
    assert await following[0].outcome() == HELLO


async def test_close_ends_what_is_under_way_with_unreachable(wired: Wired) -> None:
    await answered(wired)
    asked = [ask(wired.wire) for _ in range(3)]
    await wired.wire.close()
    for each in asked:
        assert isinstance(await each.outcome(), Unreachable)


async def test_after_close_every_call_is_unreachable_but_not_at_once(wired: Wired) -> None:
    await wired.wire.close()
    asked = ask(wired.wire)
    assert isinstance(await asked.outcome(), Unreachable)
    gone = ask(wired.wire)
    gone.exchange.abandon()
    await arrival()
    assert gone.outcomes == []


async def test_closing_twice_is_closing_once(wired: Wired) -> None:
    await answered(wired)
    await asyncio.gather(wired.wire.close(), wired.wire.close())
    await wired.wire.close()
