"""An OTLP/HTTP receiver in the test process: it decodes what is exported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from msgspec import Struct
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan


class ReceivedSpan(Struct, frozen=True):
    """A span as the collector sees it. Times in ns since 1970; ids in hexadecimal digits."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: str
    started_ns: int
    ended_ns: int
    attributes: dict[str, Any]
    events: tuple[tuple[str, int, dict[str, Any]], ...]
    links: tuple[tuple[str, str], ...]
    error: str | None
    resource: dict[str, Any]


class Collector:
    """`statuses`: of the next answers, then 200. `rejects`: spans that each answer rejects."""

    def __init__(self) -> None:
        self.spans: list[ReceivedSpan] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.statuses: list[int] = []
        self.rejects = 0
        self.held: asyncio.Event | None = None
        self.url = ""

    def named(self, name: str) -> list[ReceivedSpan]:
        return [span for span in self.spans if span.name == name]

    def exported(self) -> list[bytes]:
        """All bodies without ids and times, whose bytes are any short text at times."""
        return [_without_ids_and_times(ExportTraceServiceRequest.FromString(body)) for body in self.bodies]

    def children(self, parent: ReceivedSpan) -> list[ReceivedSpan]:
        return [span for span in self.spans if (span.trace_id, span.parent_id) == (parent.trace_id, parent.span_id)]

    async def receive(self, request: web.Request) -> web.Response:
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        body = await request.read()
        self.bodies.append(body)
        if self.held is not None:
            await self.held.wait()
        status = self.statuses.pop(0) if self.statuses else 200
        if status == 200:
            self.spans += _spans(ExportTraceServiceRequest.FromString(body))
        answer = ExportTraceServiceResponse()
        answer.partial_success.rejected_spans = self.rejects
        return web.Response(status=status, body=answer.SerializeToString(), content_type="application/x-protobuf")


async def until(condition: Callable[[], bool]) -> None:
    """Wait for another thread, which sets no event of this loop."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


@asynccontextmanager
async def collector() -> AsyncIterator[Collector]:
    received = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", received.receive)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    received.url = f"http://{host}:{port}"
    try:
        yield received
    finally:
        if received.held is not None:
            received.held.set()
        await runner.cleanup()


def _spans(request: ExportTraceServiceRequest) -> list[ReceivedSpan]:
    return [
        _span(span, _attributes(of_resource.resource.attributes))
        for of_resource in request.resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]


def _without_ids_and_times(request: ExportTraceServiceRequest) -> bytes:
    for of_resource in request.resource_spans:
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                for field in ("parent_span_id", "start_time_unix_nano", "end_time_unix_nano"):
                    span.ClearField(field)
                for event in span.events:
                    event.ClearField("time_unix_nano")
                for part in (span, *span.links):
                    part.ClearField("trace_id")
                    part.ClearField("span_id")
    return bytes(request.SerializeToString())


def _span(span: OtlpSpan, resource: dict[str, Any]) -> ReceivedSpan:
    return ReceivedSpan(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex() or None,
        name=span.name,
        kind=OtlpSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        started_ns=span.start_time_unix_nano,
        ended_ns=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        events=tuple((event.name, event.time_unix_nano, _attributes(event.attributes)) for event in span.events),
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        error=span.status.message if span.status.code == span.status.STATUS_CODE_ERROR else None,
        resource=resource,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair) for pair in pairs}


def _value(pair: KeyValue) -> Any:
    return getattr(pair.value, str(pair.value.WhichOneof("value")))
