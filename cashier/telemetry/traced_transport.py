"""A transport whose calls for traced operations carry a traceparent each, and are recorded.

Calls of all other operations pass through unchanged.
"""

from __future__ import annotations

import time

from cashier.source_errors import SourceError
from cashier.telemetry.traced_step import TracedCall, TracedCallHeaders
from cashier.wire.transport import CallHeaders, OnResponse, Request, Response, Transport, TransportCall


class TracedTransport:
    """A `Transport` around another one."""

    __slots__ = ("_send", "_source", "_transport")

    def __init__(self, source: str, transport: Transport) -> None:
        self._source = source
        self._transport = transport
        self._send = transport.send

    def __repr__(self) -> str:
        return f"<TracedTransport {self._transport!r}>"

    @property
    def addresses(self) -> tuple[str, ...]:
        return self._transport.addresses

    async def open(self) -> None:
        await self._transport.open()

    async def is_reachable(self) -> bool:
        return await self._transport.is_reachable()

    async def close(self) -> None:
        await self._transport.close()

    def send(
        self, request: Request, call_headers: CallHeaders, budget_ms: int, on_response: OnResponse, avoid: int = 0
    ) -> TransportCall:
        """See `Transport`."""
        if call_headers.__class__ is not TracedCallHeaders:
            return self._send(request, call_headers, budget_ms, on_response, avoid)
        return self._send_traced(request, call_headers, budget_ms, on_response, avoid)

    def _send_traced(
        self, request: Request, call_headers: TracedCallHeaders, budget_ms: int, on_response: OnResponse, avoid: int
    ) -> TransportCall:
        traced = call_headers.step.begin_call(self._source, request.method)
        if traced is None:
            return self._send(request, call_headers.untraced(), budget_ms, on_response, avoid)
        call = _RecordedCall(traced, self._transport, on_response)
        own_headers = CallHeaders(call_headers.request_id, traced.context.traceparent, call_headers.tracestate)
        call.call = self._send(request, own_headers, budget_ms, call.on_response, avoid)
        return call


class _RecordedCall:
    """A `TransportCall` that notes its end."""

    __slots__ = ("_on_response", "_traced", "_transport", "call")

    call: TransportCall

    def __init__(self, traced: TracedCall, transport: Transport, on_response: OnResponse) -> None:
        self._traced = traced
        self._transport = transport
        self._on_response: OnResponse | None = on_response

    @property
    def address_index(self) -> int:
        return self.call.address_index

    @property
    def sent(self) -> bool:
        return self.call.sent

    def on_response(self, response: Response | SourceError) -> None:
        on_response = self._on_response
        self._end()
        if isinstance(response, SourceError):
            self._traced.error = response
        else:
            self._traced.status = response.status
        if on_response is not None:
            on_response(response)

    def abandon(self) -> None:
        self._end()
        self.call.abandon()

    def _end(self) -> None:
        if self._on_response is None:
            return
        self._on_response = None
        traced, index, addresses = self._traced, self.call.address_index, self._transport.addresses
        traced.ended_ns = time.perf_counter_ns()
        if 0 <= index < len(addresses):
            traced.address = addresses[index]
