"""What hedging is worth: the tail that it cuts, what it costs, when it goes out and when it had better not."""

from __future__ import annotations

from random import Random

import pytest

from cashier.fanout.guard import Guard, Mechanisms
from cashier.fanout.latency_histogram import NEVER_NS
from tests.fanout.cache_rig import BARE
from tests.fanout.scripted_upstream import (
    MS_NS,
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
    run_in_virtual_time,
)

SILENT = Reply(None)


def straggling(seed: int, *, share: float, factor: float) -> Script:
    """Most calls take what they take, a share of them so many times as long."""
    random = Random(seed)
    return lambda leg: Reply(random.lognormvariate(0, 0.3) * 8 * (factor if random.random() < share else 1))


def stragglers(mechanisms: Mechanisms) -> tuple[list[Asker], Guard, int]:
    async def main() -> tuple[list[Asker], Guard, int]:
        upstream = ScriptedUpstream(straggling(7, share=0.01, factor=12))
        guard = guarded(upstream, mechanisms, ceiling_ms=200)
        await ask_steadily(guard.start, every_ms=2, for_ms=3_000, waits_ms=lambda: 200)
        askers = await ask_steadily(guard.start, every_ms=2, for_ms=20_000, waits_ms=lambda: 200)
        return askers, guard, len(upstream.legs)

    return run_in_virtual_time(main)


@pytest.mark.proof
def test_against_one_straggler_in_a_hundred_a_hedge_halves_the_tail_for_a_twentieth_more_calls() -> None:
    plain, _, _ = stragglers(BARE)
    hedged, guard, legs = stragglers(Mechanisms(adaptive_timeout=False))
    assert quantile_ms(hedged, 0.99) <= 0.5 * quantile_ms(plain, 0.99)
    assert legs <= 1.05 * guard.counts.first_calls
    assert guard.counts.hedges_won > 0.5 * 0.01 * len(hedged)
    assert quantile_ms(hedged, 0.5) == pytest.approx(quantile_ms(plain, 0.5), rel=0.05)


@pytest.mark.proof
def test_when_the_whole_source_slows_hedging_stops_by_itself_and_begins_again() -> None:
    async def main() -> None:
        upstream = ScriptedUpstream(lognormal(3))
        guard = guarded(upstream, Mechanisms(adaptive_timeout=False), ceiling_ms=500)
        await ask_steadily(guard.start, every_ms=5, for_ms=5_000)
        assert guard.counts.hedges > 0
        assert guard.hedge.delay_ns != NEVER_NS
        upstream.does(lognormal(4, factor=5))
        await ask_steadily(guard.start, every_ms=5, for_ms=22_000)
        assert guard.hedge.delay_ns == NEVER_NS
        hedges = guard.counts.hedges
        await ask_steadily(guard.start, every_ms=5, for_ms=10_000)
        assert guard.counts.hedges == hedges
        upstream.does(lognormal(5))
        await ask_steadily(guard.start, every_ms=5, for_ms=32_000)
        assert guard.counts.hedges > hedges

    run_in_virtual_time(main)


@pytest.mark.parametrize("coarse", [False, True])
def test_a_hedge_goes_out_on_time_also_with_a_clock_of_whole_milliseconds(coarse: bool) -> None:
    async def main() -> None:
        sent: list[float] = []

        def script(leg: ScriptedCall) -> Reply:
            sent.append(leg.began_ns / MS_NS)
            return SILENT if len(sent) % 2 else Reply(1)

        guard = guarded(ScriptedUpstream(script), Mechanisms(breaker=None))
        guard.hedge.delay_ns = 10 * MS_NS
        await pass_ms(0.4)
        ask(guard.start)
        await pass_ms(30)
        assert 10 <= sent[1] - sent[0] <= 12

    run_in_virtual_time(main, coarse=coarse)
