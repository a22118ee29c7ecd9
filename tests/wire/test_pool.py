"""The pool of `http1`: assignment, queueing and expiry of connections. Its `repr` is the oracle."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest

from cashier.source_errors import Shed, Unreachable
from cashier.wire.http1 import Http1Client, Http1Settings
from cashier.wire.transport import Request, Response
from tests.wire.client_side import CALL_HEADERS, PATIENT, RecordedCall, answer, no_leaks, send, until
from tests.wire.scripted_upstream import Peer, Upstream, silent_listener, tcp_upstream, unused_port

HELLO = Response(200, b"hello")


class State(NamedTuple):
    queued: int
    open: int
    idle: int
    outstanding: int
    connecting: int


def state(transport: Http1Client, address_index: int = 0) -> State:
    counts = re.findall(r": (\d+) open, (\d+) idle, (\d+) outstanding, (\d+) connecting>", repr(transport))
    queued = re.match(r"<Http1Client (\d+) queued, ", repr(transport))
    assert queued is not None
    return State(int(queued.group(1)), *map(int, counts[address_index]))


@contextlib.asynccontextmanager
async def pool(*upstreams: Upstream | int, **settings: Any) -> AsyncIterator[Http1Client]:
    """A client of these upstreams or ports, without connections ahead unless requested."""
    urls = [f"http://127.0.0.1:{upstream if isinstance(upstream, int) else upstream.port}" for upstream in upstreams]
    transport = Http1Client(urls, Http1Settings(**{"ahead": 0, **PATIENT, **settings}))
    await transport.open()
    try:
        yield transport
    finally:
        await transport.close()
    assert all(state(transport, index) == (0, 0, 0, 0, 0) for index in range(len(urls)))


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with no_leaks(), tcp_upstream() as upstream:
        yield upstream


@pytest.fixture
async def other(upstream: Upstream) -> AsyncIterator[Upstream]:
    async with tcp_upstream() as other:
        yield other


async def finish(peer: Peer, call: RecordedCall) -> None:
    await peer.read_request()
    peer.write(answer(b"hello"))
    assert await call.outcome() == HELLO


async def test_connections_are_opened_ahead_of_any_request(upstream: Upstream) -> None:
    async with pool(upstream, ahead=2) as transport:
        assert state(transport) == State(queued=0, open=2, idle=2, outstanding=0, connecting=0)
        call = send(transport)
        assert state(transport) == State(queued=0, open=2, idle=1, outstanding=1, connecting=0)
        call.abandon()


async def test_no_more_connections_are_opened_ahead_than_allowed(upstream: Upstream) -> None:
    async with pool(upstream, ahead=5, connections=3) as transport:
        assert state(transport).open == 3


async def test_opening_ahead_to_an_unreachable_address_is_no_error() -> None:
    async with no_leaks(), pool(unused_port(), ahead=2) as transport:
        assert state(transport) == State(queued=0, open=0, idle=0, outstanding=0, connecting=0)
        assert isinstance(await send(transport).outcome(), Unreachable)


async def test_the_connection_used_last_is_used_next(upstream: Upstream) -> None:
    async with pool(upstream) as transport:
        first, second = send(transport), send(transport)
        early, late = await upstream.peer(), await upstream.peer()
        await finish(early, first)
        await finish(late, second)
        third = send(transport)
        await finish(late, third)


async def test_nagles_algorithm_is_off(upstream: Upstream) -> None:
    async with pool(upstream, ahead=1) as transport:
        (connection,) = transport._pools[0].idle
        raw = connection._transport.get_extra_info("socket")
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_calls_beyond_the_connections_wait_and_are_served_in_order(upstream: Upstream) -> None:
    async with pool(upstream, connections=1) as transport:
        first, second, third = send(transport, "/1"), send(transport, "/2"), send(transport, "/3")
        peer = await upstream.peer()
        for number, call in enumerate((first, second, third), 1):
            assert (await peer.read_request()).line == f"GET /{number} HTTP/1.1"
            assert state(transport) == State(queued=3 - number, open=1, idle=0, outstanding=1, connecting=0)
            peer.write(answer(b"hello"))
            assert await call.outcome() == HELLO
        assert upstream.untaken == 0


async def test_a_full_queue_refuses_without_waiting_but_after_send_returned(upstream: Upstream) -> None:
    async with pool(upstream, connections=1, queue=2, ahead=1) as transport:
        under_way, *queued = [send(transport) for _ in range(3)]
        refused = send(transport)
        assert state(transport).queued == 2
        assert isinstance(await refused.outcome(), Shed)
        assert not under_way.outcomes
        assert not any(call.outcomes for call in queued)
        queued[0].abandon()
        assert state(transport).queued == 1
        assert not send(transport).outcomes
        assert state(transport).queued == 2


async def test_a_refused_call_may_be_abandoned_before_its_outcome(upstream: Upstream) -> None:
    async with pool(upstream, connections=1, queue=1, ahead=1) as transport:
        send(transport)
        send(transport)
        refused = send(transport)
        refused.abandon()
        assert isinstance(await send(transport).outcome(), Shed)
        assert refused.outcomes == []


async def test_an_abandoned_call_in_the_queue_is_skipped(upstream: Upstream) -> None:
    async with pool(upstream, connections=1) as transport:
        first, second, third = send(transport, "/1"), send(transport, "/2"), send(transport, "/3")
        second.abandon()
        peer = await upstream.peer()
        await finish(peer, first)
        assert (await peer.read_request()).line == "GET /3 HTTP/1.1"
        peer.write(answer(b"hello"))
        assert await third.outcome() == HELLO
        assert second.outcomes == []


async def test_a_call_that_waited_sends_the_rest_of_its_budget(upstream: Upstream) -> None:
    async with pool(upstream, connections=1, ahead=1) as transport:
        send(transport, "/1")
        waiting = RecordedCall(transport, Request("/2"), CALL_HEADERS, budget_ms=60_000)
        waiting.call.started_s -= 59.0  # type: ignore[attr-defined]  # as if it had waited for 59 s
        peer = await upstream.peer()
        await peer.read_request()
        peer.write(answer(b"hello"))
        assert int((await peer.read_request()).headers["x-deadline-ms"]) in range(1, 1001)


async def test_an_abandoned_call_makes_room_for_the_next(upstream: Upstream) -> None:
    async with pool(upstream, connections=1) as transport:
        first, second = send(transport, "/1"), send(transport, "/2")
        peer = await upstream.peer()
        await peer.read_request()
        first.abandon()
        await peer.wait_closed()
        fresh = await upstream.peer()
        await finish(fresh, second)


async def test_a_call_takes_the_first_free_connection_and_the_one_opened_for_it_stays_idle(
    upstream: Upstream,
) -> None:
    async with pool(upstream, ahead=1) as transport:
        first, second = send(transport, "/1"), send(transport, "/2")
        peer = await upstream.peer()
        await peer.read_request()
        peer.write(answer(b"hello"))
        assert await first.outcome() == HELLO
        await finish(await upstream.peer_with_request(), second)
        await until(lambda: state(transport).connecting == 0)
        assert state(transport) == State(queued=0, open=2, idle=2, outstanding=0, connecting=0)


async def test_an_idle_connection_is_closed_when_it_is_old(upstream: Upstream) -> None:
    async with pool(upstream, idle_s=0.02) as transport:
        call = send(transport)
        peer = await upstream.peer()
        await finish(peer, call)
        assert state(transport).idle == 1
        await peer.wait_closed()
        await until(lambda: state(transport) == (0, 0, 0, 0, 0))
        again = send(transport)
        await finish(await upstream.peer(), again)


async def test_an_idle_connection_that_is_reset_leaves_the_pool(upstream: Upstream) -> None:
    async with pool(upstream, ahead=2) as transport:
        await upstream.peer()
        peer = await upstream.peer()
        peer.reset()
        await until(lambda: state(transport) == (0, 1, 1, 0, 0))


async def test_a_connection_after_eof_is_not_used_even_before_it_is_closed(upstream: Upstream) -> None:
    async with pool(upstream, ahead=1) as transport:
        (connection,) = transport._pools[0].idle
        connection.eof_received()
        assert state(transport) == State(queued=0, open=1, idle=0, outstanding=1, connecting=0)
        await until(lambda: state(transport).open == 0)


async def test_a_connection_that_is_closing_is_not_used(upstream: Upstream) -> None:
    async with pool(upstream, ahead=1) as transport:
        await upstream.peer()
        (connection,) = transport._pools[0].idle
        connection._transport.close()
        call = send(transport, "/pay", method="POST", safe=False)
        await finish(await upstream.peer(), call)


async def test_a_busy_connection_does_not_expire(upstream: Upstream) -> None:
    async with pool(upstream, idle_s=0.02, ahead=2) as transport:
        call = send(transport)
        await until(lambda: state(transport).open == 1)
        assert state(transport) == State(queued=0, open=1, idle=0, outstanding=1, connecting=0)
        await finish(await upstream.peer_with_request(), call)


async def test_the_address_with_fewer_outstanding_calls_is_used(upstream: Upstream, other: Upstream) -> None:
    async with pool(upstream, other, ahead=3) as transport:
        first, second = send(transport), send(transport)
        assert [state(transport, index).outstanding for index in (0, 1)] == [1, 1]
        peer = await upstream.peer_with_request()
        await peer.read_request()
        peer.write(answer(b"hello"))
        await until(lambda: bool(first.outcomes or second.outcomes))
        assert [state(transport, index).outstanding for index in (0, 1)] == [0, 1]
        send(transport)
        assert [state(transport, index).outstanding for index in (0, 1)] == [1, 1]


async def test_equal_addresses_take_turns(upstream: Upstream, other: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("http1", "http1_call"):
        monkeypatch.setattr(f"cashier.wire.{module}.monotonic", lambda: 1000.0)
    async with pool(upstream, other, ahead=1) as transport:
        indexes = []
        for _ in range(4):
            call = send(transport)
            indexes.append(state(transport, 0).outstanding)
            await finish(await (upstream if indexes[-1] else other).peer_with_request(), call)
        assert indexes in ([0, 1, 0, 1], [1, 0, 1, 0])


async def test_an_address_that_refuses_is_avoided_while_another_works(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1000.0
    monkeypatch.setattr("cashier.wire.http1.monotonic", lambda: now_s)
    async with pool(unused_port(), upstream) as transport:
        for _ in range(6):
            call = send(transport)
            await finish(await upstream.peer_with_request(), call)
        assert transport._pools[0].back_off.failures == 1
        now_s += 0.1
        for _ in range(6):
            call = send(transport)
            await finish(await upstream.peer_with_request(), call)
        assert transport._pools[0].back_off.failures == 2


async def test_a_call_is_unreachable_only_when_every_address_has_refused() -> None:
    async with no_leaks(), pool(unused_port(), unused_port(), unused_port()) as transport:
        calls = [send(transport) for _ in range(5)]
        for call in calls:
            assert isinstance(await call.outcome(), Unreachable)
        assert all(pool.back_off.failures for pool in transport._pools)
        assert isinstance(await send(transport).outcome(), Unreachable)


async def test_a_name_that_does_not_exist_is_unreachable() -> None:
    async with no_leaks():
        transport = Http1Client(["http://no-such-host.invalid:1"], Http1Settings(ahead=0))
        outcome = await send(transport).outcome()
        assert isinstance(outcome, Unreachable)
        assert "no-such-host.invalid" in outcome.detail
        await transport.close()


async def test_an_unanswered_connect_times_out() -> None:
    with silent_listener() as port:
        async with no_leaks(), pool(port, connect_timeout_ms=30) as transport:
            outcome = await send(transport).outcome()
            assert isinstance(outcome, Unreachable)
            assert "no connection within 30 ms" in outcome.detail


async def test_closing_during_a_connect_leaves_nothing_behind(upstream: Upstream) -> None:
    async with pool(upstream) as transport:
        calls = [send(transport) for _ in range(3)]
        assert state(transport) == State(queued=3, open=0, idle=0, outstanding=0, connecting=3)
        await transport.close()
        for call in calls:
            assert isinstance(await call.outcome(), Unreachable)


async def test_closing_ends_each_queued_and_outstanding_call_once(upstream: Upstream) -> None:
    async with pool(upstream, connections=2, ahead=2) as transport:
        calls = [send(transport) for _ in range(5)]
        assert state(transport) == State(queued=3, open=2, idle=0, outstanding=2, connecting=0)
        await transport.close()
        for call in calls:
            assert isinstance(await call.outcome(), Unreachable)


async def test_a_retry_uses_a_new_connection_although_an_old_one_is_idle(upstream: Upstream) -> None:
    async with pool(upstream) as transport:
        first, second = send(transport), send(transport)
        early, late = await upstream.peer(), await upstream.peer()
        await finish(early, first)
        await finish(late, second)
        call = send(transport)
        await late.read_request()
        late.close()
        fresh = await upstream.peer()
        await finish(fresh, call)
        assert not early.has_unread


async def test_a_bug_in_a_callback_does_not_keep_other_calls_from_ending_at_close(upstream: Upstream) -> None:
    bugs: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: bugs.append(context["exception"]))

    def buggy(_outcome: Any) -> None:
        raise LookupError

    async with pool(upstream, ahead=1, connections=1) as transport:
        transport.send(Request("/a"), CALL_HEADERS, 100, buggy)
        after = send(transport)
        await transport.close()
        assert isinstance(await after.outcome(), Unreachable)
    assert len(bugs) == 1


async def test_a_call_on_an_open_connection_creates_no_task_and_no_timer(upstream: Upstream) -> None:
    async with pool(upstream, ahead=1) as transport:
        peer = await upstream.peer()
        await finish(peer, send(transport))
        loop = asyncio.get_running_loop()
        made: list[Any] = []

        def make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
            made.append(coroutine)
            return asyncio.Task(coroutine, loop=loop, **options)

        loop.set_task_factory(make_task)
        timers = len(getattr(loop, "_scheduled", ()))
        call = send(transport)
        assert not made
        assert len(getattr(loop, "_scheduled", ())) == timers
        loop.set_task_factory(None)
        await finish(peer, call)


@pytest.mark.parametrize("turns", range(12))
async def test_closing_at_any_moment_of_a_connect_leaves_nothing_behind(upstream: Upstream, turns: int) -> None:
    """uvloop does not call `connection_lost` if the connect is cancelled while it completes."""
    async with pool(upstream, connections=20) as transport:
        calls = [send(transport) for _ in range(20)]
        for _ in range(turns):
            await asyncio.sleep(0)
        await transport.close()
        for call in calls:
            assert isinstance(await call.outcome(), Unreachable)


REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def passed_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The client's clock: the sum of these."""
    passed_s = [1000.0]
    for module in ("http1", "http1_call"):
        monkeypatch.setattr(f"cashier.wire.{module}.monotonic", lambda: sum(passed_s))
    return passed_s


