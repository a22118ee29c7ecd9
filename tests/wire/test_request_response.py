"""A call that is awaited: its end by answer, budget or cancellation, and what it then says of having been sent."""

from __future__ import annotations

import asyncio

import pytest

from cashier.source_errors import Missing, MissingCause, SourceError, TimedOut, Unreachable
from cashier.wire.http1 import Http1Client, Http1Settings
from cashier.wire.request_response import send_and_wait
from cashier.wire.transport import CallHeaders, OnResponse, Request, Response, TransportCall
from tests.wire.asking import CALL_HEADERS, answer, arrival, nothing_left, until
from tests.wire.conftest import Wired
from tests.wire.hostile import tcp_upstream

PAY = Request("/pay", "POST", b"{}", safe=False)
HELLO = Response(200, b"hello")


class Call:
    address_index = 0

    def __init__(self, reply: OnResponse) -> None:
        self.reply = reply
        self.sent = False
        self.abandoned = False

    def abandon(self) -> None:
        self.abandoned = True


class Scripted:
    """A transport that does what the test says."""

    addresses = ("scripted",)

    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def send(
        self, request: Request, call_headers: CallHeaders, budget_ms: int, reply: OnResponse, avoid: int = 0
    ) -> TransportCall:
        self.calls.append(Call(reply))
        return self.calls[-1]


async def test_an_answer_is_returned(wired: Wired) -> None:
    asking = asyncio.create_task(send_and_wait(wired.wire, PAY, CALL_HEADERS, 5000))
    peer = await wired.upstream.peer()
    assert (await peer.question()).headers["x-deadline-ms"].isdigit()
    peer.say(answer(b"hello"))
    assert await asking == HELLO


async def test_silence_after_the_request_has_left_may_mean_anything(wired: Wired) -> None:
    asking = asyncio.create_task(send_and_wait(wired.wire, PAY, CALL_HEADERS, 60))
    peer = await wired.upstream.peer()
    await peer.question()
    outcome = await asking
    assert isinstance(outcome, TimedOut)
    assert outcome.sent
    assert outcome.missing("engine") == Missing("engine", MissingCause.TIMEOUT)
    await peer.gone()


async def test_who_waits_for_a_connection_in_vain_has_sent_nothing_and_never_will() -> None:
    async with nothing_left(), tcp_upstream() as upstream:
        wire = Http1Client([f"http://127.0.0.1:{upstream.port}"], Http1Settings(ahead=0, connections=1))
        first = asyncio.create_task(send_and_wait(wire, PAY, CALL_HEADERS, 5000))
        peer = await upstream.peer()
        await peer.question()
        outcome = await send_and_wait(wire, PAY, CALL_HEADERS, 1)
        assert isinstance(outcome, TimedOut)
        assert not outcome.sent
        peer.say(answer(b"hello"))
        assert await first == HELLO
        await arrival()
        assert not peer.asked
        await wire.close()


async def test_what_the_network_does_is_returned_and_not_raised() -> None:
    scripted = Scripted()
    asking = asyncio.create_task(send_and_wait(scripted, PAY, CALL_HEADERS, 5000))
    await until(lambda: bool(scripted.calls))
    lost = Unreachable("reset")
    scripted.calls[0].reply(lost)
    assert await asking is lost


async def test_it_is_abandoned_in_the_turn_in_which_it_was_said_to_be_unsent() -> None:
    """Or it might be sent between the verdict and the waiter's waking."""
    scripted = Scripted()
    asking = asyncio.create_task(send_and_wait(scripted, PAY, CALL_HEADERS, 1))
    await until(lambda: bool(scripted.calls) and scripted.calls[0].abandoned)
    assert not asking.done()
    scripted.calls[0].sent = True
    outcome = await asking
    assert isinstance(outcome, TimedOut)
    assert not outcome.sent


async def test_an_answer_that_comes_too_late_changes_nothing() -> None:
    scripted = Scripted()
    outcome = await send_and_wait(scripted, PAY, CALL_HEADERS, 1)
    scripted.calls[0].reply(HELLO)
    assert isinstance(outcome, TimedOut)


async def test_cancelling_abandons_and_is_not_swallowed() -> None:
    scripted = Scripted()
    asking = asyncio.create_task(send_and_wait(scripted, PAY, CALL_HEADERS, 5000))
    await until(lambda: bool(scripted.calls))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert scripted.calls[0].abandoned
    scripted.calls[0].reply(HELLO)


async def test_an_answer_and_a_cancellation_in_one_turn_leave_nothing_behind() -> None:
    scripted = Scripted()
    asking = asyncio.create_task(send_and_wait(scripted, PAY, CALL_HEADERS, 5000))
    await until(lambda: bool(scripted.calls))
    asking.cancel()
    scripted.calls[0].reply(HELLO)
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert scripted.calls[0].abandoned


def test_neither_requests_nor_answers_show_what_is_in_them() -> None:
    shown = (
        f"{Request('/pay', 'POST', b'246810', headers=(('Idempotency-Key', 'pay_1'),))!r} {Response(200, b'246810')!r}"
    )
    assert "246810" not in shown


def test_only_an_error_that_is_certain_says_not_sent() -> None:
    assert SourceError("").sent
    assert Unreachable("").sent
    assert not Unreachable("", sent=False).sent
