"""The pool of `http1`: who gets which connection, who waits, what grows old. Its `repr` is the oracle."""

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

from .asking import CALL_HEADERS, Asked, answer, ask, nothing_left, until
from .hostile import Peer, Upstream, tcp_upstream, unused_port

HELLO = Response(200, b"hello")


class State(NamedTuple):
    queued: int
    open: int
    idle: int
    outstanding: int
    connecting: int


def state(wire: Http1Client, lane: int = 0) -> State:
    counts = re.findall(r": (\d+) open, (\d+) idle, (\d+) outstanding, (\d+) connecting>", repr(wire))
    queued = re.match(r"<Http1Client (\d+) queued, ", repr(wire))
    assert queued is not None
    return State(int(queued.group(1)), *map(int, counts[lane]))


@contextlib.asynccontextmanager
async def pool(*upstreams: Upstream | int, **settings: Any) -> AsyncIterator[Http1Client]:
    """A transport to these upstreams or ports, without connections ahead unless asked for."""
    urls = [f"http://127.0.0.1:{upstream if isinstance(upstream, int) else upstream.port}" for upstream in upstreams]
    wire = Http1Client(urls, Http1Settings(**{"ahead": 0, **settings}))
    await wire.open()
    try:
        yield wire
    finally:
        await wire.close()
    assert all(state(wire, lane) == (0, 0, 0, 0, 0) for lane in range(len(urls)))


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with nothing_left(), tcp_upstream() as upstream:
        yield upstream


@pytest.fixture
async def other(upstream: Upstream) -> AsyncIterator[Upstream]:
    async with tcp_upstream() as other:
        yield other


async def finish(peer: Peer, asked: Asked) -> None:
    await peer.question()
    peer.say(answer(b"hello"))
    assert await asked.outcome() == HELLO


async def test_connections_are_opened_ahead_without_a_question(upstream: Upstream) -> None:
    async with pool(upstream, ahead=2) as wire:
        assert state(wire) == State(queued=0, open=2, idle=2, outstanding=0, connecting=0)
        asked = ask(wire)
        assert state(wire) == State(queued=0, open=2, idle=1, outstanding=1, connecting=0)
        asked.exchange.abandon()


async def test_no_more_are_opened_ahead_than_may_be_open(upstream: Upstream) -> None:
    async with pool(upstream, ahead=5, connections=3) as wire:
        assert state(wire).open == 3


async def test_opening_ahead_to_nowhere_is_no_error() -> None:
    async with nothing_left(), pool(unused_port(), ahead=2) as wire:
        assert state(wire) == State(queued=0, open=0, idle=0, outstanding=0, connecting=0)
        assert isinstance(await ask(wire).outcome(), Unreachable)


async def test_the_connection_used_last_is_used_next(upstream: Upstream) -> None:
    async with pool(upstream) as wire:
        first, second = ask(wire), ask(wire)
        early, late = await upstream.peer(), await upstream.peer()
        await finish(early, first)
        await finish(late, second)
        third = ask(wire)
        await finish(late, third)


async def test_small_packets_are_not_held_back(upstream: Upstream) -> None:
    async with pool(upstream, ahead=1) as wire:
        (connection,) = wire._pools[0].idle
        raw = connection._transport.get_extra_info("socket")
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_connection_less_than_calls_makes_one_wait_and_serves_it_when_it_is_free(upstream: Upstream) -> None:
    async with pool(upstream, connections=1) as wire:
        first, second, third = ask(wire, "/1"), ask(wire, "/2"), ask(wire, "/3")
        peer = await upstream.peer()
        for number, asked in enumerate((first, second, third), 1):
            assert (await peer.question()).line == f"GET /{number} HTTP/1.1"
            assert state(wire) == State(queued=3 - number, open=1, idle=0, outstanding=1, connecting=0)
            peer.say(answer(b"hello"))
            assert await asked.outcome() == HELLO
        assert upstream.unseen == 0


async def test_a_queue_that_is_full_says_so_later_but_without_waiting(upstream: Upstream) -> None:
    async with pool(upstream, connections=1, queue=2, ahead=1) as wire:
        under_way, *queued = [ask(wire) for _ in range(3)]
        refused = ask(wire)
        assert state(wire).queued == 2
        assert isinstance(await refused.outcome(), Shed)
        assert not under_way.outcomes
        assert not any(asked.outcomes for asked in queued)
        queued[0].exchange.abandon()
        assert state(wire).queued == 1
        assert not ask(wire).outcomes
        assert state(wire).queued == 2


async def test_who_was_refused_may_be_abandoned_before_hearing_it(upstream: Upstream) -> None:
    async with pool(upstream, connections=1, queue=1, ahead=1) as wire:
        ask(wire)
        ask(wire)
        refused = ask(wire)
        refused.exchange.abandon()
        assert isinstance(await ask(wire).outcome(), Shed)
        assert refused.outcomes == []


