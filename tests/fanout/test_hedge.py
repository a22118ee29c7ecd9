"""The hedge delay, and hedging in a simulation: tail latency, extra calls, and when hedges stop."""

from __future__ import annotations

from random import Random

import pytest

from cashier.fanout.guard import Guard
from cashier.fanout.guarded_source import Mechanisms
from cashier.fanout.hedge import Hedge, HedgeSettings
from cashier.fanout.latency_histogram import NEVER_NS
from tests.fanout.cache_rig import BARE
from tests.fanout.scripted_upstream import (
    Asker,
    Reply,
    Script,
    ScriptedCall,
    ScriptedUpstream,
    ask,
    ask_steadily,
    guarded,
    lognormal,
    pass_ms,
    quantile_ms,
)
from tests.support.virtual_time import MS_NS, run_in_virtual_time

pytestmark = pytest.mark.virtual_time


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


SILENT = Reply(None)


def straggling(seed: int, *, share: float, factor: float) -> Script:
    """A share of the calls takes `factor` times as long as the others."""
    random = Random(seed)
    return lambda call: Reply(random.lognormvariate(0, 0.3) * 8 * (factor if random.random() < share else 1))


def stragglers(mechanisms: Mechanisms) -> tuple[list[Asker], Guard, int]:
    async def main() -> tuple[list[Asker], Guard, int]:
        upstream = ScriptedUpstream(straggling(7, share=0.01, factor=12))
        guard = guarded(upstream, mechanisms, ceiling_ms=200)
        await ask_steadily(guard.start, every_ms=2, for_ms=3_000, waits_ms=lambda: 200)
        askers = await ask_steadily(guard.start, every_ms=2, for_ms=20_000, waits_ms=lambda: 200)
        return askers, guard, len(upstream.calls)

    return run_in_virtual_time(main())


@pytest.mark.proof
def test_against_one_straggler_in_a_hundred_hedges_halve_the_tail_for_five_percent_more_calls() -> None:
    plain, _, _ = stragglers(BARE)
    hedged, guard, calls = stragglers(Mechanisms(adaptive_timeout=False))
    assert quantile_ms(hedged, 0.99) <= 0.5 * quantile_ms(plain, 0.99)
    assert calls <= 1.05 * guard.counts.first_calls.value
    assert guard.counts.hedges_won.value > 0.5 * 0.01 * len(hedged)
    assert quantile_ms(hedged, 0.5) == pytest.approx(quantile_ms(plain, 0.5), rel=0.05)


@pytest.mark.proof
async def test_hedging_stops_while_the_whole_source_is_slow_and_resumes() -> None:
    upstream = ScriptedUpstream(lognormal(3))
    guard = guarded(upstream, Mechanisms(adaptive_timeout=False), ceiling_ms=500)
    await ask_steadily(guard.start, every_ms=5, for_ms=5_000)
    assert guard.counts.hedges.value > 0
    assert guard.hedge.delay_ns != NEVER_NS
    upstream.set_script(lognormal(4, factor=5))
    await ask_steadily(guard.start, every_ms=5, for_ms=22_000)
    assert guard.hedge.delay_ns == NEVER_NS
    hedges = guard.counts.hedges.value
    await ask_steadily(guard.start, every_ms=5, for_ms=10_000)
    assert guard.counts.hedges.value == hedges
    upstream.set_script(lognormal(5))
    await ask_steadily(guard.start, every_ms=5, for_ms=32_000)
    assert guard.counts.hedges.value > hedges


@pytest.mark.parametrize("coarse", [False, True])
def test_a_hedge_is_on_time_with_a_clock_of_whole_milliseconds(coarse: bool) -> None:
    async def main() -> None:
        sent: list[float] = []

        def script(call: ScriptedCall) -> Reply:
            sent.append(call.started_ns / MS_NS)
            return SILENT if len(sent) % 2 else Reply(1)

        guard = guarded(ScriptedUpstream(script), Mechanisms(breaker=None))
        guard.hedge.delay_ns = 10 * MS_NS
        await pass_ms(0.4)
        ask(guard.start)
        await pass_ms(30)
        assert 10 <= sent[1] - sent[0] <= 12

    run_in_virtual_time(main(), coarse=coarse)
