"""The transport without a network: the same promises as the others, and what was begun is not undone by who stops waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cashier.source_errors import Overloaded, SourceError, TimedOut, Unreachable
from cashier.wire.in_process import InProcessTransport
from cashier.wire.request_response import send_and_wait as awaited
from cashier.wire.transport import Request, Response, Transport
from tests.wire.asking import CALL_HEADERS, Asked, arrival, ask, nothing_left

HELLO = Response(200, b"hello")
PAY = Request("/payments", "POST", b"{}", safe=False)


class Service:
    """Notes what it is asked. Answers when it is let, or with what it raises."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.done: list[Request] = []
        self.cancelled: list[Request] = []
        self.lets = asyncio.Event()
        self.raises: BaseException | None = None

    async def __call__(self, request: Request) -> Response:
        self.asked.append(request)
        try:
            await self.lets.wait()
        except asyncio.CancelledError:
            self.cancelled.append(request)
            raise
        if self.raises is not None:
            raise self.raises
        self.done.append(request)
        return HELLO


@pytest.fixture
async def service() -> Service:
    return Service()


@pytest.fixture
async def wire(service: Service) -> AsyncIterator[InProcessTransport]:
    async with nothing_left():
        local = InProcessTransport(service)
        await local.open()
        yield local
        service.lets.set()
        await local.close()
        assert repr(local) == "<InProcessTransport 0 in flight, closed>"


@pytest.fixture
async def complaints() -> list[dict[str, Any]]:
    """What the loop was told of."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    return told


async def test_it_is_a_transport_of_one_place(wire: InProcessTransport) -> None:
    transport: Transport = wire
    assert transport.addresses == ("local",)


async def test_the_function_gets_the_whole_request_and_its_answer_is_the_reply(
    wire: InProcessTransport, service: Service
) -> None:
    asked = Asked(wire, PAY)
    assert (asked.exchange.address_index, asked.exchange.sent, repr(wire)) == (0, False, "<InProcessTransport 1 in flight>")
    await arrival()
    assert (asked.exchange.sent, asked.outcomes) == (True, [])
    service.lets.set()
    assert await asked.outcome() is HELLO
    assert service.asked == [PAY]
    asked.exchange.abandon()  # also after the reply


async def test_one_that_answers_at_once_still_replies_later_than_it_was_sent() -> None:
    async def at_once(request: Request) -> Response:
        return HELLO

    local = InProcessTransport(at_once)
    assert await ask(local).outcome() is HELLO
    await local.close()


async def test_what_is_abandoned_before_it_began_is_never_begun(wire: InProcessTransport, service: Service) -> None:
    asked = Asked(wire, PAY)
    asked.exchange.abandon()
    assert not asked.exchange.sent
    await arrival()
    assert (service.asked, asked.outcomes) == ([], [])


async def test_a_payment_that_was_begun_goes_on_when_nobody_waits_any_more(
    wire: InProcessTransport, service: Service
) -> None:
    asked = Asked(wire, PAY)
    await arrival()
    asked.exchange.abandon()
    await arrival()
    assert repr(wire) == "<InProcessTransport 1 in flight>"
    service.lets.set()
    await arrival()
    assert (service.done, service.cancelled, asked.outcomes) == ([PAY], [], [])


async def test_what_ends_something_and_may_be_repeated_goes_on_too(wire: InProcessTransport, service: Service) -> None:
    reverse = Asked(wire, Request("/payments/pay_1/reverse", "POST"))
    await arrival()
    reverse.exchange.abandon()
    service.lets.set()
    await arrival()
    assert len(service.done) == 1


async def test_a_look_that_nobody_waits_for_ends(wire: InProcessTransport, service: Service) -> None:
    asked = ask(wire)
    await arrival()
    asked.exchange.abandon()
    asked.exchange.abandon()
    await arrival()
    assert (len(service.cancelled), asked.outcomes, repr(wire)) == (1, [], "<InProcessTransport 0 in flight>")


async def test_who_is_cancelled_while_it_pays_does_not_undo_it(wire: InProcessTransport, service: Service) -> None:
    asking = asyncio.create_task(awaited(wire, PAY, CALL_HEADERS, 10_000))
    await arrival()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    service.lets.set()
    await arrival()
    assert service.done == [PAY]


async def test_silence_may_mean_anything(wire: InProcessTransport) -> None:
    outcome = await awaited(wire, PAY, CALL_HEADERS, 1)
    assert isinstance(outcome, TimedOut)
    assert outcome.sent


@pytest.mark.parametrize("error", [Overloaded("too much", 2.0), Unreachable("refused", sent=False)])
async def test_what_it_says_in_our_words_is_handed_on(
    wire: InProcessTransport, service: Service, complaints: list[dict[str, Any]], error: SourceError
) -> None:
    service.raises = error
    service.lets.set()
    assert await Asked(wire, PAY).outcome() is error
    assert complaints == []


async def test_what_else_it_raises_is_no_answer_and_is_told_to_the_loop(
    wire: InProcessTransport, service: Service, complaints: list[dict[str, Any]]
) -> None:
    service.raises = LookupError("no such thing")
    service.lets.set()
    outcome = await Asked(wire, PAY).outcome()
    assert isinstance(outcome, Unreachable)
    assert (outcome.sent, outcome.detail) == (True, "local: the function raised LookupError")
    assert [context["exception"] for context in complaints] == [service.raises]


async def test_a_function_that_cannot_be_called_is_no_answer_either(complaints: list[dict[str, Any]]) -> None:
    local = InProcessTransport(None)  # type: ignore[arg-type]  # what a caller without types may do
    outcome = await Asked(local, PAY).outcome()
    assert isinstance(outcome, Unreachable)
    assert outcome.detail == "local: the function raised TypeError"
    await local.close()
    assert len(complaints) == 1


async def test_a_function_that_is_cancelled_is_no_answer(wire: InProcessTransport, service: Service) -> None:
    service.raises = asyncio.CancelledError()
    service.lets.set()
    outcome = await Asked(wire, PAY).outcome()
    assert isinstance(outcome, Unreachable)
    assert outcome.sent


async def test_closing_tells_who_waits_and_leaves_time_to_what_was_begun(service: Service) -> None:
    async with nothing_left():
        local = InProcessTransport(service)
        paying, looking = Asked(local, PAY), ask(local)
        await arrival()
        closing = asyncio.create_task(local.close())
        unbegun = Asked(local, PAY)  # its turn comes after the closing's
        await arrival()
        assert [type(asked.outcomes[0]) for asked in (paying, looking, unbegun)] == [Unreachable] * 3
        assert [getattr(asked.outcomes[0], "sent", None) for asked in (paying, looking, unbegun)] == [True, True, False]
        service.lets.set()
        await closing
        assert service.done == [PAY]
        assert len(service.asked) == 2


async def test_closing_waits_for_nobody_for_ever(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cashier.wire.in_process.CLOSE_GRACE_S", 0.01)
    local = InProcessTransport(service)
    abandoned = Asked(local, PAY)
    await arrival()
    abandoned.exchange.abandon()
    await local.close()
    assert (service.cancelled, abandoned.outcomes) == ([PAY], [])


async def test_what_is_sent_after_the_end_was_not_sent(service: Service) -> None:
    local = InProcessTransport(service)
    await local.close()
    outcome = await Asked(local, PAY).outcome()
    assert isinstance(outcome, Unreachable)
    assert not outcome.sent
    assert service.asked == []
    await local.close()