async def test_an_abandoned_call_in_the_queue_is_passed_over(upstream: Upstream) -> None:
    async with pool(upstream, connections=1) as wire:
        first, second, third = ask(wire, "/1"), ask(wire, "/2"), ask(wire, "/3")
        second.exchange.abandon()
        peer = await upstream.peer()
        await finish(peer, first)
        assert (await peer.question()).line == "GET /3 HTTP/1.1"
        peer.say(answer(b"hello"))
        assert await third.outcome() == HELLO
        assert second.outcomes == []


async def test_who_waited_sends_on_what_is_left_of_the_budget(upstream: Upstream) -> None:
    async with pool(upstream, connections=1, ahead=1) as wire:
        ask(wire, "/1")
        waiting = Asked(wire, Request("/2"), CALL_HEADERS, budget_ms=60_000)
        waiting.exchange.started_s -= 59.0  # type: ignore[attr-defined]  # as if it had waited 59 seconds
        peer = await upstream.peer()
        await peer.question()
        peer.say(answer(b"hello"))
        assert int((await peer.question()).headers["x-deadline-ms"]) in range(1, 1001)


async def test_an_abandoned_call_makes_room_for_the_next(upstream: Upstream) -> None:
    async with pool(upstream, connections=1) as wire:
        first, second = ask(wire, "/1"), ask(wire, "/2")
        peer = await upstream.peer()
        await peer.question()
        first.exchange.abandon()
        await peer.gone()
        fresh = await upstream.peer()
        await finish(fresh, second)


async def test_a_call_gets_the_connection_that_is_free_first_and_the_one_opened_for_it_stays_spare(
    upstream: Upstream,
) -> None:
    async with pool(upstream, ahead=1) as wire:
        first, second = ask(wire, "/1"), ask(wire, "/2")
        peer = await upstream.peer()
        await peer.question()
        peer.say(answer(b"hello"))
        assert await first.outcome() == HELLO
        await finish(await upstream.asked(), second)
        await until(lambda: state(wire).connecting == 0)
        assert state(wire) == State(queued=0, open=2, idle=2, outstanding=0, connecting=0)


async def test_an_idle_connection_is_closed_when_it_is_old(upstream: Upstream) -> None:
    async with pool(upstream, idle_s=0.02) as wire:
        asked = ask(wire)
        peer = await upstream.peer()
        await finish(peer, asked)
        assert state(wire).idle == 1
        await peer.gone()
        await until(lambda: state(wire) == (0, 0, 0, 0, 0))
        again = ask(wire)
        await finish(await upstream.peer(), again)


async def test_an_idle_connection_that_is_reset_is_no_longer_there(upstream: Upstream) -> None:
    async with pool(upstream, ahead=2) as wire:
        await upstream.peer()
        peer = await upstream.peer()
        peer.reset()
        await until(lambda: state(wire) == (0, 1, 1, 0, 0))


async def test_a_connection_at_its_end_is_given_to_nobody_even_before_it_is_closed(upstream: Upstream) -> None:
    async with pool(upstream, ahead=1) as wire:
        (connection,) = wire._pools[0].idle
        connection.eof_received()
        assert state(wire) == State(queued=0, open=1, idle=0, outstanding=1, connecting=0)
        await until(lambda: state(wire).open == 0)


async def test_a_connection_that_is_closing_is_not_used(upstream: Upstream) -> None:
    async with pool(upstream, ahead=1) as wire:
        await upstream.peer()
        (connection,) = wire._pools[0].idle
        connection._transport.close()
        asked = ask(wire, "/pay", method="POST", safe=False)
        await finish(await upstream.peer(), asked)


async def test_a_busy_connection_does_not_grow_old(upstream: Upstream) -> None:
    async with pool(upstream, idle_s=0.02, ahead=2) as wire:
        asked = ask(wire)
        await until(lambda: state(wire).open == 1)
        assert state(wire) == State(queued=0, open=1, idle=0, outstanding=1, connecting=0)
        await finish(await upstream.asked(), asked)


async def test_the_address_with_less_under_way_is_asked(upstream: Upstream, other: Upstream) -> None:
    async with pool(upstream, other, ahead=3) as wire:
        first, second = ask(wire), ask(wire)
        assert [state(wire, lane).outstanding for lane in (0, 1)] == [1, 1]
        peer = await upstream.asked()
        await peer.question()
        peer.say(answer(b"hello"))
        await until(lambda: bool(first.outcomes or second.outcomes))
        assert [state(wire, lane).outstanding for lane in (0, 1)] == [0, 1]
        ask(wire)
        assert [state(wire, lane).outstanding for lane in (0, 1)] == [1, 1]


