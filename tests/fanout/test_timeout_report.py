"""A timeout is reported once, however long after the ask its call began."""

from __future__ import annotations

import asyncio
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from cashier.fanout.ask import Ask, AskCall, Importance, Known, OnOutcome, SourceStatus
from cashier.fanout.plan import Plan
from cashier.fanout.scatter import Timing, scatter
from cashier.source_errors import SourceError
from tests.fanout.cache_rig import BARE, SILENT, Rig, ScriptedSecondLevel
from tests.fanout.scripted_upstream import ScriptedUpstream, guarded
from tests.support.virtual_time import MS_NS, clock_ns, run_in_virtual_time

TIMEOUT_MS = 50
TIMING = Timing(0, 0)


class Reports(list[str]):
    def add(self, endpoint: str, error: SourceError) -> None:
        self.append(str(error))


async def status_of(start: Any, known: Known, deadline_ms: int) -> SourceStatus:
    plan = Plan([Ask("card", Importance.GATING, ("key",), TIMEOUT_MS, start)], ["key"])
    deadline_ns = clock_ns() + deadline_ms * MS_NS
    result = await scatter(plan, known, None, deadline_ns=deadline_ns, timing=TIMING, clock_ns=clock_ns)
    return result.reports[0].status


@given(st.integers(0, 49))
@example(2)
def test_a_call_that_a_busy_machine_sent_late(later_ms: int) -> None:
    async def main() -> None:
        guard, reports = guarded(ScriptedUpstream(SILENT), BARE, ceiling_ms=TIMEOUT_MS), Reports()
        guard.on_failure = reports.add

        def start(known: Known, call_headers: Any, budget_ms: int, done: OnOutcome) -> AskCall | None:
            guard.clock_ns = lambda: clock_ns() + later_ms * MS_NS
            try:
                return guard.start(known, call_headers, budget_ms, done)
            finally:
                guard.clock_ns = clock_ns

        assert await status_of(start, {"key": "u_1"}, 9_000) is SourceStatus.TIMEOUT
        assert reports == ["no answer within the timeout"]
        guard.close()

    run_in_virtual_time(main())


# A read that ends at the very moment of the timeout may come before or after it.
@given(st.integers(0, 80).filter(lambda read_ms: read_ms != TIMEOUT_MS), st.integers(2, 200))
@example(2, 200)
@example(0, TIMEOUT_MS)
def test_a_call_after_a_slow_read_of_the_shared_cache(read_ms: int, deadline_ms: int) -> None:
    async def main() -> None:
        rig, reports = Rig(SILENT, l2=ScriptedSecondLevel(read_ms)), Reports()
        rig.guard.on_failure = reports.add
        assert await status_of(rig.cache.start, {"key": "u_1"}, deadline_ms) is SourceStatus.TIMEOUT
        expired = deadline_ms >= TIMEOUT_MS
        assert reports == ["no answer within the timeout"] * (expired and read_ms < TIMEOUT_MS)
        rig.guard.close()

    run_in_virtual_time(main())


@pytest.mark.virtual_time
async def test_the_last_waiter_of_a_call_reports_it() -> None:
    rig, reports = Rig(SILENT), Reports()
    rig.guard.on_failure = reports.add

    async def ask(after_ms: int) -> SourceStatus:
        await asyncio.sleep(after_ms / 1_000)
        return await status_of(rig.cache.start, {"key": "u_1"}, 9_000)

    assert tuple(await asyncio.gather(ask(0), ask(20))) == (SourceStatus.TIMEOUT,) * 2
    assert rig.calls == 1
    assert reports == ["no answer within the timeout"]
    rig.guard.close()
