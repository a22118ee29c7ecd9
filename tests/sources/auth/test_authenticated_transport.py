"""A transport whose requests carry credentials: fresh ones, off the loop where they take long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from cashier.source_errors import FailureReason, Garbled, SourceError, Unreachable
from cashier.sources.auth.authenticated_transport import AuthenticatedTransport
from cashier.sources.auth.authenticator import Authenticator, not_sent, with_headers
from cashier.sources.auth.message_signature import MessageSignature
from cashier.wire.aiohttp_client import AiohttpClient, AiohttpSettings
from cashier.wire.awaited_call import send_and_wait
from cashier.wire.http1 import Http1Client, Http1Settings
from cashier.wire.transport import NetworkTransport, Request, Response
from tests.sources.adapter_rig import AnsweringTransport
from tests.wire.client_side import CALL_HEADERS, PATIENT, RecordedCall, answer, no_leaks
from tests.wire.scripted_upstream import tcp_upstream

from .conftest import secret_of


class Counting:
    """An `Authenticator` that numbers requests. `hold`: makes it wait in its thread."""

    reads_headers = False

    def __init__(self, *, slow: bool = False, fault: Exception | None = None) -> None:
        self.slow = slow
        self.fault = fault
        self.count = 0
        self.threads: list[threading.Thread] = []
        self.hold = threading.Event()
        self.hold.set()
        self.verdict: Callable[[Response], Response | SourceError] = lambda response: response
        self.judged: list[Request] = []

    def authenticate(self, request: Request) -> Request:
        self.threads.append(threading.current_thread())
        self.hold.wait(30)
        if self.fault is not None:
            raise self.fault
        self.count += 1
        return with_headers(request, (("X-Count", str(self.count)),))

    def judge(self, request: Request, response: Response) -> Response | SourceError:
        self.judged.append(request)
        return self.verdict(response)


def counts(inner: AnsweringTransport) -> list[str]:
    return [dict(request.headers)["X-Count"] for request in inner.requests]


@pytest.fixture(params=[False, True], ids=["at once", "in a thread"])
def counting(request: pytest.FixtureRequest) -> Counting:
    return Counting(slow=request.param)


async def test_every_request_gets_a_credential_of_its_own(counting: Counting) -> None:
    inner = AnsweringTransport()
    transport = AuthenticatedTransport(counting, inner)
    for _ in range(3):
        assert await RecordedCall(transport, Request("/a")).outcome() == Response(200, b"{}")
    assert sorted(counts(inner)) == ["1", "2", "3"]
    assert [thread is threading.main_thread() for thread in counting.threads] == [not counting.slow] * 3
    assert counting.judged == inner.requests
    await transport.close()


async def test_the_verdict_takes_the_place_of_the_response(counting: Counting) -> None:
    counting.verdict = lambda response: Garbled("forged", reason=FailureReason.SIGNATURE)
    transport = AuthenticatedTransport(counting, AnsweringTransport())
    outcome = await RecordedCall(transport, Request("/a")).outcome()
    assert isinstance(outcome, Garbled)
    await transport.close()


async def test_an_error_of_the_wire_is_not_judged(counting: Counting) -> None:
    transport = AuthenticatedTransport(counting, AnsweringTransport(Unreachable("reset")))
    assert isinstance(await RecordedCall(transport, Request("/a")).outcome(), Unreachable)
    assert counting.judged == []
    await transport.close()


async def test_without_a_credential_nothing_is_sent(counting: Counting) -> None:
    counting.fault = not_sent("no token", FailureReason.NO_CREDENTIAL)
    inner = AnsweringTransport()
    transport = AuthenticatedTransport(counting, inner)
    call = RecordedCall(transport, Request("/payments", "POST", b"{}", safe=False))
    assert not call.sent
    outcome = await call.outcome()
    assert isinstance(outcome, Unreachable)
    assert (outcome.sent, outcome.reason) == (False, FailureReason.NO_CREDENTIAL)
    assert inner.requests == []
    await transport.close()


async def test_a_call_abandoned_before_it_is_signed_is_never_sent() -> None:
    counting, inner = Counting(slow=True), AnsweringTransport()
    transport = AuthenticatedTransport(counting, inner)
    counting.hold.clear()
    calls = [RecordedCall(transport, Request("/payments", "POST", b"{}", safe=False)) for _ in range(5)]
    assert not any(call.sent for call in calls)
    for call in calls:
        call.abandon()
    counting.hold.set()
    await transport.close()
    await asyncio.sleep(0)
    assert inner.requests == []
    assert not any(call.outcomes for call in calls)


async def test_the_time_of_signing_counts_against_the_call() -> None:
    counting, inner = Counting(slow=True), AnsweringTransport()
    transport = AuthenticatedTransport(counting, inner)
    counting.hold.clear()
    waiting = RecordedCall(transport, Request("/a"), budget_ms=60_000)
    await asyncio.sleep(0.02)
    counting.hold.set()
    await waiting.outcome()
    ((_, budget_ms),) = inner.sent
    assert 1 <= budget_ms <= 59_980
    await transport.close()


async def test_a_close_waits_for_signing_and_refuses_what_comes_later() -> None:
    counting, inner = Counting(slow=True), AnsweringTransport()
    async with no_leaks():
        transport = AuthenticatedTransport(counting, inner)
        counting.hold.clear()
        call = RecordedCall(transport, Request("/a"))
        asyncio.get_running_loop().call_later(0.01, counting.hold.set)
        await transport.close()
        assert counting.count == 1
        await call.outcome()
        late = await RecordedCall(transport, Request("/a")).outcome()
        assert isinstance(late, Unreachable)
        assert (late.sent, late.reason) == (False, FailureReason.CLOSED)


async def test_a_bug_of_signing_ends_its_call_and_is_reported() -> None:
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["exception"]))
    bug = RuntimeError("k3y")
    transport = AuthenticatedTransport(Counting(slow=True, fault=bug), AnsweringTransport())
    outcome = await RecordedCall(transport, Request("/a")).outcome()
    assert isinstance(outcome, Unreachable)
    assert outcome.sent is False
    assert "k3y" not in outcome.detail
    assert reported == [bug]
    await transport.close()


async def test_a_header_of_the_adapter_that_auth_sets_is_refused() -> None:
    transport = AuthenticatedTransport(Counting(), inner := AnsweringTransport())
    outcome = await RecordedCall(transport, Request("/a", headers=(("x-count", "7"),))).outcome()
    assert isinstance(outcome, Unreachable)
    assert (outcome.sent, outcome.reason) == (False, FailureReason.ADAPTER)
    assert "X-Count" in outcome.detail
    assert inner.requests == []


@pytest.fixture(params=["http1", "aiohttp"])
async def stale(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Any, Callable[[], NetworkTransport]]]:
    async with no_leaks(), tcp_upstream() as upstream:
        url = f"http://127.0.0.1:{upstream.port}"
        if request.param == "http1":
            yield upstream, lambda: Http1Client([url], Http1Settings(ahead=0, **PATIENT))
        else:
            yield upstream, lambda: AiohttpClient([url], AiohttpSettings(**PATIENT))


async def test_a_request_that_the_wire_sends_again_has_a_new_nonce(
    stale: tuple[Any, Callable[[], NetworkTransport]],
) -> None:
    """The service closes a reused connection as the request arrives; it may have seen the nonce."""
    upstream, make = stale
    signer: Authenticator = MessageSignature("k", secret_of("x" * 32), "")
    transport = AuthenticatedTransport(signer, make())
    first = RecordedCall(transport, Request("/a"))
    peer = await upstream.peer()
    await peer.read_request()
    peer.write(answer(b"{}"))
    await first.outcome()
    second = RecordedCall(transport, Request("/a"), budget_ms=2_000)
    seen = await peer.read_request()
    peer.close()
    peer = await upstream.peer()
    again = await peer.read_request()
    peer.write(answer(b"{}"))
    assert await second.outcome() == Response(200, b"{}")
    assert seen.headers["signature"] != again.headers["signature"]
    assert seen.headers["signature-input"] != again.headers["signature-input"]
    await transport.close()


async def test_an_unsafe_request_that_times_out_while_it_is_signed_was_not_sent() -> None:
    counting, inner = Counting(slow=True), AnsweringTransport()
    transport = AuthenticatedTransport(counting, inner)
    counting.hold.clear()
    outcome = await send_and_wait(transport, Request("/p", "POST", b"{}", safe=False), CALL_HEADERS, 5)
    counting.hold.set()
    assert isinstance(outcome, SourceError)
    assert outcome.sent is False
    await transport.close()
    assert inner.requests == []
