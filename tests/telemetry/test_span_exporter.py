"""The exporter, against a receiver of OTLP/HTTP: everything arrives, and nothing waits for it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from typing import Any

import pytest

from cashier.metrics.store import Store
from cashier.telemetry.collector_client import CollectorClient, Delivery
from cashier.telemetry.collector_url import CollectorUrl
from cashier.telemetry.otlp_encoder import OtlpEncoder
from cashier.telemetry.otlp_environment import otlp_headers, resource_attributes
from cashier.telemetry.span import Span, SpanEvent, SpanKind
from cashier.telemetry.span_exporter import MOST_QUEUED, REPORT_S, WAITS_S, SpanExporter
from cashier.telemetry.trace_context import TraceContext
from tests.telemetry.collector import Collector, collector, until

SPAN = Span(
    context=TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"),
    parent_id="00f067aa0ba902b7",
    name="card",
    kind=SpanKind.CLIENT,
    started_ns=1_700_000_000_000_000_000,
    ended_ns=1_700_000_000_007_000_000,
    attributes={"text": "T", "whole": 7, "part": 0.5, "flag": True, "none": False},
    events=(SpanEvent("hedge", 1_700_000_000_003_000_000, {"server.address": "127.0.0.1"}),),
    links=(TraceContext("1" * 32, "2" * 16),),
    error="REFUSED",
)


def spans(*names: str) -> Sequence[Span]:
    return [
        Span(context=TraceContext.root(), parent_id=None, name=name, kind=SpanKind.SERVER, started_ns=1, ended_ns=2)
        for name in names
    ]


class Exports:
    """An exporter, and what it logged."""

    def __init__(self, url: str, headers: dict[str, str] | None = None, timeout_s: float = 5.0) -> None:
        self.lines: list[dict[str, Any]] = []
        self.now_s = 0.0
        encoder = OtlpEncoder(resource_attributes("shop", "1.2.3", {}), "1.2.3")
        self.exporter = SpanExporter(
            CollectorClient(CollectorUrl.parse(url), headers or {}, timeout_s),
            encoder,
            Store(),
            gather_s=0.0,
            waits_s=(0.0,) * len(WAITS_S),
            clock_s=lambda: self.now_s,
            warn=lambda event, **fields: self.lines.append(fields),
        )
        self.exporter.start()

    def put(self, *names: str) -> None:
        self.exporter.put(partial(spans, *names))

    async def counted(self, **counts: int) -> None:
        await until(lambda: all(getattr(self.exporter, name).value == count for name, count in counts.items()))

    async def stop(self, timeout_s: float = 5.0) -> None:
        await asyncio.to_thread(self.exporter.stop, timeout_s)


@pytest.fixture
async def received() -> AsyncIterator[Collector]:
    async with collector() as opened:
        yield opened


@contextmanager
def refusing_port() -> Iterator[str]:
    with socket.socket() as bound:  # bound, but it does not listen
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


async def test_a_span_arrives_with_all_that_it_has(received: Collector) -> None:
    exports = Exports(received.url)
    exports.exporter.put(lambda: [SPAN])
    await exports.stop()
    (span,) = received.spans
    assert (span.trace_id, span.span_id, span.parent_id) == (
        SPAN.context.trace_id,
        SPAN.context.span_id,
        SPAN.parent_id,
    )
    assert (span.name, span.kind, span.error) == ("card", "CLIENT", "REFUSED")
    assert (span.started_ns, span.ended_ns) == (SPAN.started_ns, SPAN.ended_ns)
    assert span.attributes == SPAN.attributes
    assert [type(value) for value in span.attributes.values()] == [str, int, float, bool, bool]
    assert span.events == (("hedge", SPAN.events[0].at_ns, {"server.address": "127.0.0.1"}),)
    assert span.links == (("1" * 32, "2" * 16),)
    assert span.resource["service.name"] == "shop"
    assert span.resource["service.version"] == "1.2.3"
    assert span.resource["service.instance.id"].endswith(f":{span.resource['process.pid']}")
    assert received.headers[0]["content-type"] == "application/x-protobuf"


async def test_operations_queued_together_leave_in_one_export(received: Collector) -> None:
    exports = Exports(received.url)
    received.held = asyncio.Event()
    exports.put("first")
    await until(lambda: bool(received.bodies))
    exports.put("second", "its child")
    exports.put("third")
    received.held.set()
    await exports.stop()
    assert [span.name for span in received.spans] == ["first", "second", "its child", "third"]
    assert len(received.bodies) == 2
    assert exports.exporter.exported.value == 3


async def test_headers_of_the_environment_are_sent_and_never_shown(received: Collector) -> None:
    headers = otlp_headers(
        {
            "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20s3cret,x-tenant=a, broken ,=b",
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "x-tenant=shop",
        }
    )
    exports = Exports(received.url, headers)
    exports.put("one")
    await exports.stop()
    assert received.headers[0]["authorization"] == "Bearer s3cret"
    assert received.headers[0]["x-tenant"] == "shop"
    assert "s3cret" not in repr(exports.exporter)


async def test_a_header_that_cannot_be_sent_is_not_quoted_in_the_log(received: Collector) -> None:
    exports = Exports(received.url, {"authorization": "s3cret\r\nx: y"})
    exports.put("one")
    await exports.stop()
    assert received.bodies == []
    assert [line["why"] for line in exports.lines] == ["ValueError"]


def test_attributes_of_the_environment_are_added_to_the_resource_and_replace_none_of_ours() -> None:
    environment = {"OTEL_RESOURCE_ATTRIBUTES": "k8s.pod.name=pod-7,service.name=other,deployment.environment=a%2Cb"}
    attributes = resource_attributes("shop", "1", environment)
    assert attributes["k8s.pod.name"] == "pod-7"
    assert attributes["deployment.environment"] == "a,b"
    assert attributes["service.name"] == "shop"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_an_overloaded_collector_is_asked_again(received: Collector, status: int) -> None:
    received.statuses = [status] * len(WAITS_S)
    exports = Exports(received.url)
    exports.put("one")
    await until(lambda: bool(received.spans))
    await exports.stop()
    assert len(received.bodies) == len(WAITS_S) + 1
    assert (exports.exporter.exported.value, exports.exporter.refused.value, exports.lines) == (1, 0, [])


@pytest.mark.moves("cashier_trace_exports_total")
@pytest.mark.parametrize("status", [301, 400, 401, 404, 500])
async def test_a_refused_export_is_dropped_at_once_counted_and_logged(received: Collector, status: int) -> None:
    received.statuses = [status]
    exports = Exports(received.url)
    exports.put("one")
    await until(lambda: bool(exports.lines))
    exports.put("two")
    await exports.stop()
    assert [span.name for span in received.spans] == ["two"]
    assert (exports.exporter.exported.value, exports.exporter.refused.value) == (1, 1)
    assert exports.lines == [{"url": f"{received.url}/v1/traces", "why": f"status {status}", "operations": 1}]


async def test_an_unreachable_collector_costs_one_line_a_minute() -> None:
    with refusing_port() as url:
        exports = Exports(url)
        for number in range(1, 4):
            exports.put("one")
            await exports.counted(refused=number)
        exports.now_s = REPORT_S
        exports.put("one")
        await exports.stop()
    assert [(line["why"], line["operations"]) for line in exports.lines] == [
        ("Connection refused", 1),
        ("Connection refused", 3),
    ]


@pytest.mark.moves("cashier_trace_exports_total")
async def test_a_collector_that_does_not_answer_costs_what_does_not_fit_into_the_queue(received: Collector) -> None:
    received.held = asyncio.Event()
    exports = Exports(received.url)
    exports.put("first")
    await until(lambda: bool(received.bodies))
    for _ in range(MOST_QUEUED + 5):
        exports.put("queued")
    assert exports.exporter.overflowed.value == 5
    received.held.set()
    await exports.stop()
    assert exports.exporter.exported.value == MOST_QUEUED + 1


@pytest.mark.parametrize(
    "endless",
    [
        b"HTTP/1.1 200 " + b"O" * 100,
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 5,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 20,
    ],
    ids=["status", "header", "interim", "body", "chunks"],
)
async def test_an_answer_in_single_bytes_holds_the_thread_no_longer_than_none(endless: bytes) -> None:
    """A second passes with each byte, which is sent when the client is about to read."""
    loop, reads, passed_s = asyncio.get_running_loop(), asyncio.Semaphore(0), count()

    def clock_s() -> float:
        loop.call_soon_threadsafe(reads.release)
        return float(next(passed_s))

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            for byte in endless:
                await reads.acquire()
                writer.write(bytes((byte,)))
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = CollectorUrl.parse("http://127.0.0.1:%d" % server.sockets[0].getsockname()[1])  # noqa: UP031
        client = CollectorClient(url, {}, timeout_s=40.0, clock_s=clock_s)
        delivery = await asyncio.to_thread(client.post, b"spans")
        for _ in endless:
            reads.release()
    assert delivery == Delivery(fault="TimeoutError", retry=True)
    assert next(passed_s) < 45


async def test_a_stop_waits_for_a_hung_collector_no_longer_than_its_bound(received: Collector) -> None:
    received.held = asyncio.Event()
    exports = Exports(received.url)
    exports.put("one")
    await until(lambda: bool(received.bodies))
    await exports.stop(0.01)
    assert received.spans == []
    received.held.set()
    await asyncio.to_thread(exports.exporter._thread.join)


async def test_spans_that_cannot_be_built_cost_only_themselves(received: Collector) -> None:
    def faulty() -> Sequence[Span]:
        raise ZeroDivisionError

    exports = Exports(received.url)
    exports.exporter.put(faulty)
    exports.put("next")
    await exports.stop()
    assert [span.name for span in received.spans] == ["next"]
    assert exports.exporter.refused.value == 1
    assert exports.lines[0]["why"] == "ZeroDivisionError while they were built"


async def test_an_answer_that_rejects_spans_is_logged(received: Collector) -> None:
    received.rejects = 1
    exports = Exports(received.url)
    exports.put("one")
    await exports.stop()
    assert exports.lines[0]["why"] == "the collector rejected 1 spans"


async def test_the_connection_stays_open_and_is_replaced_when_the_collector_has_closed_it() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for _ in range(2):  # then it closes the connection, without notice
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        exports = Exports("http://127.0.0.1:%d" % server.sockets[0].getsockname()[1])  # noqa: UP031
        for number in range(1, 5):
            exports.put("one")
            await exports.counted(exported=number)
        await exports.stop()
    assert (connections, exports.exporter.refused.value) == (2, 0)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://collector:4318", "http://collector:4318/v1/traces"),
        ("http://collector:4318/", "http://collector:4318/v1/traces"),
        ("https://host/otlp", "https://host:443/otlp/v1/traces"),
        ("https://host/otlp/v1/traces", "https://host:443/otlp/v1/traces"),
        ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
    ],
)
def test_the_url_is_the_collectors_or_that_of_its_endpoint(url: str, expected: str) -> None:
    assert CollectorUrl.parse(url).text == expected


@pytest.mark.parametrize(
    "url",
    [
        "collector:4318",
        "grpc://collector:4317",
        "http://",
        "http://u:s3cret@collector",
        "http://collector?key=s3cret",
        "http://collector:99999",
        "http://collector/a b",
        "http://collector/ä",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the text is checked below
        CollectorUrl.parse(url)
    assert "s3cret" not in str(refused.value)


def test_the_thread_does_not_keep_the_process() -> None:
    exporter = Exports("http://127.0.0.1:9").exporter
    assert exporter._thread.daemon
    exporter.stop()
    assert "cashier-spans" not in [thread.name for thread in threading.enumerate()]
