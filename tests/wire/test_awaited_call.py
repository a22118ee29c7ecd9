"""An awaited call: its end by answer, budget or cancellation, and whether it counts as sent."""

from __future__ import annotations

import asyncio

import pytest

from cashier.source_errors import Missing, MissingCause, SourceError, TimedOut, Unreachable
from cashier.wire.awaited_call import send_and_wait
from cashier.wire.http1 import Http1Client, Http1Settings
from cashier.wire.transport import CallHeaders, OnResponse, Request, Response, TransportCall
from tests.wire.client_side import CALL_HEADERS, PATIENT, answer, no_leaks, settle, until
from tests.wire.conftest import Wired
from tests.wire.scripted_upstream import tcp_upstream

PAY = Request("/pay", "POST", b"{}", safe=False)
HELLO = Response(200, b"hello")


class Call:
    address_index = 0

    def __init__(self, on_response: OnResponse) -> None:
        self.on_response = on_response
        self.sent = False
        self.abandoned = False

    def abandon(self) -> None:
        self.abandoned = True


class Scripted:
    """A transport that the test controls."""

    addresses = ("scripted",)

    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def open(self) -> None: ...

    async def is_reachable(self) -> bool:
        return True

    async def close(self) -> None: ...

    def send(
        self, request: Request, call_headers: CallHeaders, budget_ms: int, on_response: OnResponse, avoid: int = 0
    ) -> TransportCall:
        self.calls.append(Call(on_response))
        return self.calls[-1]


async def test_an_answer_is_returned(wired: Wired) -> None:
    task = asyncio.create_task(send_and_wait(wired.transport, PAY, CALL_HEADERS, 5000))
    peer = await wired.upstream.peer()
    assert (await peer.read_request()).headers["x-deadline-ms"].isdigit()
    peer.write(answer(b"hello"))
    assert await task == HELLO


async def test_a_timeout_after_the_request_has_left_counts_as_sent(wired: Wired) -> None:
    for budget_ms in (50, 500, 5_000):  # a busy machine may need longer to connect and send
        outcome = await send_and_wait(wired.transport, PAY, CALL_HEADERS, budget_ms)
        if isinstance(outcome, TimedOut) and outcome.sent:
            break
    assert isinstance(outcome, TimedOut)
    assert outcome.sent
    peer = await wired.upstream.peer_with_request()
    await peer.read_request()
    assert outcome.missing("engine") == Missing("engine", MissingCause.TIMEOUT)
    await peer.wait_closed()


async def test_a_timeout_in_the_queue_has_sent_nothing_and_never_will() -> None:
    async with no_leaks(), tcp_upstream() as upstream:
        transport = Http1Client([f"http://127.0.0.1:{upstream.port}"], Http1Settings(ahead=0, connections=1, **PATIENT))
        first = asyncio.create_task(send_and_wait(transport, PAY, CALL_HEADERS, 5000))
        peer = await upstream.peer()
        await peer.read_request()
        outcome = await send_and_wait(transport, PAY, CALL_HEADERS, 1)
        assert isinstance(outcome, TimedOut)
        assert not outcome.sent
        peer.write(answer(b"hello"))
        assert await first == HELLO
        await settle()
        assert not peer.has_unread
        await transport.close()


async def test_a_network_fault_is_returned_not_raised() -> None:
    scripted = Scripted()
    task = asyncio.create_task(send_and_wait(scripted, PAY, CALL_HEADERS, 5000))
    await until(lambda: bool(scripted.calls))
    lost = Unreachable("reset")
    scripted.calls[0].on_response(lost)
    assert await task is lost


async def test_a_call_reported_as_unsent_is_abandoned_in_the_same_loop_turn() -> None:
    """Otherwise it might be sent before the waiter wakes."""
    scripted = Scripted()
    task = asyncio.create_task(send_and_wait(scripted, PAY, CALL_HEADERS, 1))
    await until(lambda: bool(scripted.calls) and scripted.calls[0].abandoned)
    assert not task.done()
    scripted.calls[0].sent = True
    outcome = await task
    assert isinstance(outcome, TimedOut)
    assert not outcome.sent


async def test_a_late_answer_changes_nothing() -> None:
    scripted = Scripted()
    outcome = await send_and_wait(scripted, PAY, CALL_HEADERS, 1)
    scripted.calls[0].on_response(HELLO)
    assert isinstance(outcome, TimedOut)


async def test_cancelling_abandons_and_is_not_swallowed() -> None:
    scripted = Scripted()
    task = asyncio.create_task(send_and_wait(scripted, PAY, CALL_HEADERS, 5000))
    await until(lambda: bool(scripted.calls))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert scripted.calls[0].abandoned
    scripted.calls[0].on_response(HELLO)


async def test_an_answer_and_a_cancellation_in_one_turn_leave_nothing_behind() -> None:
    scripted = Scripted()
    task = asyncio.create_task(send_and_wait(scripted, PAY, CALL_HEADERS, 5000))
    await until(lambda: bool(scripted.calls))
    task.cancel()
    scripted.calls[0].on_response(HELLO)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert scripted.calls[0].abandoned


def test_the_repr_of_requests_and_answers_omits_their_content() -> None:
    texts = (
        f"{Request('/pay', 'POST', b'246810', headers=(('Idempotency-Key', 'pay_1'),))!r} {Response(200, b'246810')!r}"
    )
    assert "246810" not in texts


def test_an_error_counts_as_sent_unless_the_contrary_is_certain() -> None:
    assert SourceError("").sent
    assert Unreachable("").sent
    assert not Unreachable("", sent=False).sent
