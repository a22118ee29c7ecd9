"""The tracestate of a caller: which ones are passed on, and that it belongs to a traceparent."""

from __future__ import annotations

import pytest

from cashier.caller_trace import MOST_STATE_CHARACTERS, CallerTrace, tracestate_of
from cashier.telemetry.trace_context import TraceContext, caller_headers
from cashier.wire.transport import CallHeaders

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
LONGEST = "a=" + "x" * 255 + ",b=" + "y" * (MOST_STATE_CHARACTERS - 260)


@pytest.mark.parametrize(
    ("claimed", "passed_on"),
    [
        ("rojo=00f067aa0ba902b7", "rojo=00f067aa0ba902b7"),
        ("rojo=1,congo=t61rcWkgMzE", "rojo=1,congo=t61rcWkgMzE"),
        ("rojo=1 ,\t, congo=2,", "rojo=1,congo=2"),
        ("fw529a3039@dt=FfFf8b:, 1a-_*/=a b!~", "fw529a3039@dt=FfFf8b:,1a-_*/=a b!~"),
        (",".join(f"k{number}=v" for number in range(32)), ",".join(f"k{number}=v" for number in range(32))),
        (LONGEST, LONGEST),
        (LONGEST + "y", None),
        (",".join(f"k{number}=v" for number in range(33)), None),
        ("a=1,b=2,a=3", None),
        ("", None),
        (" , ", None),
        ("a", None),
        ("a=", None),
        ("=1", None),
        ("A=1", None),
        ("@a=1", None),
        ("a b=1", None),
        ("a=1=2", None),
        ("a=\t1", None),
        ("a=ä", None),
        ("a=1\r\nX-Injected: 1", None),
        ("a=1\n", None),
        ("a=" + "x" * 257, None),
        ("a" * 257 + "=1", None),
    ],
)
def test_a_valid_state_is_passed_on_and_any_other_is_dropped_as_a_whole(claimed: str, passed_on: str | None) -> None:
    trace = CallerTrace(PARENT, claimed)
    assert trace == PARENT
    assert tracestate_of(trace) == passed_on
    assert caller_headers("r-1", trace) == CallHeaders("r-1", PARENT, passed_on)


def test_a_state_without_a_valid_traceparent_is_dropped() -> None:
    assert caller_headers("r-1", CallerTrace(PARENT.upper(), "a=1")) == CallHeaders("r-1")
    assert caller_headers("r-1", None) == CallHeaders("r-1")
    assert caller_headers("r-1", PARENT) == CallHeaders("r-1", PARENT)


def test_each_span_of_the_callers_trace_has_its_state() -> None:
    context = TraceContext.parse(CallerTrace(PARENT, "a=1"))
    assert context is not None
    assert context.child().child().tracestate == "a=1"
    assert TraceContext.root().child().tracestate is None
