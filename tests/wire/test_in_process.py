"""The in-process transport: the same guarantees as the others, and started calls continue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cashier.source_errors import Overloaded, SourceError, TimedOut, Unreachable
from cashier.wire.awaited_call import send_and_wait
from cashier.wire.in_process import InProcessTransport
from cashier.wire.transport import Request, Response, Transport
from tests.wire.client_side import CALL_HEADERS, RecordedCall, no_leaks, send, settle

HELLO = Response(200, b"hello")
PAY = Request("/payments", "POST", b"{}", safe=False)


class Service:
    """Records its requests. Answers once released, or raises."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.done: list[Request] = []
        self.cancelled: list[Request] = []
        self.released = asyncio.Event()
        self.raises: BaseException | None = None

    async def __call__(self, request: Request) -> Response:
        self.requests.append(request)
        try:
            await self.released.wait()
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
async def transport(service: Service) -> AsyncIterator[InProcessTransport]:
    async with no_leaks():
        local = InProcessTransport(service)
        await local.open()
        yield local
        service.released.set()
        await local.close()
        assert repr(local) == "<InProcessTransport 0 in flight, closed>"


@pytest.fixture
async def reported() -> list[dict[str, Any]]:
    """The contexts that the loop's exception handler received."""
    contexts: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
    return contexts


async def test_it_is_a_transport_with_one_address(transport: InProcessTransport) -> None:
    as_transport: Transport = transport
    assert as_transport.addresses == ("local",)


async def test_the_function_receives_the_request_and_its_result_is_the_outcome(
    transport: InProcessTransport, service: Service
) -> None:
    call = RecordedCall(transport, PAY)
    assert (call.address_index, call.sent, repr(transport)) == (0, False, "<InProcessTransport 1 in flight>")
    await settle()
    assert (call.sent, call.outcomes) == (True, [])
    service.released.set()
    assert await call.outcome() is HELLO
    assert service.requests == [PAY]
    call.abandon()  # also after the outcome


async def test_an_immediate_result_still_arrives_after_send_has_returned() -> None:
    async def at_once(request: Request) -> Response:
        return HELLO

    local = InProcessTransport(at_once)
    assert await send(local).outcome() is HELLO
    await local.close()


async def test_a_call_abandoned_before_the_function_starts_never_starts_it(
    transport: InProcessTransport, service: Service
) -> None:
    call = RecordedCall(transport, PAY)
    call.abandon()
    assert not call.sent
    await settle()
    assert (service.requests, call.outcomes) == ([], [])


async def test_a_started_payment_continues_after_the_caller_gave_up(
    transport: InProcessTransport, service: Service
) -> None:
    call = RecordedCall(transport, PAY)
    await settle()
    call.abandon()
    await settle()
    assert repr(transport) == "<InProcessTransport 1 in flight>"
    service.released.set()
    await settle()
    assert (service.done, service.cancelled, call.outcomes) == ([PAY], [], [])


async def test_a_started_safe_post_continues_too(transport: InProcessTransport, service: Service) -> None:
    reverse = RecordedCall(transport, Request("/payments/pay_1/reverse", "POST"))
    await settle()
    reverse.abandon()
    service.released.set()
    await settle()
    assert len(service.done) == 1


async def test_an_abandoned_read_is_cancelled(transport: InProcessTransport, service: Service) -> None:
    call = send(transport)
    await settle()
    call.abandon()
    call.abandon()
    await settle()
    assert (len(service.cancelled), call.outcomes, repr(transport)) == (1, [], "<InProcessTransport 0 in flight>")


async def test_cancelling_the_caller_does_not_cancel_its_payment(
    transport: InProcessTransport, service: Service
) -> None:
    asking = asyncio.create_task(send_and_wait(transport, PAY, CALL_HEADERS, 10_000))
    await settle()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    service.released.set()
    await settle()
    assert service.done == [PAY]


async def test_a_timeout_after_the_start_counts_as_sent(transport: InProcessTransport) -> None:
    outcome = await send_and_wait(transport, PAY, CALL_HEADERS, 50)
    assert isinstance(outcome, TimedOut)
    assert outcome.sent


@pytest.mark.parametrize("error", [Overloaded("too much", 2.0), Unreachable("refused", sent=False)])
async def test_a_source_error_of_the_function_is_delivered_unchanged(
    transport: InProcessTransport, service: Service, reported: list[dict[str, Any]], error: SourceError
) -> None:
    service.raises = error
    service.released.set()
    assert await RecordedCall(transport, PAY).outcome() is error
    assert reported == []


async def test_another_exception_means_unreachable_and_is_reported_to_the_loop(
    transport: InProcessTransport, service: Service, reported: list[dict[str, Any]]
) -> None:
    service.raises = LookupError("no such thing")
    service.released.set()
    outcome = await RecordedCall(transport, PAY).outcome()
    assert isinstance(outcome, Unreachable)
    assert (outcome.sent, outcome.detail) == (True, "local: the function raised LookupError")
    assert [context["exception"] for context in reported] == [service.raises]


async def test_a_function_that_cannot_be_called_means_unreachable(reported: list[dict[str, Any]]) -> None:
    local = InProcessTransport(None)  # type: ignore[arg-type]  # as an untyped caller may
    outcome = await RecordedCall(local, PAY).outcome()
    assert isinstance(outcome, Unreachable)
    assert outcome.detail == "local: the function raised TypeError"
    await local.close()
    assert len(reported) == 1


async def test_a_cancelled_function_means_unreachable(transport: InProcessTransport, service: Service) -> None:
    service.raises = asyncio.CancelledError()
    service.released.set()
    outcome = await RecordedCall(transport, PAY).outcome()
    assert isinstance(outcome, Unreachable)
    assert outcome.sent


async def test_closing_ends_all_calls_and_gives_started_ones_a_grace_period(service: Service) -> None:
    async with no_leaks():
        local = InProcessTransport(service)
        paying, looking = RecordedCall(local, PAY), send(local)
        await settle()
        closing = asyncio.create_task(local.close())
        not_started = RecordedCall(local, PAY)  # it would start after the closing
        await settle()
        assert [type(call.outcomes[0]) for call in (paying, looking, not_started)] == [Unreachable] * 3
        assert [getattr(call.outcomes[0], "sent", None) for call in (paying, looking, not_started)] == [
            True,
            True,
            False,
        ]
        service.released.set()
        await closing
        assert service.done == [PAY]
        assert len(service.requests) == 2


async def test_closing_waits_for_a_bounded_time(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cashier.wire.in_process.CLOSE_GRACE_S", 0.01)
    local = InProcessTransport(service)
    abandoned = RecordedCall(local, PAY)
    await settle()
    abandoned.abandon()
    await local.close()
    assert (service.cancelled, abandoned.outcomes) == ([PAY], [])


async def test_a_call_after_closing_is_not_sent(service: Service) -> None:
    local = InProcessTransport(service)
    await local.close()
    outcome = await RecordedCall(local, PAY).outcome()
    assert isinstance(outcome, Unreachable)
    assert not outcome.sent
    assert service.requests == []
    await local.close()