async def calls_to(
    transport: Http1Client, upstream: Upstream, other: Upstream, passed_s: list[float], refusal: bytes = b""
) -> int:
    """How many of twenty calls `upstream` got: it answers in 1 ms, `other` in 5."""
    got = 0
    for _ in range(20):
        call = send(transport)
        index = call.address_index
        peer = await (other if index else upstream).peer_with_request()
        await peer.read_request()
        passed_s.append(0.005 if index else 0.001)
        peer.write(refusal if not index and refusal else answer(b"hello"))
        await call.outcome()
        got += not index
    return got


async def test_an_address_that_refuses_at_once_attracts_no_calls(
    upstream: Upstream, other: Upstream, passed_s: list[float]
) -> None:
    async with pool(upstream, other, ahead=1) as transport:
        assert await calls_to(transport, upstream, other, passed_s, REFUSAL) <= 1


async def test_an_address_that_answers_at_once_is_preferred(
    upstream: Upstream, other: Upstream, passed_s: list[float]
) -> None:
    async with pool(upstream, other, ahead=1) as transport:
        assert await calls_to(transport, upstream, other, passed_s) >= 18


async def test_a_call_that_is_given_up_makes_its_address_slow(
    upstream: Upstream, other: Upstream, passed_s: list[float]
) -> None:
    async with pool(upstream, other, ahead=1) as transport:
        call = send(transport)
        passed_s.append(0.020)
        call.abandon()
        assert transport._pools[call.address_index].latency.taken_s == pytest.approx(0.020)


async def test_a_connection_lost_during_a_call_and_a_broken_answer_count_as_slow(
    upstream: Upstream, other: Upstream
) -> None:
    async with pool(upstream, other, ahead=1) as transport:
        for broken in (b"", b"no HTTP\r\n\r\n"):
            call = send(transport)
            index = call.address_index
            peer = await (other if index else upstream).peer_with_request()
            await peer.read_request()
            if broken:
                peer.write(broken)
            else:
                peer.close()
            await call.outcome()
            assert transport._pools[index].latency.taken_s >= 0.1


async def test_the_latency_of_a_single_address_is_not_kept(upstream: Upstream) -> None:
    async with pool(upstream, ahead=1) as transport:
        call = send(transport)
        await finish(await upstream.peer_with_request(), call)
        assert transport._pools[0].latency.taken_s == 0
