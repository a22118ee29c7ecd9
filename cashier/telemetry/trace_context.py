"""W3C Trace Context: the trace and span that a request belongs to, as the header `traceparent`.

https://www.w3.org/TR/trace-context/, version 00. A header of a later version is read by its
first four fields, as the standard demands.
"""

from __future__ import annotations

import hashlib
import re
from random import getrandbits
from typing import Self

from msgspec import Struct

from cashier.caller_trace import tracestate_of
from cashier.wire.transport import CallHeaders

_TRACEPARENT = re.compile(
    r"(?:00|(?!00|ff)(?P<later>[0-9a-f]{2}))-(?!0{32})(?P<trace>[0-9a-f]{32})-(?!0{16})(?P<span>[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?(later)(?:-[!-~]*)?)"
)
_SAMPLED = 1
# Change the number with the algorithm: the steps of a payment then fall into two traces.
_PAYMENT_DOMAIN = "cashier payment trace 1"


class TraceContext(Struct, frozen=True):
    """One span of one trace. `trace_id` has 32, `span_id` 16 hexadecimal digits.

    `tracestate`: the caller's, for every span of its trace.
    """

    trace_id: str
    span_id: str
    sampled: bool = True
    tracestate: str | None = None

    @classmethod
    def parse(cls, traceparent: str) -> Self | None:
        """None for a header that is not valid."""
        found = _TRACEPARENT.fullmatch(traceparent)
        if found is None:
            return None
        sampled = bool(int(found["flags"], 16) & _SAMPLED)
        return cls(found["trace"], found["span"], sampled, tracestate_of(traceparent))

    @classmethod
    def root(cls) -> Self:
        """The first span of a new trace."""
        return cls("%032x" % (getrandbits(128) or 1), new_span_id())

    def child(self) -> TraceContext:
        """A new span of the same trace."""
        return TraceContext(self.trace_id, new_span_id(), self.sampled, self.tracestate)

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


def caller_headers(request_id: str, traceparent: str | None) -> CallHeaders:
    """Of untraced calls. A `traceparent` that is not valid is left out, and with it its state."""
    if traceparent is None or _TRACEPARENT.fullmatch(traceparent) is None:
        return CallHeaders(request_id)
    return CallHeaders(request_id, traceparent, tracestate_of(traceparent))


def new_span_id() -> str:
    return "%016x" % (getrandbits(64) or 1)


def payment_root(payment_id: str) -> TraceContext:
    """The first span of a payment's own trace: the same in every worker and every request."""
    digest = hashlib.sha256(f"{_PAYMENT_DOMAIN}: {payment_id}".encode()).hexdigest()
    return TraceContext(digest[:32], digest[32:48])


def sampled_share_bps(trace_id: str) -> int:
    """Where in 0 to 9999 the id falls, evenly: one decision for all requests of a trace."""
    return int(trace_id[16:], 16) % 10_000
