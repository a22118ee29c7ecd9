"""A kept connection that the upstream had closed: what is sent again, once, and what never is."""

from __future__ import annotations

import pytest

from cashier.source_errors import Unreachable
from cashier.wire.transport import Response

from .asking import OK, answer, arrival, ask
from .conftest import Wired, answered

HELLO = Response(200, b"hello")


async def test_a_kept_connection_closed_under_a_question_is_replaced_once(wired: Wired) -> None:
    peer = await answered(wired)
    asked = ask(wired.wire, "/again")
    first = await peer.question()
    peer.hang_up()
    fresh = await wired.upstream.peer()
    second = await fresh.question()
    assert second.line == first.line == "GET /again HTTP/1.1"
    fresh.say(answer(b"hello"))
    assert await asked.outcome() == HELLO
    await answered(wired, fresh)


async def test_a_question_is_not_sent_a_third_time(wired: Wired) -> None:
    peer = await answered(wired)
    asked = ask(wired.wire, "/again")
    await peer.question()
    peer.hang_up()
    fresh = await wired.upstream.peer()
    await fresh.question()
    fresh.hang_up()
    assert isinstance(await asked.outcome(), Unreachable)
    assert wired.upstream.unseen == 0


@pytest.mark.parametrize("method", ["POST", "GET", "PUT"])
async def test_what_is_not_safe_is_never_sent_twice(wired: Wired, method: str) -> None:
    peer = await answered(wired, safe=False)
    asked = ask(wired.wire, "/pay", method=method, safe=False)
    await peer.question()
    peer.hang_up()
    assert isinstance(await asked.outcome(), Unreachable)
    assert wired.upstream.unseen == 0


async def test_a_safe_post_is_sent_again_with_its_body(wired: Wired) -> None:
    peer = await answered(wired)
    asked = ask(wired.wire, "/batch", method="POST", body=b"[1]")
    await peer.question()
    peer.hang_up()
    fresh = await wired.upstream.peer()
    assert (await fresh.question()).body == b"[1]"
    fresh.say(answer(b"hello"))
    assert await asked.outcome() == HELLO


async def test_a_fresh_connection_that_closes_is_no_reason_to_ask_again(wired: Wired) -> None:
    asked = ask(wired.wire)
    peer = await wired.upstream.peer()
    await peer.question()
    peer.hang_up()
    assert isinstance(await asked.outcome(), Unreachable)
    assert wired.upstream.unseen == 0


async def test_once_part_of_an_answer_has_come_nothing_is_sent_again(wired: Wired) -> None:
    peer = await answered(wired)
    asked = ask(wired.wire)
    await peer.question()
    peer.say(OK + b"Content-Length: 5\r\n\r\nhe")
    peer.hang_up()
    assert isinstance(await asked.outcome(), Unreachable)
    assert wired.upstream.unseen == 0


async def test_a_retry_that_nobody_waits_for_is_not_sent(wired: Wired) -> None:
    peer = await answered(wired)
    asked = ask(wired.wire, "/again")
    await peer.question()
    asked.exchange.abandon()
    peer.hang_up()
    following = ask(wired.wire, "/following")
    fresh = await wired.upstream.peer()
    assert (await fresh.question()).line == "GET /following HTTP/1.1"
    fresh.say(answer(b"hello"))
    assert await following.outcome() == HELLO
    assert asked.outcomes == []


async def test_a_kept_connection_closed_while_idle_is_not_used(wired: Wired) -> None:
    peer = await answered(wired, safe=False)
    peer.hang_up()
    await arrival()
    asked = ask(wired.wire, "/pay", method="POST", safe=False)
    fresh = await wired.upstream.peer()
    await fresh.question()
    fresh.say(answer(b"hello"))
    assert await asked.outcome() == HELLO


async def test_an_answer_to_nobodys_question_answers_nobody(wired: Wired) -> None:
    peer = await answered(wired, safe=False)
    peer.say(answer(b"WRONG"))
    if wired.client == "http1":
        await peer.gone()
    else:  # aiohttp notices when it wants to use the connection, so let the answer arrive
        await arrival()
    asked = ask(wired.wire, "/following", method="POST", safe=False)
    fresh = await wired.upstream.peer()
    assert (await fresh.question()).line == "POST /following HTTP/1.1"
    fresh.say(answer(b"hello"))
    assert await asked.outcome() == HELLO
