"""Retries on a reused connection that the upstream closes: what is sent again once, what never."""

from __future__ import annotations

import pytest

from cashier.source_errors import Unreachable
from cashier.wire.transport import Response
from tests.wire.client_side import OK, answer, send, settle

from .conftest import Wired, exchange

HELLO = Response(200, b"hello")


async def test_a_request_on_a_reused_connection_that_closes_is_sent_again_once(wired: Wired) -> None:
    peer = await exchange(wired)
    call = send(wired.transport, "/again")
    first = await peer.read_request()
    peer.close()
    fresh = await wired.upstream.peer()
    second = await fresh.read_request()
    assert second.line == first.line == "GET /again HTTP/1.1"
    fresh.write(answer(b"hello"))
    assert await call.outcome() == HELLO
    await exchange(wired, fresh)


async def test_a_request_is_not_sent_a_third_time(wired: Wired) -> None:
    peer = await exchange(wired)
    call = send(wired.transport, "/again")
    await peer.read_request()
    peer.close()
    fresh = await wired.upstream.peer()
    await fresh.read_request()
    fresh.close()
    assert isinstance(await call.outcome(), Unreachable)
    assert wired.upstream.untaken == 0


@pytest.mark.parametrize("method", ["POST", "GET", "PUT"])
async def test_an_unsafe_request_is_never_sent_twice(wired: Wired, method: str) -> None:
    peer = await exchange(wired, safe=False)
    call = send(wired.transport, "/pay", method=method, safe=False)
    await peer.read_request()
    peer.close()
    assert isinstance(await call.outcome(), Unreachable)
    assert wired.upstream.untaken == 0


async def test_a_safe_post_is_sent_again_with_its_body(wired: Wired) -> None:
    peer = await exchange(wired)
    call = send(wired.transport, "/batch", method="POST", body=b"[1]")
    await peer.read_request()
    peer.close()
    fresh = await wired.upstream.peer()
    assert (await fresh.read_request()).body == b"[1]"
    fresh.write(answer(b"hello"))
    assert await call.outcome() == HELLO


async def test_a_new_connection_that_closes_causes_no_retry(wired: Wired) -> None:
    call = send(wired.transport)
    peer = await wired.upstream.peer()
    await peer.read_request()
    peer.close()
    assert isinstance(await call.outcome(), Unreachable)
    assert wired.upstream.untaken == 0


async def test_after_part_of_an_answer_nothing_is_sent_again(wired: Wired) -> None:
    peer = await exchange(wired)
    call = send(wired.transport)
    await peer.read_request()
    peer.write(OK + b"Content-Length: 5\r\n\r\nhe")
    peer.close()
    assert isinstance(await call.outcome(), Unreachable)
    assert wired.upstream.untaken == 0


async def test_an_abandoned_call_is_not_retried(wired: Wired) -> None:
    peer = await exchange(wired)
    call = send(wired.transport, "/again")
    await peer.read_request()
    call.abandon()
    peer.close()
    following = send(wired.transport, "/following")
    fresh = await wired.upstream.peer()
    assert (await fresh.read_request()).line == "GET /following HTTP/1.1"
    fresh.write(answer(b"hello"))
    assert await following.outcome() == HELLO
    assert call.outcomes == []


async def test_a_connection_closed_while_idle_is_not_used(wired: Wired) -> None:
    peer = await exchange(wired, safe=False)
    peer.close()
    await settle()
    call = send(wired.transport, "/pay", method="POST", safe=False)
    fresh = await wired.upstream.peer()
    await fresh.read_request()
    fresh.write(answer(b"hello"))
    assert await call.outcome() == HELLO


async def test_an_unsolicited_answer_reaches_no_call(wired: Wired) -> None:
    peer = await exchange(wired, safe=False)
    peer.write(answer(b"WRONG"))
    if wired.client == "http1":
        await peer.wait_closed()
    else:  # aiohttp notices only before it uses the connection, so the answer must have arrived
        await settle()
    call = send(wired.transport, "/following", method="POST", safe=False)
    fresh = await wired.upstream.peer()
    assert (await fresh.read_request()).line == "POST /following HTTP/1.1"
    fresh.write(answer(b"hello"))
    assert await call.outcome() == HELLO
