"""The hedge delay, and the stop of hedging while the whole source is slow."""

from __future__ import annotations

import pytest

from cashier.fanout.hedge import Hedge, HedgeSettings
from cashier.fanout.latency_histogram import NEVER_NS

MS_NS = 1_000_000


def learn(
    hedge: Hedge, *, p50_ms: float = 10, share_ms: float = 30, count: int = 1_000, allowed: bool = True, times: int = 1
) -> bool:
    for _ in range(times):
        hedge.learn(count, round(p50_ms * MS_NS), round(share_ms * MS_NS), allowed=allowed)
    return hedge.delay_ns != NEVER_NS


def learned() -> Hedge:
    hedge = Hedge(HedgeSettings())
    assert learn(hedge)
    return hedge


def test_there_is_no_hedge_before_a_hundred_calls() -> None:
    hedge = Hedge(HedgeSettings())
    assert hedge.delay_ns == NEVER_NS
    assert not learn(hedge, count=99)
    assert learn(hedge, count=100)
    assert hedge.delay_ns == 30 * MS_NS
    assert repr(hedge) == "<Hedge after 30.0 ms>"


def test_the_delay_is_at_least_two_ms() -> None:
    hedge = Hedge(HedgeSettings())
    assert learn(hedge, p50_ms=0.1, share_ms=0.2)
    assert hedge.delay_ns == 2 * MS_NS


def test_there_is_no_hedge_without_settings_or_without_room() -> None:
    assert not learn(Hedge(None))
    assert Hedge(None).quantile == 1.0
    assert not learn(Hedge(HedgeSettings()), allowed=False)


def test_there_is_no_hedge_without_a_known_quantile() -> None:
    hedge = learned()
    hedge.learn(1_000, 10 * MS_NS, NEVER_NS, allowed=True)
    assert repr(hedge) == "<Hedge never>"


def test_hedging_stops_while_the_median_is_doubled_and_resumes() -> None:
    hedge = learned()
    assert learn(hedge, p50_ms=19.9)
    assert not learn(hedge, p50_ms=21)
    assert learn(hedge, p50_ms=11)


def test_a_median_below_a_millisecond_may_double() -> None:
    hedge = Hedge(HedgeSettings())
    learn(hedge, p50_ms=0.2)
    assert learn(hedge, p50_ms=1.1)
    assert not learn(hedge, p50_ms=1.5)


@pytest.mark.parametrize("factor", [3, 5, 10])
def test_a_minute_of_slowness_does_not_become_usual_but_a_quarter_of_an_hour_does(factor: int) -> None:
    hedge = learned()
    assert not learn(hedge, p50_ms=10 * factor, share_ms=300, times=60)
    assert learn(hedge, p50_ms=10 * factor, share_ms=300, times=15 * 60)


def test_the_usual_median_falls_soon_after_slowness() -> None:
    hedge = Hedge(HedgeSettings())
    learn(hedge, p50_ms=100)
    learn(hedge, p50_ms=10, times=60)
    assert not learn(hedge, p50_ms=25)
