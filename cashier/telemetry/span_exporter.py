"""Exports spans from a thread of its own: the event loop only puts what they are built from.

A thread that computes holds the interpreter, and with it the event loop, for up to 5 ms. So spans
are built and encoded in small pieces, with a pause after each.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeAlias

import structlog

from cashier.metrics.store import Store
from cashier.telemetry.collector_client import CollectorClient
from cashier.telemetry.span import Span

BuildSpans: TypeAlias = Callable[[], Sequence[Span]]
"""Builds the spans of one operation, outside of the event loop."""


class Encoder(Protocol):
    """See `otlp_encoder.OtlpEncoder`."""

    def encode(self, spans: Iterable[Span]) -> bytes: ...

    def rejected(self, answer: bytes) -> int: ...


MOST_QUEUED = 256
MOST_BYTES = 262_144
# How long the spans of one export gather.
GATHER_S = 0.5
PAUSE_S = 0.001
# Before each further try of one export.
WAITS_S = (0.5, 1.0, 2.0)
STOP_S = 2.0
REPORT_S = 60.0

_log = structlog.get_logger("cashier.telemetry")


class SpanExporter:
    """`put` on one thread, `start` and `stop` around it. Counts operations, not spans.

    `exported`: taken by the collector. `overflowed`: not queued, because the collector is slower
    than what comes. `refused`: not taken by the collector.
    """

    def __init__(
        self,
        client: CollectorClient,
        encoder: Encoder,
        metrics: Store,
        *,
        gather_s: float = GATHER_S,
        waits_s: Sequence[float] = WAITS_S,
        clock_s: Callable[[], float] = time.monotonic,
        warn: Callable[..., Any] = _log.warning,
    ) -> None:
        self._client = client
        self._encoder = encoder
        self._gather_s = gather_s
        self._waits_s = waits_s
        self._clock_s = clock_s
        self._warn = warn
        self._queue: deque[BuildSpans] = deque()
        self._queued = threading.Event()
        self._stopping = threading.Event()
        self._reported_s = -REPORT_S
        self._reported = 0
        self._thread = threading.Thread(target=self._run, name="cashier-spans", daemon=True)
        # The loop's thread writes one, the exporter's the other two.
        self.overflowed, self.exported, self.refused = (
            metrics.counter("cashier_trace_exports_total", result) for result in ("overflowed", "exported", "refused")
        )

    def __repr__(self) -> str:
        return f"<SpanExporter {self._client!r} queued={len(self._queue)} exported={self.exported.value}>"

    def start(self) -> None:
        self._thread.start()

    def put(self, build: BuildSpans) -> None:
        """Queue the spans of one operation. Never blocks."""
        if len(self._queue) >= MOST_QUEUED:
            self.overflowed.add()
            return
        self._queue.append(build)
        if not self._queued.is_set():
            self._queued.set()

    def stop(self, timeout_s: float = STOP_S) -> None:
        """Export what is queued, within the time. Blocks."""
        self._stopping.set()
        self._queued.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._queued.wait()
            self._stopping.wait(self._gather_s)
            self._queued.clear()
            self._export_queued()
        self._export_queued()
        self._client.close()

    def _export_queued(self) -> None:
        while self._queue:
            pieces: list[bytes] = []
            size = 0
            while self._queue and size < MOST_BYTES:
                piece = self._piece(self._queue.popleft())
                if piece is not None:
                    pieces.append(piece)
                    size += len(piece)
                time.sleep(PAUSE_S)
            self._deliver(b"".join(pieces), len(pieces))

    def _piece(self, build: BuildSpans) -> bytes | None:
        try:
            return self._encoder.encode(build())
        except Exception as bug:  # noqa: BLE001 - one operation's spans; the thread must live
            self.refused.add()
            self._report(f"{type(bug).__name__} while they were built")
            return None

    def _deliver(self, body: bytes, operations: int) -> None:
        if not operations:
            return
        for wait_s in (*self._waits_s, None):
            delivery = self._client.post(body)
            if not delivery.fault:
                self.exported.add(operations)
                if rejected := self._encoder.rejected(delivery.body):
                    self._report(f"the collector rejected {rejected} spans")
                return
            if wait_s is None or not delivery.retry or self._stopping.wait(max(wait_s, delivery.retry_after_s)):
                break
        self.refused.add(operations)
        self._report(delivery.fault)

    def _report(self, why: str) -> None:
        """At most one line a minute, with the number of operations since the last one."""
        now_s = self._clock_s()
        if now_s - self._reported_s < REPORT_S:
            return
        dropped = self.overflowed.value + self.refused.value
        self._warn("spans were not exported", url=self._client.url.text, why=why, operations=dropped - self._reported)
        self._reported_s, self._reported = now_s, dropped