async def test_equal_addresses_take_turns(upstream: Upstream, other: Upstream) -> None:
    async with pool(upstream, other, ahead=1) as wire:
        lanes = []
        for _ in range(4):
            asked = ask(wire)
            lanes.append(state(wire, 0).outstanding)
            await finish(await (upstream if lanes[-1] else other).asked(), asked)
        assert lanes in ([0, 1, 0, 1], [1, 0, 1, 0])


async def test_an_address_that_refuses_is_avoided_while_another_works(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1000.0
    monkeypatch.setattr("cashier.wire.http1.monotonic", lambda: now_s)
    async with pool(unused_port(), upstream) as wire:
        for _ in range(6):
            asked = ask(wire)
            await finish(await upstream.asked(), asked)
        assert wire._pools[0].back_off.failures == 1
        now_s += 0.1
        for _ in range(6):
            asked = ask(wire)
            await finish(await upstream.asked(), asked)
        assert wire._pools[0].back_off.failures == 2


async def test_a_call_is_unreachable_only_when_every_address_has_refused() -> None:
    async with nothing_left(), pool(unused_port(), unused_port(), unused_port()) as wire:
        asked = [ask(wire) for _ in range(5)]
        for each in asked:
            assert isinstance(await each.outcome(), Unreachable)
        assert all(pool.back_off.failures for pool in wire._pools)
        assert isinstance(await ask(wire).outcome(), Unreachable)


async def test_a_name_that_does_not_exist_is_unreachable() -> None:
    async with nothing_left():
        wire = Http1Client(["http://no-such-host.invalid:1"], Http1Settings(ahead=0))
        outcome = await ask(wire).outcome()
        assert isinstance(outcome, Unreachable)
        assert "no-such-host.invalid" in outcome.detail
        await wire.close()


async def test_a_connect_that_nobody_answers_ends_in_time() -> None:
    with socket.socket() as deaf:  # a backlog that is full: further SYNs are dropped
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        async with nothing_left():
            fillers = [socket.socket() for _ in range(3)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            async with pool(port, connect_timeout_ms=30) as wire:
                outcome = await ask(wire).outcome()
                assert isinstance(outcome, Unreachable)
                assert "no connection within 30 ms" in outcome.detail
            for filler in fillers:
                filler.close()


async def test_closing_in_the_middle_of_a_connect_leaves_nothing(upstream: Upstream) -> None:
    async with pool(upstream) as wire:
        asked = [ask(wire) for _ in range(3)]
        assert state(wire) == State(queued=3, open=0, idle=0, outstanding=0, connecting=3)
        await wire.close()
        for each in asked:
            assert isinstance(await each.outcome(), Unreachable)


async def test_closing_with_calls_queued_and_under_way_tells_each_once(upstream: Upstream) -> None:
    async with pool(upstream, connections=2, ahead=2) as wire:
        asked = [ask(wire) for _ in range(5)]
        assert state(wire) == State(queued=3, open=2, idle=0, outstanding=2, connecting=0)
        await wire.close()
        for each in asked:
            assert isinstance(await each.outcome(), Unreachable)


async def test_a_retry_goes_to_a_fresh_connection_though_an_old_one_is_idle(upstream: Upstream) -> None:
    async with pool(upstream) as wire:
        first, second = ask(wire), ask(wire)
        early, late = await upstream.peer(), await upstream.peer()
        await finish(early, first)
        await finish(late, second)
        asked = ask(wire)
        await late.question()
        late.hang_up()
        fresh = await upstream.peer()
        await finish(fresh, asked)
        assert not early.asked


async def test_a_bug_in_a_reply_does_not_keep_the_others_from_hearing_of_the_close(upstream: Upstream) -> None:
    bugs: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: bugs.append(context["exception"]))

    def buggy(_outcome: Any) -> None:
        raise LookupError

    async with pool(upstream, ahead=1, connections=1) as wire:
        wire.send(Request("/a"), CALL_HEADERS, 100, buggy)
        after = ask(wire)
        await wire.close()
        assert isinstance(await after.outcome(), Unreachable)
    assert len(bugs) == 1


async def test_a_call_on_a_kept_connection_makes_no_task_and_no_timer(upstream: Upstream) -> None:
    async with pool(upstream, ahead=1) as wire:
        peer = await upstream.peer()
        await finish(peer, ask(wire))
        loop = asyncio.get_running_loop()
        made: list[Any] = []

        def make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
            made.append(coroutine)
            return asyncio.Task(coroutine, loop=loop, **options)

        loop.set_task_factory(make_task)
        timers = len(getattr(loop, "_scheduled", ()))
        asked = [ask(wire)]
        assert not made
        assert len(getattr(loop, "_scheduled", ())) == timers
        loop.set_task_factory(None)
        await finish(peer, asked[0])
