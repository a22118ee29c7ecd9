"""What a rate needs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cashier.consultation.plan_report import PlanReport, SourceReportLine
from cashier.consultation.sizing import Sizing, sizing
from cashier.fanout.ask import Importance
from cashier.fanout.cache_lifetime import CacheSettings


def line(name: str, calls: int, most: int | None, timeout_ms: int, fresh_s: float) -> SourceReportLine:
    return SourceReportLine(
        name=name,
        importance=Importance.GATING,
        needs=(),
        timeout_ms=timeout_ms,
        ends_ms=timeout_ms,
        ends_without_claims_ms=timeout_ms,
        calls=calls,
        max_in_flight=most,
        cache=CacheSettings(fresh_s=fresh_s),
        batch=None,
    )


LINES = st.builds(
    line,
    name=st.just("card"),
    calls=st.sampled_from((1, 2)),
    most=st.none() | st.integers(1, 1000),
    timeout_ms=st.integers(1, 1000),
    fresh_s=st.sampled_from((0.0, 30.0)),
)


def report(*lines: SourceReportLine, extra_bps: int = 500) -> PlanReport:
    return PlanReport(
        lines=lines, deadline_ms=150, reserve_ms=3, worst_ms=147, usual_calls=1, worst_calls=2, extra_bps=extra_bps
    )


@given(st.lists(LINES, max_size=4), st.integers(1, 1_000_000), st.integers(1, 10_000), st.integers(0, 10_000))
def test_more_consultations_never_need_less(lines: list[SourceReportLine], rate: int, cpu_us: int, extra: int) -> None:
    def of(rate: int) -> Sizing:
        return sizing(report(*lines, extra_bps=extra), rate, cpu_us)

    less, more = of(rate), of(rate + 1)
    assert less.workers <= more.workers
    assert less.cores <= less.workers * 0.55 + 1e-9
    for now, later, source in zip(less.sources, more.sources, lines, strict=True):
        assert now.usual <= now.most <= later.most
        assert now.in_flight <= later.in_flight
        assert source.max_in_flight is None or now.in_flight <= source.max_in_flight * less.workers
        assert source.calls > 1 or now.most == rate
    assert less.cache_operations <= more.cache_operations


def test_a_worker_may_make_an_extra_call_each_second_at_any_rate() -> None:
    needed = sizing(report(line("card", 2, None, 100, 30.0)), 10, 600)
    assert [(load.usual, load.most, load.in_flight) for load in needed.sources] == [(10, 11, 2)]
    assert needed.cache_operations == 21
