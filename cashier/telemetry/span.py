"""A span as it is exported: one timed step of a trace, complete when it is made."""

from __future__ import annotations

from enum import IntEnum
from typing import TypeAlias

from msgspec import Struct

from cashier.telemetry.trace_context import TraceContext

Attributes: TypeAlias = dict[str, str | int | float | bool]


class SpanKind(IntEnum):
    """The numbers of OTLP. SERVER: a request that we answer. CLIENT: one that we sent."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3


class SpanEvent(Struct, frozen=True):
    """`at_ns`: since 1970."""

    name: str
    at_ns: int
    attributes: Attributes = {}


class Span(Struct, frozen=True, kw_only=True):
    """Times in ns since 1970. `parent_id`: None for the first span of a trace.

    `links`: spans of other traces that belong to this one. `error`: what failed, a code or a few
    words; None: nothing failed. No attribute holds personal data.
    """

    context: TraceContext
    parent_id: str | None
    name: str
    kind: SpanKind
    started_ns: int
    ended_ns: int
    attributes: Attributes = {}
    events: tuple[SpanEvent, ...] = ()
    links: tuple[TraceContext, ...] = ()
    error: str | None = None
