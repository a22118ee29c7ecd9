"""The mechanisms of one source, from its transport up to the start of an ask: batch, guard, cache.

In the order in which an ask meets them: the cache answers it; the guard decides whether to call;
the batch merges calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from cashier.consultation.source_table import SourceBinding, SourceSpec
from cashier.fanout.breaker import BreakerSettings
from cashier.fanout.cache import Cache
from cashier.fanout.cache_lifetime import CacheSettings
from cashier.fanout.failure_log import OnAnswersAgain, OnFailure, ignore_answer, ignore_failure
from cashier.fanout.guard import Guard
from cashier.fanout.guarded_source import Mechanisms
from cashier.fanout.hedge import HedgeSettings
from cashier.fanout.l2.interface import SecondLevel
from cashier.fanout.limiter import LimiterSettings
from cashier.fanout.load_shedding import DegradationLadder
from cashier.fanout.s3fifo import S3FifoStore
from cashier.fanout.timer_wheel import TimerWheel
from cashier.fanout.upstream_protocol import Upstream
from cashier.metrics.store import Store
from cashier.settings.schema import Settings, SourceSettings

# For a source that is a function of the embedding program and has no section in the configuration.
_DEFAULTS = SourceSettings(url="")


class SourcePipeline:
    """One source with its mechanisms, configured from its own section of `settings`."""

    def __init__(
        self,
        spec: SourceSpec,
        upstream: Upstream,
        settings: Settings,
        ladder: DegradationLadder,
        store: S3FifoStore,
        l2: SecondLevel | None = None,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
        on_failure: OnFailure = ignore_failure,
        on_answers_again: OnAnswersAgain = ignore_answer,
        metrics: Store | None = None,
        wheel: TimerWheel | None = None,
    ) -> None:
        self.spec = spec
        self.name = spec.source.name
        own = source_settings(settings, self.name)
        self.guard = Guard(
            self.name,
            upstream,
            timeout_ms(spec, settings),
            mechanisms(own, settings),
            ladder,
            spec.importance,
            subject=spec.subject,
            clock_ns=clock_ns,
            on_failure=on_failure,
            on_answers_again=on_answers_again,
            metrics=metrics,
            wheel=wheel,
        )
        self.cache = Cache(
            guard=self.guard, key_of=spec.key, settings=cache_settings(spec, own), store=store, l2=l2, clock_ns=clock_ns
        )

    def binding(self) -> SourceBinding:
        ceiling_ms = self.guard.adaptive_timeout.ceiling_ms
        if self.cache.settings.on:
            return SourceBinding(self.cache.start, ceiling_ms, self.cache.fallback, self.cache.current_timeout)
        return SourceBinding(self.guard.start, ceiling_ms, None, self.guard.adaptive_timeout)

    def uncached_binding(self, longest_ms: int) -> SourceBinding:
        """For the recheck: no cache, no load shedding, and a fixed timeout.

        The payer waits, so giving up early would only lose the sale.
        """
        return SourceBinding(self.guard.start_unsheddable, longest_ms)

    def reconfigure(self, settings: Settings) -> None:
        """Apply new numbers. Keeps everything learned and cached."""
        own = source_settings(settings, self.name)
        self.guard.reconfigure(timeout_ms(self.spec, settings), mechanisms(own, settings))
        self.cache.settings = cache_settings(self.spec, own)

    def close(self) -> None:
        self.guard.close()

    def __repr__(self) -> str:
        return f"<SourcePipeline {self.guard!r} {self.cache!r}>"


def source_settings(settings: Settings, name: str) -> SourceSettings:
    return settings.sources[name] or _DEFAULTS


def mechanisms(own: SourceSettings, settings: Settings) -> Mechanisms:
    """The configured mechanisms, with defaults for `true`.

    The default hedge never exceeds the budget of extra calls.
    """
    extra_bps = settings.consult.extra_calls_bps
    hedge: HedgeSettings | None = own.hedge if isinstance(own.hedge, HedgeSettings) else None
    if own.hedge is True and extra_bps:
        default = HedgeSettings()
        hedge = default if 10_000 - default.quantile_bps <= extra_bps else HedgeSettings(10_000 - extra_bps)
    return Mechanisms(
        hedge=hedge,
        retry=own.retry,
        breaker=BreakerSettings() if own.breaker is True else own.breaker or None,
        limiter=LimiterSettings() if own.limiter is True else own.limiter or None,
        late=own.late,
        adaptive_timeout=own.adaptive_timeout,
        extra_bps=extra_bps,
        gathering_ms=own.batch.wait_ms if own.batch else 0,
    )


def cache_settings(spec: SourceSpec, own: SourceSettings) -> CacheSettings:
    return spec.cache if own.cache is True else own.cache or CacheSettings()


def timeout_ms(spec: SourceSpec, settings: Settings) -> int:
    """The configured timeout, or the table's, cut to what the deadline leaves."""
    configured_ms = source_settings(settings, spec.source.name).timeout_ms
    if configured_ms is not None:
        return configured_ms
    return min(spec.timeout_ms, max(1, settings.consult.deadline_ms - settings.consult.reserve_ms))
