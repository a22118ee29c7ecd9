"""Random simulations of the fan-out in virtual time.

`invariants` holds what must be true in all of them.

All randomness comes from the seed, so a violation is reproducible.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from cashier.consultation.source_table import CLAIMED, SOURCE_SPECS, SourceBinding
from cashier.fanout.ask import Ask, AskCall, Importance, Known
from cashier.fanout.batch import Batch, BatchPolicy
from cashier.fanout.breaker import BreakerSettings
from cashier.fanout.cache import Cache
from cashier.fanout.cache_lifetime import CacheSettings
from cashier.fanout.guard import Guard
from cashier.fanout.guarded_source import Mechanisms
from cashier.fanout.hedge import HedgeSettings
from cashier.fanout.key_index import key_text
from cashier.fanout.limiter import LimiterSettings
from cashier.fanout.load_shedding import DegradationLadder
from cashier.fanout.plan import Plan
from cashier.fanout.s3fifo import S3FifoStore
from cashier.fanout.scatter import Scatter, Timing
from cashier.fanout.source_metrics import GuardCounts
from cashier.fanout.timeline import Flag, ask_timeline
from cashier.fanout.upstream_protocol import Upstream
from tests.fanout.invariants import FinishedConsultation, Invariants, MeteredAsk, MeteredUpstream, SourceRig
from tests.fanout.simulated_upstreams import (
    MS_NS,
    Fact,
    FaultMode,
    FaultSchedule,
    FaultSpell,
    SimulatedSecondLevel,
    SimulatedUpstream,
    Truth,
)
from tests.fanout.timeline_invariants import timeline_faults
from tests.support.virtual_time import VirtualLoop, timers_set

RESERVE_MS = 3
# Flags of an ask itself. Those of a call count once for each ask that shares it.
PER_ASK = frozenset({Flag.SHARED_FETCH, Flag.CACHED, Flag.FALLBACK})


class SourceShape(NamedTuple):
    """One ask of a plan, without its source."""

    name: str
    importance: Importance
    needs: tuple[str, ...]
    gives: tuple[str, ...]
    places: int


class SourceSettings(NamedTuple):
    """The settings of one source. `cache` None: no cache."""

    ceiling_ms: int
    mechanisms: Mechanisms
    cache: CacheSettings | None


def run_simulation(seed: int) -> dict[str, int]:
    """Run one simulation. AssertionError for a broken invariant.

    Returns the counts of its events.
    """
    random = Random(seed)
    loop = VirtualLoop(began_s=1_000 + random.random(), coarse=random.random() < 0.5)
    schedule = Simulation(seed, random, loop)

    def on_exception(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        schedule.invariants.report(f"the loop reported {context.get('exception') or context['message']!r}")

    loop.set_exception_handler(on_exception)
    try:
        loop.run_until_complete(schedule.run())
        assert not schedule.invariants.violations, "\n".join(schedule.invariants.violations[:10])
    except Exception as error:
        error.add_note(f"Run again: SCHEDULE={seed} pytest tests/fanout/test_simulation.py")
        raise
    finally:
        loop.close()
    return schedule.tally()


class Simulation:
    """A plan with its sources, guards and caches, and all events of one simulation."""

    def __init__(self, seed: int, random: Random, loop: VirtualLoop) -> None:
        self.seed = seed
        self.random = random
        self.loop = loop
        self.truth = Truth()
        self.ladder = DegradationLadder()
        self.duration_s = random.uniform(0.3, 4)
        self.store = S3FifoStore(random.choice((3, 20, 1_000)))
        self.invariants = Invariants(self.truth, self.store)
        self.l2 = SimulatedSecondLevel(self._random_of("l2"), self.clock_ns) if random.random() < 0.3 else None
        shapes = default_shapes(random) if random.random() < 0.4 else random_shapes(random)
        self.distinct_values = random.randint(1, 6)
        self.rigs = [self._rig(shape) for shape in shapes]
        self._draw_plan()
        self.flags: Counter[tuple[str, Flag]] = Counter()
        self.running: list[asyncio.Task[FinishedConsultation]] = []

    def clock_ns(self) -> int:
        return round(self.loop.time() * 1e9)

    def _random_of(self, part: str) -> Random:
        return Random(f"{self.seed} {part}")

    # Drawing the parts

    def _rig(self, shape: SourceShape) -> SourceRig:
        random = self.random
        settings = random_settings(random)
        needs = shape.needs

        def key_of(known: Known) -> str | tuple[str, ...]:
            return known[needs[0]] if len(needs) == 1 else tuple(known[need] for need in needs)

        faults = self._faults(shape, settings)
        meter = self._meter(shape, faults, lambda known: key_text(key_of(known)))
        guard = Guard(
            shape.name,
            meter,
            settings.ceiling_ms,
            settings.mechanisms,
            self.ladder,
            shape.importance,
            clock_ns=self.clock_ns,
            random=self._random_of(f"{shape.name} guard"),
        )
        cached = settings.cache is not None
        cache = Cache(
            guard,
            key_of,
            settings.cache or CacheSettings(),
            self.store,
            l2=self.l2 if cached else None,
            clock_ns=self.clock_ns,
            random=self._random_of(f"{shape.name} cache"),
        )
        meter.watch(guard, cache if cached else None)
        if random.random() < 0.5:
            self._record_usual_latencies(guard, faults.usual_ms)
        return SourceRig(*shape, key_of, faults, meter, guard, cache, cached)

    def _faults(self, shape: SourceShape, settings: SourceSettings) -> FaultSchedule:
        random = self.random
        slow_ms = settings.ceiling_ms * random.uniform(0.7, 1.8)
        return FaultSchedule(
            random.uniform(1, 8), slow_ms, self._spells(shape.places), self._random_of(f"{shape.name} weather")
        )

    def _meter(self, shape: SourceShape, faults: FaultSchedule, key_of: Callable[[Known], str]) -> MeteredUpstream:
        random = self.random
        upstream: Upstream
        upstream = troubled = SimulatedUpstream(
            shape.name, shape.places, key_of, self.truth, faults, self._random_of(shape.name), self.clock_ns
        )
        if random.random() < 0.25:
            gathering = BatchPolicy(max=random.choice((2, 50)), wait_ms=random.choice((0, 2, 7)))
            upstream = Batch(troubled, gathering, self.clock_ns)
        return MeteredUpstream(shape.name, upstream, key_of, self.invariants, self.clock_ns)

    def _record_usual_latencies(self, guard: Guard, usual_ms: float) -> None:
        """Record enough latencies for hedges and adaptive timeouts."""
        for _ in range(200):
            guard.latencies.record(round(usual_ms * self.random.lognormvariate(0, 0.3) * MS_NS))
        guard.learn(self.clock_ns())

    def _spells(self, places: int) -> list[FaultSpell]:
        random = self.random
        spells = []
        for _ in range(random.choice((0, 0, 1, 1, 2, 3))):
            from_ns = self.clock_ns() + round(random.uniform(0, self.duration_s) * 1e9)
            where = (1 << places) - 1 if random.random() < 0.6 else 1 << random.randrange(places)
            spells.append(
                FaultSpell(
                    from_ns, from_ns + round(random.uniform(0.05, 2) * 1e9), where, random.choice(list(FaultMode)[1:])
                )
            )
        return spells

    def _draw_plan(self) -> None:
        self.plan = Plan([self._ask(rig) for rig in self.rigs], INPUTS)

    def _ask(self, rig: SourceRig) -> Ask:
        """Built as in `SourcePipeline.binding` and `consultation_plan`."""
        guard, cache = rig.guard, rig.cache
        ceiling_ms = guard.adaptive_timeout.ceiling_ms
        if rig.cached:
            binding = SourceBinding(rig.meter.metered(cache.start), ceiling_ms, cache.fallback, guard.adaptive_timeout)
        else:
            binding = SourceBinding(rig.meter.metered(guard.start), ceiling_ms, None, guard.adaptive_timeout)
        reveal = reveal_of(rig.gives) if rig.gives else None
        return Ask(
            rig.name,
            rig.importance,
            rig.needs,
            ceiling_ms,
            binding.start,
            rig.gives,
            reveal,
            binding.fallback,
            binding.current_timeout,
        )

    # Events

    async def run(self) -> None:
        began_s = self.loop.time()
        random = self.random
        for _ in range(random.randint(*random.choice(((5, 20), (10, 40), (30, 90))))):
            at_s = random.uniform(0, self.duration_s)
            for _ in range(random.choice((1, 1, 1, 1, 1, 1, 2, 12))):
                self._at(began_s + at_s, self._start_consultation)
        for _ in range(random.choice((0, 3, 10))):
            self._at(began_s + random.uniform(0, self.duration_s), self._change)
        for _ in range(random.choice((0, 0, 2, 6))):
            self._at(began_s + random.uniform(0, self.duration_s), self._change_load)
        for _ in range(random.choice((0, 0, 0, 2))):
            self._at(began_s + random.uniform(0, self.duration_s), self._reconfigure)
        await asyncio.sleep(self.duration_s + 0.002)  # a coarse timer may fire early
        await self._end_faults()
        if random.random() < 0.3:
            await self._close_while_hanging()
        else:
            await asyncio.sleep((2 * max(rig.meter.ceiling_ms for rig in self.rigs) + 50) / 1000)
            self.invariants.check_no_waiters(self.rigs)
        self.invariants.check_nothing_left(self.rigs, timers_set())
        self._check_flags()

    def _at(self, at_s: float, happens: Callable[[], None]) -> None:
        self.loop.call_at(at_s, happens)

    def _start_consultation(self) -> None:
        """Start a consultation.

        One in ten is cancelled, one in twenty ends with its first required answer.
        """
        random = self.random
        deadline_ms = random.choice((random.randint(1, 40), random.randint(20, 200), 150, 150))
        task = self.loop.create_task(
            self._consult(self._claims(), deadline_ms, random.choice((0, 15)), concluding=random.random() < 0.05)
        )
        self.running.append(task)
        if random.random() < 0.1:
            self.loop.call_later(random.uniform(0, 0.1), task.cancel)

    def _claims(self) -> dict[str, str]:
        """Few distinct values, so that keys coincide. Some leave out names that a source gives."""
        random = self.random
        claims = {name: f"{name[0]}{random.randrange(self.distinct_values)}" for name in INPUTS}
        if random.random() < 0.4:
            for name in REVEALED:
                claims.pop(name, None)
        return claims

    async def _consult(
        self, claims: dict[str, str], deadline_ms: int, grace_ms: int, *, concluding: bool = False
    ) -> FinishedConsultation:
        began_ns = self.clock_ns()
        scatter = Scatter(
            self.plan,
            None,
            deadline_ns=began_ns + deadline_ms * MS_NS,
            timing=Timing(grace_ms * MS_NS, RESERVE_MS * MS_NS),
            conclusive=(lambda answers: True) if concluding else None,
            clock_ns=self.clock_ns,
        )
        try:
            result = await scatter.run(claims)
            self._check_timelines(scatter)
        finally:
            scatter.close()
        consultation = FinishedConsultation(
            claims, began_ns, self.clock_ns(), deadline_ms - RESERVE_MS, grace_ms, result
        )
        self.invariants.check_consultation(consultation, self.rigs, concluding=concluding)
        return consultation

    def _check_timelines(self, scatter: Scatter) -> None:
        for pending in scatter.asks:
            wrapped = pending.call, pending.ended_call
            pending.call, pending.ended_call = map(unwrapped, wrapped)
            timeline = ask_timeline(pending)
            pending.call, pending.ended_call = wrapped
            for fault in timeline_faults(pending, timeline, self.clock_ns()):
                self.invariants.report(fault)
            self.flags.update((pending.ask.name, flag) for flag in timeline.flags)

    def _check_flags(self) -> None:
        """No flag may be more frequent than what it stands for is counted."""
        for rig in self.rigs:
            counts, cache = rig.guard.counts, rig.cache
            bounds = {
                Flag.HEDGE_SENT: counts.hedges.value,
                Flag.HEDGE_WON: counts.hedges_won.value,
                Flag.RETRIED: counts.retries.value,
                Flag.SHARED_FETCH: cache.joined.value,
                Flag.DIMMED: self.ladder.dimmed.value,
                Flag.CACHED: cache.hits.value + cache.found_in_l2.value + cache.joined.value,
                Flag.FALLBACK: cache.fallbacks.value,
            }
            for flag, most in bounds.items():
                flagged = self.flags[rig.name, flag]
                if (flag in PER_ASK or not rig.cache.joined) and flagged > most:
                    self.invariants.report(f"{rig.name} has {flagged} times {flag}, and counts {most}")

    def _change(self) -> None:
        """Change facts upstream, and invalidate them after a while."""
        rig = self.random.choice(self.rigs)
        keys = sorted(key for source, key in self.truth.versions if source == rig.name)
        if not keys:
            return
        key = self.random.choice(keys)
        by_prefix = self.random.random() < 0.3
        prefix = key[: self.random.randint(0, len(key))]
        for each in keys:
            if each == key or (by_prefix and each.startswith(prefix)):
                self.truth.change(rig.name, each)
        self.loop.call_later(
            self.random.choice((0, 0.002, 0.05)),
            self._invalidate,
            rig,
            None if by_prefix else key,
            prefix if by_prefix else None,
        )

    def _invalidate(self, rig: SourceRig, key: str | None, prefix: str | None) -> None:
        rig.cache.drop(key=key, prefix=prefix)
        if self.l2 is not None:
            self.l2.drop(rig.name, key=key, prefix=prefix)
        self.truth.invalidated(
            rig.name, lambda each: each == key or (prefix is not None and each.startswith(prefix)), self.clock_ns()
        )

    def _change_load(self) -> None:
        """Move to another rung of the ladder."""
        random = self.random
        self.ladder.hedging = random.random() < 0.6
        self.ladder.serve_stale = random.random() < 0.3
        self.ladder.dim_share = random.choice((0.0, 0.0, 0.3, 1.0))

    def _reconfigure(self) -> None:
        """Apply other settings, without adding or removing caches."""
        for rig in self.rigs:
            settings = random_settings(self.random)
            rig.guard.reconfigure(settings.ceiling_ms, settings.mechanisms)
            if rig.cached and settings.cache is not None:
                rig.cache.settings = settings.cache
            rig.meter.reconfigured()
        self._draw_plan()

    async def _end_faults(self) -> None:
        """End all faults. After a while every source must answer again."""
        for rig in self.rigs:
            rig.faults.healed = True
        if self.l2 is not None:
            self.l2.healed = True
        self.ladder.hedging, self.ladder.serve_stale, self.ladder.dim_share = True, False, 0.0
        healed_ns = self.clock_ns()
        claims = {name: f"{name[0]}0" for name in INPUTS}
        while self.clock_ns() < healed_ns + max(rig.meter.recovery_ns for rig in self.rigs):
            await self._consult(claims, 2_000, 1_000)
            await asyncio.sleep(0.04)
        for ended in await asyncio.gather(*self.running, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended
        first = await self._consult(claims, 2_000, 1_000)
        await asyncio.sleep(0.1)
        self.invariants.check_recovery((first, await self._consult(claims, 2_000, 1_000)), self.rigs, healed_ns)

    async def _close_while_hanging(self) -> None:
        """Close everything while all sources hang."""
        for rig in self.rigs:
            rig.faults.healed = False
            rig.faults.spells.append(FaultSpell(0, 1 << 62, -1, FaultMode.HANGING))
        tasks = [
            self.loop.create_task(self._consult(self._claims(), 150, 15)) for _ in range(self.random.choice((1, 50)))
        ]
        await asyncio.sleep(self.random.uniform(0, 0.2))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.l2 is not None:
            self.l2.close()
        for rig in self.rigs:
            rig.guard.close()
        await asyncio.sleep(0.01)  # writes to the second level

    def tally(self) -> dict[str, int]:
        """Return the counts of all events."""
        counts: dict[str, int] = dict(self.invariants.statuses)
        for rig in self.rigs:
            for name in GuardCounts.__slots__:
                counts[name] = counts.get(name, 0) + getattr(rig.guard.counts, name).value
            for name in ("hits", "misses", "joined", "served_stale", "found_in_l2", "fallbacks"):
                counts[name] = counts.get(name, 0) + getattr(rig.cache, name).value
        for (_, flag), times in self.flags.items():
            counts[flag] = counts.get(flag, 0) + times
        counts["dimmed"] = self.ladder.dimmed.value
        counts["evictions"] = self.store.evictions.value
        if self.l2 is not None:
            counts["l2_hits"], counts["l2_wrong_keys"] = self.l2.hits, self.l2.wrong_keys
        return counts


def unwrapped(call: AskCall | None) -> AskCall | None:
    """The call within the meter's."""
    return call.call if isinstance(call, MeteredAsk) else call


