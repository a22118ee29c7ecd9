"""The connection is the unit that fails: suspicion, closing, and whose answer an answer is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from functools import partial
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.source_errors import Garbled, SourceError, Unreachable, WrongIdentity
from cashier.wire.connection_health import ConnectionHealth, RequestIdEcho, SickClosings
from cashier.wire.http1 import Http1Client, Http1Settings
from cashier.wire.transport import CallHeaders, Request, Response
from tests.wire.client_side import OK, PATIENT, RecordedCall, answer, no_leaks, send, settle, until
from tests.wire.scripted_upstream import Peer, Upstream, tcp_upstream

from .conftest import Wired, exchange
from .test_pool import finish, state

HELLO = Response(200, b"hello")
ERROR = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
LATER = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
ANOTHER_DAY = b"HTTP/1.1 503 Busy\r\nRetry-After: Mon, 02 Nov 2026 10:00:00 GMT\r\nContent-Length: 0\r\n\r\n"
TOO_MANY = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n"


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("http1", "http1_call"):
        monkeypatch.setattr(f"cashier.wire.{module}.monotonic", clock)
    return clock


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with no_leaks(), tcp_upstream() as upstream:
        yield upstream


@contextlib.asynccontextmanager
async def used_pool(
    upstream: Upstream, size: int, connections: int = 64
) -> AsyncIterator[tuple[Http1Client, list[Peer]]]:
    """A client whose connections have all answered once; the last of the peers is used next."""
    transport = Http1Client([f"http://127.0.0.1:{upstream.port}"], Http1Settings(connections, ahead=0, **PATIENT))
    try:
        calls = [send(transport, f"/{number}") for number in range(size)]
        peers = [await upstream.peer() for _ in range(size)]
        for call, peer in zip(calls, peers, strict=True):
            await finish(peer, call)
        yield transport, peers
    finally:
        await transport.close()


async def fail(peer: Peer, call: RecordedCall, data: bytes = ERROR) -> None:
    await peer.read_request()
    peer.write(data)
    await call.outcome()


def answered_or_received(call: RecordedCall, upstream: Upstream) -> bool:
    return bool(call.outcomes) or any(peer.has_unread for peer in upstream.peers)


async def failing_call(upstream: Upstream, transport: Http1Client, target: str) -> None:
    call = send(transport, target)
    await fail(await upstream.peer_with_request(), call)


@pytest.mark.parametrize("data", [ERROR, UNAVAILABLE, LATER, TOO_MANY], ids=["500", "503", "503 later", "429"])
async def test_a_connection_with_an_error_is_used_after_all_others(
    upstream: Upstream, data: bytes, clock: Clock
) -> None:
    async with used_pool(upstream, 3) as (transport, peers):
        await fail(peers[2], send(transport, "/fails"), data)
        for _ in range(3):
            await finish(peers[1], send(transport))
        both = send(transport, "/a"), send(transport, "/b")
        await finish(peers[1], both[0])
        await finish(peers[0], both[1])
        assert upstream.untaken == 0


async def test_a_new_connection_is_opened_before_a_suspect_one_is_used(upstream: Upstream, clock: Clock) -> None:
    async with used_pool(upstream, 2) as (transport, peers):
        await fail(peers[1], send(transport, "/fails"))
        first, second = send(transport, "/1"), send(transport, "/2")
        await finish(await upstream.peer(), second)
        await finish(peers[0], first)
        assert not peers[1].has_unread


async def test_a_full_pool_uses_a_suspect_connection_rather_than_wait(upstream: Upstream, clock: Clock) -> None:
    async with used_pool(upstream, 2, connections=2) as (transport, peers):
        await fail(peers[1], send(transport, "/fails"))
        first, second = send(transport, "/1"), send(transport, "/2")
        await finish(peers[0], first)
        await finish(peers[1], second)
        third = send(transport, "/3")  # both are well again
        await finish(peers[1], third)


async def test_the_only_connection_stays_in_use_after_an_error(upstream: Upstream, clock: Clock) -> None:
    async with used_pool(upstream, 1, connections=1) as (transport, peers):
        for _ in range(5):
            await fail(peers[0], send(transport, "/same"), LATER)
        await finish(peers[0], send(transport))


@pytest.mark.parametrize(
    ("data", "keys", "closed"),
    [
        (ERROR, "abc", True),
        (UNAVAILABLE, "abc", True),
        (ERROR, "aba", False),
        (ERROR, "aaaaaaa", False),
        (LATER, "abcdefg", False),
        (ANOTHER_DAY, "abcdefg", False),
        (TOO_MANY, "abcdefg", False),
    ],
)
async def test_a_streak_of_5xx_for_three_keys_closes_a_connection(
    upstream: Upstream, data: bytes, keys: str, closed: bool, clock: Clock
) -> None:
    async with used_pool(upstream, 2, connections=2) as (transport, peers):
        for key in keys:
            held, failing = send(transport, "/held"), send(transport, f"/{key}")
            await until(lambda: peers[0].has_unread and peers[1].has_unread)
            for peer in peers:
                line = (await peer.read_request()).line
                peer.write(answer(b"hello") if "held" in line else data)
            assert await held.outcome() == HELLO
            await failing.outcome()
        await until(lambda: not closed or state(transport).open == 1)
        assert state(transport).open == 2 - closed


async def test_a_source_that_fails_as_a_whole_is_spared_a_storm_of_connects(upstream: Upstream, clock: Clock) -> None:
    async with used_pool(upstream, 4) as (transport, peers):
        for number in range(100):
            await failing_call(upstream, transport, f"/{number}")
        assert len(upstream.peers) <= len(peers) + 3
        clock.now_s += 1.0
        for number in range(100):
            await failing_call(upstream, transport, f"/again/{number}")
        assert len(upstream.peers) <= len(peers) + 5


async def end_connection(upstream: Upstream, data: bytes | None) -> None:
    """Answer the request that has arrived with broken data, or with a reset."""
    peer = await upstream.peer_with_request()
    await peer.read_request()
    if data is None:
        peer.reset()
        await peer.wait_closed()
    else:
        peer.write(data)


@pytest.mark.parametrize("keys", [1, 2, 50])
@pytest.mark.parametrize("data", [b"no HTTP\r\n\r\n", None], ids=["garbles", "resets"])
async def test_a_source_that_ends_every_connection_is_spared_a_storm_of_connects(
    upstream: Upstream, clock: Clock, data: bytes | None, keys: int
) -> None:
    async with used_pool(upstream, 1) as (transport, _):
        errors = []
        for number in range(50):
            call = send(transport, f"/{number % keys}")
            while not call.outcomes:
                await until(partial(answered_or_received, call, upstream))
                if not call.outcomes:
                    await end_connection(upstream, data)
            errors.append(await call.outcome())
        assert len(upstream.peers) <= 6
        assert all(isinstance(error, Garbled | Unreachable) for error in errors)
        assert not any(isinstance(error, SourceError) and error.sent for error in errors[10:])
        clock.now_s += 1.0
        probe = send(transport)
        await finish(await upstream.peer_with_request(), probe)
        call = send(transport)
        await finish(await upstream.peer_with_request(), call)


async def test_after_errors_on_all_connections_the_next_call_reaches_a_new_one(
    upstream: Upstream, clock: Clock
) -> None:
    """The probe of a breaker must not be answered by the connection that opened it."""
    async with used_pool(upstream, 2, connections=2) as (transport, peers):
        for number in range(6):
            await failing_call(upstream, transport, f"/{number % 2}")
        clock.now_s += 2.0
        probe = send(transport, "/probe")
        await until(lambda: len(upstream.peers) > 2)
        await finish(await upstream.peer_with_request(), probe)
        assert not any(peer.has_unread for peer in peers)


async def test_a_connection_that_was_much_slower_is_used_after_the_others(upstream: Upstream, clock: Clock) -> None:
    async with used_pool(upstream, 2) as (transport, peers):
        slow = send(transport, "/slow")
        clock.now_s += 0.1
        await finish(peers[1], slow)
        await finish(peers[0], send(transport, "/next"))
        await finish(peers[0], send(transport, "/after"))


async def test_if_no_new_connection_can_be_opened_a_suspect_one_is_used(upstream: Upstream, clock: Clock) -> None:
    async with used_pool(upstream, 2) as (transport, peers):
        await fail(peers[1], send(transport, "/fails"))
        first = send(transport, "/1")
        upstream.refuse()
        second = send(transport, "/2")
        await finish(peers[1], second)
        await finish(peers[0], first)


# Whose answer is it?


@pytest.mark.parametrize(("data", "stands"), [(answer(b"hello"), False), (ERROR, True)], ids=["200", "500"])
async def test_an_answer_before_its_request_is_written_is_a_refusal_or_wrong(
    upstream: Upstream, data: bytes, stands: bool
) -> None:
    async with used_pool(upstream, 1) as (transport, peers):
        call = send(transport, "/batch", method="POST", body=b"x" * 20_000_000)
        await until(lambda: peers[0].has_unread)
        peers[0].write(data)
        outcome = await call.outcome()
        assert isinstance(outcome, Response if stands else Garbled)
        following = send(transport)
        await finish(await upstream.peer(), following)


@pytest.mark.parametrize("error", [WrongIdentity("another payer"), Garbled("no JSON")], ids=["identity", "shape"])
async def test_a_discredited_answer_closes_its_connection(wired: Wired, error: SourceError) -> None:
    peer = await exchange(wired)
    call = send(wired.transport)
    await peer.read_request()
    peer.write(answer(b"hello"))
    outcome = await call.outcome()
    assert isinstance(outcome, Response)
    assert outcome.discredit(error) is error
    await peer.wait_closed()
    await exchange(wired, await _fresh(wired))


async def _fresh(wired: Wired) -> Peer:
    call = send(wired.transport, "/probe")
    peer = await wired.upstream.peer()
    await peer.read_request()
    peer.write(answer(b"hello"))
    await call.outcome()
    return peer


async def test_an_answer_may_be_discredited_after_its_connection_is_gone(wired: Wired) -> None:
    call = send(wired.transport)
    peer = await wired.upstream.peer()
    await peer.read_request()
    peer.write(OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello")
    outcome = await call.outcome()
    assert isinstance(outcome, Response)
    await peer.wait_closed()
    outcome.discredit(WrongIdentity("late"))
    assert Response(200, b"hello").discredit(Garbled("no connection")).elsewhere is False


async def test_a_call_on_a_connection_that_is_discredited_meanwhile_is_repeated_if_safe(
    upstream: Upstream,
) -> None:
    for safe in (True, False):
        transport = Http1Client([f"http://127.0.0.1:{upstream.port}"], Http1Settings(ahead=0, **PATIENT))
        first = send(transport)
        peer = await upstream.peer()
        await finish(peer, first)
        outcome = first.outcomes[0]
        assert isinstance(outcome, Response)
        second = send(transport, "/second", safe=safe)
        await peer.read_request()
        outcome.discredit(WrongIdentity("another payer"))
        if safe:
            await finish(await upstream.peer(), second)
        else:
            assert isinstance(await second.outcome(), Unreachable)
            assert upstream.untaken == 0
        await transport.close()


@pytest.mark.parametrize("data", [answer(b"WRONG"), b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", b"!"])
async def test_bytes_before_an_unsafe_request_is_written_close_the_connection(wired: Wired, data: bytes) -> None:
    peer = await exchange(wired, safe=False)
    raw = peer._writer.get_extra_info("socket")
    if peer._writer.get_extra_info("ssl_object") is None:
        os.write(raw.fileno(), data)  # here before the request, but the loop has not read it
    else:
        peer.write(data)
        await settle()
    call = send(wired.transport, "/pay", method="POST", safe=False, body=b"{}")
    fresh = await wired.upstream.peer()
    assert (await fresh.read_request()).line == "POST /pay HTTP/1.1"
    fresh.write(answer(b"hello"))
    assert await call.outcome() == HELLO
    assert not peer.has_unread


def echoed(request_id: str, *, status: bytes = b"404 Not Found", name: bytes = b"X-Request-Id") -> bytes:
    return b"HTTP/1.1 %s\r\n%s: %s\r\nContent-Length: 0\r\n\r\n" % (status, name, request_id.encode())


def ask(wired: Wired, request_id: str, *, safe: bool = True) -> RecordedCall:
    return RecordedCall(wired.transport, Request(f"/{request_id}", safe=safe), CallHeaders(request_id))


@pytest.mark.parametrize("name", [b"X-Request-Id", b"x-request-id", b"X-REQUEST-ID"], ids=repr)
@pytest.mark.parametrize("safe", [True, False], ids=["safe", "unsafe"])
async def test_an_answer_with_the_id_of_another_request_is_wrong_and_closes_the_connection(
    wired: Wired, name: bytes, safe: bool
) -> None:
    first = ask(wired, "r-1", safe=safe)
    peer = await wired.upstream.peer()
    await peer.read_request()
    peer.write(echoed("r-1", name=name))
    assert await first.outcome() == Response(404, b"")
    second = ask(wired, "r-2", safe=safe)
    await peer.read_request()
    peer.write(echoed("r-1", name=name))
    assert isinstance(await second.outcome(), WrongIdentity)
    await peer.wait_closed()
    third = ask(wired, "r-3", safe=safe)
    fresh = await wired.upstream.peer()
    await fresh.read_request()
    fresh.write(echoed("r-3", name=name))
    assert await third.outcome() == Response(404, b"")


async def test_an_upstream_that_sets_ids_of_its_own_is_used_like_any_other(wired: Wired) -> None:
    peer = None
    for number in range(30):
        call = ask(wired, f"r-{number}")
        peer = peer or await wired.upstream.peer()
        await peer.read_request()
        peer.write(echoed(f"own-{number}"))
        assert await call.outcome() == Response(404, b"")
    assert wired.upstream.untaken == 0


async def test_an_id_beside_another_one_counts_as_echoed(wired: Wired) -> None:
    peer = None
    for number in range(5):
        call = ask(wired, f"r-{number}")
        peer = peer or await wired.upstream.peer()
        await peer.read_request()
        peer.write(
            b"HTTP/1.1 404 No\r\nX-Request-Id: gateway-%d\r\nX-Request-Id: r-%d\r\nContent-Length: 0\r\n\r\n"
            % (number, number)
        )
        assert await call.outcome() == Response(404, b"")


def false_alarms(share_of_echoes: float, seed: int, answers: int = 20_000) -> int:
    random, echo = Random(seed), RequestIdEcho()
    previous, echoes, alarms = b"", 0, 0
    for number in range(answers):
        expected = b"r-%d" % number
        right = random.random() < share_of_echoes
        echoes += right
        alarms += not echo.matches(expected, (expected if right else b"own-%d" % number,), previous, echoes)
        previous = expected
    return alarms


@given(st.sampled_from([0.0, 0.01, 0.5, 0.9, 0.99, 0.999]), st.integers(0, 100))
def test_an_upstream_that_echoes_only_sometimes_loses_few_answers(share: float, seed: int) -> None:
    assert false_alarms(share, seed) <= (0 if share == 0.0 else 20)


def test_an_upstream_that_repeats_the_first_id_of_a_connection_loses_one_answer() -> None:
    echo, alarms = RequestIdEcho(), 0
    for connection in range(50):
        for number in range(5):
            expected, first = b"%d-%d" % (connection, number), b"%d-0" % connection
            previous = b"%d-%d" % (connection, number - 1) if number else b""
            alarms += not echo.matches(expected, (first,), previous, 1)
    assert alarms == 1


@pytest.mark.parametrize("stored", [0.02, 0.3, 0.5, 0.9])
def test_a_proxy_that_stores_answers_with_their_ids_loses_few_of_them(stored: float) -> None:
    random, echo, alarms = Random(1), RequestIdEcho(), 0
    previous = origin = b""
    for number in range(20_000):
        expected = b"r-%d" % number
        if random.random() >= stored:
            origin = expected
        alarms += not echo.matches(expected, (origin,), previous, 2)
        previous = expected
    assert alarms <= (400 if stored < 0.1 else 20)


def test_two_shifted_connections_of_an_echoing_upstream_are_both_noticed() -> None:
    echo = RequestIdEcho()
    for number in range(10):
        assert echo.matches(b"r-%d" % number, (b"r-%d" % number,), b"", number)
    for _ in range(5):
        assert not echo.matches(b"new", (b"old",), b"old", 5)


def test_closings_are_a_tenth_of_the_pool_in_a_second_and_at_least_one() -> None:
    for connections, most in ((0, 1), (1, 1), (9, 1), (10, 1), (64, 7), (1000, 101)):
        closings = SickClosings()
        allowed = sum(closings.allow(connections, 1000 + ms / 1000) for ms in range(1000))
        assert 1 <= allowed <= most


def test_a_success_ends_a_streak() -> None:
    health = ConnectionHealth()
    assert [health.record_failure(Request(f"/{key}")) for key in "ab"] == [False, False]
    health.record_success()
    assert not health.suspect
    assert [health.record_failure(Request(f"/{key}")) for key in "cd"] == [False, False]
    assert health.record_failure(Request("/d", "POST", b"other keys"))
