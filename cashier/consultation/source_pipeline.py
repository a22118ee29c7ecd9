"""The stack of one source, from its transport up to what a consultation starts: batch, guard, cache, each where it is wanted.

Outermost first, as a question meets them: the cache answers it; the guard says whether a call is made; the batch gathers it with others.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from cashier.consultation.plan import SourceBinding, SourceSpec
from cashier.fanout.breaker import BreakerSettings
from cashier.fanout.cache import Cache
from cashier.fanout.guard import Guard, Mechanisms
from cashier.fanout.hedge import HedgeSettings
from cashier.fanout.l2.interface import SecondLevel
from cashier.fanout.limiter import LimiterSettings
from cashier.fanout.load_shedding import DegradationLadder
from cashier.fanout.s3fifo import S3FifoStore
from cashier.fanout.ttl import CacheSettings
from cashier.fanout.upstream import Upstream
from cashier.settings.schema import Settings, SourceSettings

_AS_IT_IS = SourceSettings(url="")


class SourcePipeline:
    """One source. `whole`: the settings, of which it takes its own; a function that was handed in is guarded as it is by default."""

    def __init__(
        self,
        question: SourceSpec,
        upstream: Upstream,
        whole: Settings,
        ladder: DegradationLadder,
        store: S3FifoStore,
        second: SecondLevel | None = None,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.question = question
        self.name = question.source.name
        found = settings_of(whole, self.name)
        timeout_ms, importance = timeout_of(question, whole), question.importance
        self.guard = Guard(
            self.name, upstream, timeout_ms, mechanisms(found, whole), ladder, importance, clock_ns=clock_ns
        )
        self.cache = Cache(
            self.guard, question.key, freshness(question, found), store, second=second, clock_ns=clock_ns
        )

    def binding(self) -> SourceBinding:
        ceiling_ms = self.guard.patience.ceiling_ms
        if self.cache.settings.on:
            return SourceBinding(self.cache.start, ceiling_ms, self.cache.instead, self.cache)
        return SourceBinding(self.guard.start, ceiling_ms, None, self.guard.patience)

    def uncached_binding(self, timeout_ms: int) -> SourceBinding:
        """No cache, and as long as the payer can wait: what is learned about its usual pace saves no sale here."""
        return SourceBinding(self.guard.start_unsheddable, timeout_ms)

    def reconfigure(self, whole: Settings) -> None:
        """Other numbers, with what was learned and what is cached left as it is."""
        found = settings_of(whole, self.name)
        self.guard.reconfigure(timeout_of(self.question, whole), mechanisms(found, whole))
        self.cache.settings = freshness(self.question, found)

    def close(self) -> None:
        self.guard.close()

    def __repr__(self) -> str:
        return f"<Stack {self.guard!r} {self.cache!r}>"


def settings_of(whole: Settings, name: str) -> SourceSettings:
    """Those of one source; all as it is by default where it has none."""
    return whole.sources[name] or _AS_IT_IS


def mechanisms(settings: SourceSettings, whole: Settings) -> Mechanisms:
    """As configured, with defaults in the place of `true`. By default no more is hedged than the budget of extra calls can pay for."""
    extra_bps = whole.consult.extra_calls_bps
    hedge: HedgeSettings | None = settings.hedge if isinstance(settings.hedge, HedgeSettings) else None
    if settings.hedge is True and extra_bps:
        usual = HedgeSettings()
        hedge = usual if 10_000 - usual.quantile_bps <= extra_bps else HedgeSettings(10_000 - extra_bps)
    return Mechanisms(
        hedge,
        settings.retry,
        BreakerSettings() if settings.breaker is True else settings.breaker or None,
        LimiterSettings() if settings.limiter is True else settings.limiter or None,
        settings.late,
        settings.adaptive_timeout,
        extra_bps,
    )


def freshness(question: SourceSpec, settings: SourceSettings) -> CacheSettings:
    """How old an answer may be: as configured, or the plan's own."""
    return question.cache if settings.cache is True else settings.cache or CacheSettings()


def timeout_of(question: SourceSpec, whole: Settings) -> int:
    """As configured, or the plan's own as far as the deadline allows it."""
    configured = settings_of(whole, question.source.name).timeout_ms
    consult = whole.consult
    return (
        min(question.timeout_ms, max(1, consult.deadline_ms - consult.reserve_ms)) if configured is None else configured
    )
