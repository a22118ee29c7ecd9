"""Examples of what an ask did. `test_simulation` compares the timelines of random scatters."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from cashier.fanout.ask import Ask, Importance
from cashier.fanout.batch import Batch, BatchPolicy
from cashier.fanout.guard import Guard
from cashier.fanout.guarded_source import Mechanisms
from cashier.fanout.hedged_call import HedgedCall
from cashier.fanout.plan import Plan
from cashier.fanout.scatter import Scatter, Timing
from cashier.fanout.timeline import AskTimeline, CallKind, CallOutcome, CallTimeline, Flag, ask_timeline
from cashier.fanout.upstream_protocol import Upstream
from cashier.source_errors import FailureReason, Unreachable
from tests.fanout.batch_rig import ScriptedBatchUpstream
from tests.fanout.scripted_upstream import Reply, ScriptedUpstream, first_then, guarded, pass_ms, set_hedge_delay
from tests.support.virtual_time import MS_NS, clock_ns

pytestmark = pytest.mark.virtual_time
REFUSED = Unreachable("no connection", reason=FailureReason.REFUSED)


async def timeline_of(guard: Guard, waits_ms: int = 100) -> tuple[AskTimeline, int]:
    """The timeline of one ask, and when its scatter started."""
    started_ns = clock_ns()
    scatter = Scatter(
        Plan([Ask("source", Importance.GATING, (), waits_ms, guard.start)], ()),
        None,
        deadline_ns=started_ns + 200 * MS_NS,
        timing=Timing(0, 0),
        conclusive=None,
        clock_ns=clock_ns,
    )
    try:
        await scatter.run({})
        return ask_timeline(scatter.asks[0]), started_ns
    finally:
        scatter.close()


def summary(call: CallTimeline, started_ns: int) -> tuple[Any, ...]:
    ended_ms = None if call.ended_ns is None else (call.ended_ns - started_ns) // MS_NS
    return call.endpoint, call.kind, (call.started_ns - started_ns) // MS_NS, ended_ms, call.outcome


async def test_a_hedge_that_wins_is_told_from_the_slow_first_call() -> None:
    guard = guarded(ScriptedUpstream(first_then(Reply(90), Reply(5)), places=2))
    set_hedge_delay(guard)
    timeline, started_ns = await timeline_of(guard)
    assert timeline.flags == (Flag.HEDGE_SENT, Flag.HEDGE_WON, Flag.LATE)
    assert timeline.timeout_ns == 100 * MS_NS
    first, second = sorted({endpoint.name for endpoint in guard.endpoints}, key=lambda name: name != "address 1")
    assert [summary(call, started_ns) for call in timeline.calls] == [
        (first, CallKind.FIRST, 0, None, CallOutcome.UNFINISHED),
        (second, CallKind.HEDGE, 20, 25, CallOutcome.ANSWERED),
    ]
    guard.close()


async def test_a_retry_has_the_failure_before_it() -> None:
    guard = guarded(ScriptedUpstream(first_then(Reply(3, REFUSED), Reply(5))))
    timeline, started_ns = await timeline_of(guard)
    assert timeline.flags == (Flag.RETRIED,)
    assert [summary(call, started_ns)[1:] for call in timeline.calls] == [
        (CallKind.FIRST, 0, 3, CallOutcome.FAILED),
        (CallKind.RETRY, 3, 8, CallOutcome.ANSWERED),
    ]
    assert timeline.calls[0].error is REFUSED


async def test_a_used_up_budget_of_extra_calls_is_flagged() -> None:
    guard = guarded(ScriptedUpstream(Reply(3, REFUSED)), Mechanisms(breaker=None, extra_bps=0))
    for _ in range(20):
        timeline, _ = await timeline_of(guard)
    assert timeline.flags == (Flag.BUDGET_USED_UP, Flag.FAILED)


async def test_a_call_past_its_timeout_is_late_or_cancelled() -> None:
    late = guarded(ScriptedUpstream(Reply(None)), ceiling_ms=30)
    timeline, _ = await timeline_of(late, 30)
    assert timeline.flags == (Flag.LATE, Flag.TIMEOUT)
    assert [call.outcome for call in timeline.calls] == [CallOutcome.UNFINISHED]
    late.close()
    strict = guarded(ScriptedUpstream(Reply(None)), Mechanisms(late=False), ceiling_ms=30)
    timeline, started_ns = await timeline_of(strict, 30)
    assert timeline.flags == (Flag.TIMEOUT,)
    assert [summary(call, started_ns)[3:] for call in timeline.calls] == [(30, CallOutcome.CANCELLED)]


async def test_a_batched_call_is_flagged() -> None:
    upstream: Upstream = Batch(ScriptedBatchUpstream(), BatchPolicy(), clock_ns)
    guard = Guard("source", upstream, 100, Mechanisms(), guarded(ScriptedUpstream()).ladder, Importance.GATING)
    timeline, _ = await timeline_of(guard)
    assert Flag.BATCHED in timeline.flags
    guard.close()


async def test_a_second_attempt_leaves_no_reference_cycle() -> None:
    upstream = ScriptedUpstream()
    guard = guarded(upstream)
    gc.collect()
    gc.disable()
    try:
        upstream.set_script(first_then(Reply(3, REFUSED), Reply(5)))
        await timeline_of(guard)
        upstream.set_script(Reply())
        upstream.calls.clear()
        await pass_ms(200)  # then the wheel has dropped the ended call
        assert [each for each in gc.get_objects() if isinstance(each, HedgedCall) and each.extra is not None] == []
    finally:
        gc.enable()