REVEALED = ("amount", "currency", "country", "of_s0", "of_s1")
INPUTS = (*CLAIMED, "of_s0", "of_s1")


def default_shapes(random: Random) -> list[SourceShape]:
    return [
        SourceShape(each.source.name, each.importance, each.needs, each.gives, random_address_count(random))
        for each in SOURCE_SPECS
    ]


def random_address_count(random: Random) -> int:
    return random.choice((1, 1, 2, 3))


def random_shapes(random: Random) -> list[SourceShape]:
    """Two to five sources; later ones may need names of the first two."""
    shapes: list[SourceShape] = []
    for index in range(random.randint(2, 5)):
        importance = random.choice(list(Importance))
        needs = tuple(random.sample(("order_id", "user_id", "merchant_id"), random.randint(1, 2)))
        if index > 0 and importance is Importance.ENRICHING and random.random() < 0.7:
            needs += (f"of_s{min(index - 1, 1)}",)
        elif index > 0 and shapes[0].importance is not Importance.ENRICHING and random.random() < 0.3:
            needs += ("of_s0",)
        shapes.append(
            SourceShape(
                f"s{index}", importance, needs, (f"of_s{index}",) if index < 2 else (), random_address_count(random)
            )
        )
    return shapes


def reveal_of(gives: tuple[str, ...]) -> Callable[[Any], dict[str, Any]]:
    """Revealed values depend on the request only; "not found" reveals nothing."""

    def reveal(fact: Fact) -> dict[str, str]:
        return {} if fact.not_found else {name: f"{name[0]}{len(fact.key) % 3}" for name in gives}

    return reveal


def random_settings(random: Random) -> SourceSettings:
    def either(settings: Any) -> Any:
        return settings if random.random() < 0.7 else None

    open_s = random.uniform(0.02, 0.2)
    mechanisms = Mechanisms(
        hedge=either(HedgeSettings(random.choice((5_000, 9_000, 9_500)), random.choice((1, 2)))),
        retry=random.random() < 0.7,
        breaker=either(
            BreakerSettings(
                random.choice((1, 3, 10)), random.choice((1, 5_000, 10_000)), open_s, random.uniform(open_s, 0.4)
            )
        ),
        limiter=either(LimiterSettings(random.randint(1, 30), 1, random.randint(30, 60))),
        late=random.random() < 0.8,
        adaptive_timeout=random.random() < 0.7,
        extra_bps=random.choice((0, 500, 500, 10_000)),
    )
    fresh_s, stale_s = sorted(random.choice((0.0, 0.005, 0.05, 0.5, 3.0)) for _ in range(2))
    cache = CacheSettings(fresh_s, stale_s, random.choice((0.0, 1.0, 2.0)) + stale_s, random.choice((0.0, 0.02, 1.0)))
    return SourceSettings(random.randint(20, 100), mechanisms, cache if cache.on and random.random() < 0.6 else None)
