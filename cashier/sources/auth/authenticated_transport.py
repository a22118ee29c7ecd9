"""A transport whose requests carry a credential, and whose responses are judged by its method.

Every request that is sent gets a credential of its own: batches, hedges and retries too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

from cashier.source_errors import FailureReason, SourceError
from cashier.sources.auth.authenticator import Authenticator, not_sent
from cashier.wire.call_completion import deliver
from cashier.wire.transport import CallHeaders, OnResponse, Request, Response, Transport, TransportCall

# More would only take turns: signing keeps a core busy.
_THREADS = 2


class AuthenticatedTransport:
    """A `Transport` around another one."""

    def __init__(self, authenticator: Authenticator, transport: Transport) -> None:
        self._authenticator = authenticator
        self._transport = transport
        self._threads = ThreadPoolExecutor(_THREADS, "signing") if authenticator.slow else None
        self._signing: set[asyncio.Future[Request]] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<AuthenticatedTransport {self._authenticator!r} {self._transport!r}>"

    @property
    def addresses(self) -> tuple[str, ...]:
        return self._transport.addresses

    async def open(self) -> None:
        await self._transport.open()

    async def is_reachable(self) -> bool:
        return await self._transport.is_reachable()

    def send(
        self, request: Request, call_headers: CallHeaders, budget_ms: int, on_response: OnResponse, avoid: int = 0
    ) -> TransportCall:
        """See `Transport`. Without a credential nothing is sent."""
        if self._threads is not None:
            return self._send_from_thread(self._threads, request, call_headers, budget_ms, on_response, avoid)
        try:
            authenticated = self._authenticator.authenticate(request)
        except SourceError as fault:
            return _Refusal(on_response, fault)
        return self._send(authenticated, call_headers, budget_ms, on_response, avoid)

    def _send(
        self, request: Request, call_headers: CallHeaders, budget_ms: int, on_response: OnResponse, avoid: int
    ) -> TransportCall:
        judge = self._authenticator.judge

        def on_received(response: Response | SourceError) -> None:
            on_response(judge(request, response) if isinstance(response, Response) else response)

        return self._transport.send(request, call_headers, budget_ms, on_received, avoid)

    def _send_from_thread(
        self,
        threads: ThreadPoolExecutor,
        request: Request,
        call_headers: CallHeaders,
        budget_ms: int,
        on_response: OnResponse,
        avoid: int,
    ) -> TransportCall:
        if self._closed:
            return _Refusal(on_response, _closed())
        started_s = monotonic()

        def send(authenticated: Request, on_outcome: OnResponse) -> TransportCall:
            left_ms = max(1, budget_ms - int((monotonic() - started_s) * 1000))
            return self._send(authenticated, call_headers, left_ms, on_outcome, avoid)

        signing = asyncio.get_running_loop().run_in_executor(threads, self._authenticator.authenticate, request)
        self._signing.add(signing)
        signing.add_done_callback(self._signing.discard)
        return _SigningCall(signing, send, on_response)

    async def close(self) -> None:
        self._closed = True
        if self._signing:
            await asyncio.wait(self._signing)
        await self._transport.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False)


def _closed() -> SourceError:
    return not_sent("closed", FailureReason.CLOSED)


class _Refusal:
    """A `TransportCall` that ends with an error before anything was sent."""

    __slots__ = ("_handle",)

    address_index = 0
    sent = False

    def __init__(self, on_response: OnResponse, error: SourceError) -> None:
        self._handle = asyncio.get_running_loop().call_soon(deliver, on_response, error)

    def abandon(self) -> None:
        self._handle.cancel()


class _SigningCall:
    """A `TransportCall` that is being signed in a thread, and then sent."""

    __slots__ = ("_call", "_on_response", "_send", "_signing")

    def __init__(
        self,
        signing: asyncio.Future[Request],
        send: Callable[[Request, OnResponse], TransportCall],
        on_response: OnResponse,
    ) -> None:
        self._signing = signing
        self._send = send
        self._on_response: OnResponse | None = on_response
        self._call: TransportCall | None = None
        signing.add_done_callback(self._on_signed)

    @property
    def address_index(self) -> int:
        return 0 if self._call is None else self._call.address_index

    @property
    def sent(self) -> bool:
        return self._call is not None and self._call.sent

    def abandon(self) -> None:
        self._on_response = None
        self._signing.cancel()
        if self._call is not None:
            self._call.abandon()

    def _on_signed(self, signing: asyncio.Future[Request]) -> None:
        if self._on_response is None:
            return
        if signing.cancelled():
            self._finish(_closed())
            return
        fault = signing.exception()
        if fault is None:
            self._call = self._send(signing.result(), self._finish)
        elif isinstance(fault, SourceError):
            self._finish(fault)
        else:
            self._finish(not_sent(f"signing raised {type(fault).__name__}", FailureReason.NO_CREDENTIAL))
            raise fault  # a bug, for the loop to report

    def _finish(self, outcome: Response | SourceError) -> None:
        on_response, self._on_response = self._on_response, None
        if on_response is not None:
            deliver(on_response, outcome)
