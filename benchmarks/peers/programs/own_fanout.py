"""Cashier's own fan-out and wire with a bare merge, as a like-for-like gateway.

Includes the whole pipeline of each source, guards included, and nothing of payments: the bodies are
joined without being decoded, as in the other gateways.

`python -m benchmarks.peers.programs.own_fanout PORT '{"order": "http://127.0.0.1:1234", …}'`
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

import msgspec
import uvicorn
from starlette.types import Message, Receive, Scope, Send

from benchmarks.lab.upstream import SOURCE_NAMES
from cashier import ConsultRequest
from cashier.consultation.source_pipeline import SourcePipeline
from cashier.consultation.source_table import SOURCE_SPECS, consultation_plan, known_inputs
from cashier.fanout.load_shedding import DegradationLadder
from cashier.fanout.s3fifo import S3FifoStore
from cashier.fanout.scatter import Timing, scatter
from cashier.fanout.timer_wheel import TimerWheel
from cashier.settings.schema import Settings, SourceSettings, SourcesSettings
from cashier.sources.source import Inputs, Source
from cashier.sources.source_upstream import WireUpstream
from cashier.web.server import GC_THRESHOLD
from cashier.wire.http1 import Http1Client
from cashier.wire.transport import CallHeaders, Request

# As long as the others, which have no time limits of their own.
PATIENCE_MS = 10_000
DEADLINE_NS = PATIENCE_MS * 1_000_000
TIMING = Timing(grace_ns=DEADLINE_NS, reserve_ns=0)
KEYS = tuple(f'"{name}":'.encode() for name in SOURCE_NAMES)
_decode = msgspec.json.Decoder(ConsultRequest).decode


class BareAdapter:
    """Sends the source's request and returns the body undecoded."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def request(self, asked: Inputs) -> Request:
        return self._source.request(asked)

    def parse(self, status: int, body: bytes, asked: Inputs) -> bytes:
        return body if status == 200 else b"null"


class Gateway:
    """An ASGI application with its sources, open during the server's lifespan."""

    def __init__(self, upstreams: Mapping[str, str]) -> None:
        self._wires = {name: Http1Client([url]) for name, url in upstreams.items()}
        sources: Any = {
            name: SourceSettings(url, cache=False, timeout_ms=PATIENCE_MS) for name, url in upstreams.items()
        }
        settings = Settings(sources=SourcesSettings(**sources))
        wheel = TimerWheel()
        self._pipelines = [
            SourcePipeline(
                spec,
                WireUpstream(BareAdapter(spec.source), self._wires[spec.source.name]),
                settings,
                DegradationLadder(),
                S3FifoStore(1),
                wheel=wheel,
            )
            for spec in SOURCE_SPECS
            if spec.source.name in upstreams
        ]
        self._plan = consultation_plan({pipeline.name: pipeline.binding() for pipeline in self._pipelines})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        asked = _decode((await receive())["body"])
        body = await self._consult(asked)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _consult(self, asked: ConsultRequest) -> bytes:
        deadline_ns = time.perf_counter_ns() + DEADLINE_NS
        gathered = await scatter(
            self._plan, known_inputs(asked), CallHeaders("bench"), deadline_ns=deadline_ns, timing=TIMING
        )
        parts = [key + gathered.answers[name] for key, name in zip(KEYS, SOURCE_NAMES, strict=True)]
        return b"{%b}" % b",".join(parts)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        for wire in self._wires.values():
            await wire.open()
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 10, 10)  # as in the service
        await send(_done("startup"))
        await receive()
        for pipeline in self._pipelines:
            pipeline.close()
        for wire in self._wires.values():
            await wire.close()
        await send(_done("shutdown"))


def _done(what: str) -> Message:
    return {"type": f"lifespan.{what}.complete"}


if __name__ == "__main__":
    uvicorn.run(
        Gateway(json.loads(sys.argv[2])),
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
