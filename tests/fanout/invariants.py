"""Invariants of the fan-out, checked from outside: asks, upstream calls and outcomes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from cashier.fanout.ask import AskCall, Importance, Known, OnOutcome, SourceReport, SourceStatus, Start
from cashier.fanout.cache import Cache
from cashier.fanout.cache_lifetime import CacheSettings
from cashier.fanout.guard import Guard
from cashier.fanout.hedged_call import MAX_LATE_CALLS
from cashier.fanout.s3fifo import S3FifoStore
from cashier.fanout.scatter import ScatterResult
from cashier.fanout.upstream_protocol import OnAnswer, Upstream, UpstreamCall
from cashier.source_errors import Missing, MissingCause
from tests.fanout.expected_result import expected_status
from tests.fanout.simulated_upstreams import MS_NS, Fact, FaultSchedule, Truth

# Reports have hundredths of a ms.
_ROUNDED_NS = 20_000
# A second level rounds ages to whole ms, on writing and on reading.
_KEPT_NS = 2 * MS_NS
_SLACK_NS = MS_NS + _ROUNDED_NS


class FinishedConsultation(NamedTuple):
    """One consultation. `end_ms`: its deadline less the reserve, from its start."""

    claims: Mapping[str, str]
    started_ns: int
    ended_ns: int
    end_ms: int
    grace_ms: int
    result: ScatterResult


class SourceRig(NamedTuple):
    """One source with its guard, cache, meter and faults."""

    name: str
    importance: Importance
    needs: tuple[str, ...]
    gives: tuple[str, ...]
    places: int
    key_of: Callable[[Known], str | tuple[str, ...]]
    faults: FaultSchedule
    meter: MeteredUpstream
    guard: Guard
    cache: Cache
    cached: bool


class Invariants:
    """`violations`: one sentence per violation. `statuses`: the number of reports per status."""

    def __init__(self, truth: Truth, store: S3FifoStore) -> None:
        self.truth = truth
        self.store = store
        self.violations: list[str] = []
        self.statuses: Counter[str] = Counter()
        self._delivered: dict[
            tuple[str, str], tuple[int, int]
        ] = {}  # the youngest answer: its delivery and the start of its call

    def report(self, sentence: str) -> None:
        self.violations.append(sentence)

    def check_consultation(
        self, consultation: FinishedConsultation, rigs: Sequence[SourceRig], *, concluding: bool
    ) -> None:
        reports = {report.name: report for report in consultation.result.reports}
        if reports.keys() != {rig.name for rig in rigs} or reports.keys() != consultation.result.answers.keys():
            self.report(f"reports of {list(reports)} only")
            return
        self._check_end(consultation, reports.values(), concluding=concluding)
        known = _known(consultation, rigs)
        for rig in rigs:
            report = reports[rig.name]
            answer = consultation.result.answers[rig.name]
            self.statuses[report.status.value] += 1
            if isinstance(answer, Missing):
                self._check_missing(report, answer)
            else:
                self._check_answer(consultation.started_ns, report, answer, rig, known)
            rig.meter.check_counts()

    def _check_end(self, consultation: FinishedConsultation, reports: Any, *, concluding: bool) -> None:
        took_ns = consultation.ended_ns - consultation.started_ns
        if took_ns > max(0, consultation.end_ms) * MS_NS + MS_NS:
            self.report(f"a consultation took {took_ns / MS_NS:.2f} ms of {consultation.end_ms}")
        if concluding or consultation.result.failed_required:
            return
        essential_ms = max(
            (each.started_ms + each.elapsed_ms for each in reports if each.importance is not Importance.ENRICHING),
            default=0.0,
        )
        if took_ns > (essential_ms + consultation.grace_ms) * MS_NS + _SLACK_NS:
            self.report(
                f"the wait for ENRICHING sources lasted until {took_ns / MS_NS:.2f} ms,"
                f" all others ended at {essential_ms} ms"
            )

    def _check_missing(self, report: SourceReport, gap: Missing) -> None:
        if (
            report.status is not expected_status(gap)
            or gap.source != report.name
            or gap.cause is MissingCause.PENDING
            or report.age_ms
        ):
            self.report(f"{report} of {gap}")

    def _check_answer(
        self, consultation_started_ns: int, report: SourceReport, fact: Fact, rig: SourceRig, known: Known
    ) -> None:
        started_ns = consultation_started_ns + round(report.started_ms * MS_NS)
        delivered_ns = started_ns + round(report.elapsed_ms * MS_NS)
        key = rig.meter.key_of(known)
        if fact.source != rig.name or fact.key != key:
            self.report(f"{rig.name}/{key} received {fact}")
        if fact.version < self.truth.oldest(rig.name, key, started_ns - _ROUNDED_NS):
            self.report(f"{report} has {fact}, which was invalidated before the ask")
        self._check_order(report, fact, rig, started_ns, delivered_ns)
        rounded_ns = _ROUNDED_NS + (_KEPT_NS if rig.cache.l2 is not None else 0)
        behind_ns = report.age_ms * MS_NS - (
            (started_ns if report.status is SourceStatus.FRESH else delivered_ns) - fact.called_ns
        )
        if behind_ns + MS_NS + rounded_ns < 0 or (
            report.age_ms and behind_ns > 2 * rig.meter.ceiling_ms * MS_NS + rounded_ns
        ):
            self.report(
                f"{report} does not have the age of {fact},"
                f" delivered {(delivered_ns - fact.called_ns) / MS_NS:.2f} ms after its call"
            )
        most_ns = rig.meter.oldest_ns(report.status, not_found=fact.not_found)
        if delivered_ns - fact.called_ns > most_ns + rounded_ns + MS_NS:
            self.report(f"{report} is older than {most_ns / MS_NS:.0f} ms")

    def _check_order(
        self, report: SourceReport, fact: Fact, rig: SourceRig, started_ns: int, delivered_ns: int
    ) -> None:
        """An ask after a delivery gets nothing older.

        Except after evictions, or with a second level."""
        if rig.cache.l2 is not None or self.store.evictions.value:
            return
        before = self._delivered.get((rig.name, fact.key))
        if before is not None and before[0] < started_ns - _ROUNDED_NS and fact.called_ns < before[1]:
            self.report(
                f"{report} has {fact}, older than the call of {before[1]}"
                f" that was delivered at {before[0]}, before the ask"
            )
        outdated = self.truth.invalidated_between(rig.name, fact.key, started_ns - _ROUNDED_NS, delivered_ns)
        if not outdated and (before is None or fact.called_ns > before[1]):
            self._delivered[rig.name, fact.key] = (delivered_ns, fact.called_ns)

    def check_recovery(
        self, consultation: Sequence[FinishedConsultation], rigs: Sequence[SourceRig], healed_ns: int
    ) -> None:
        """Every source answers again.

        A stale answer, served during its refresh, is allowed the first time.
        """
        for rig in rigs:
            if not any(_recovered(each, rig, rigs, healed_ns) for each in consultation):
                report = next(each for each in consultation[-1].result.reports if each.name == rig.name)
                self.report(f"{report} long after the end of all faults; {rig.guard!r}")

    def check_no_waiters(self, rigs: Sequence[SourceRig]) -> None:
        for rig in rigs:
            if rig.meter.waiting or rig.cache._fetches or rig.cache._joinable:
                self.report(f"{rig.name}: {rig.cache!r} with {len(rig.meter.waiting)} waiting asks")

    def check_nothing_left(self, rigs: Sequence[SourceRig], timers: Sequence[asyncio.TimerHandle]) -> None:
        for rig in rigs:
            rig.meter.check_counts()
            in_flight = [endpoint.in_flight for endpoint in rig.guard.endpoints]
            if rig.meter.open or any(in_flight) or rig.guard.late_calls:
                self.report(
                    f"{rig.name} has {len(rig.meter.open)} open, {in_flight} in flight, {rig.guard.late_calls} late"
                )
        if timers:
            self.report(f"timers are left: {timers}")
        if len(asyncio.all_tasks()) > 1:
            self.report(f"tasks are left: {asyncio.all_tasks()}")


def _recovered(consultation: FinishedConsultation, rig: SourceRig, rigs: Sequence[SourceRig], healed_ns: int) -> bool:
    known = _known(consultation, rigs)
    if not all(need in known for need in rig.needs):
        return True
    answer = consultation.result.answers[rig.name]
    status = next(report.status for report in consultation.result.reports if report.name == rig.name)
    return status in (SourceStatus.FRESH, SourceStatus.CACHED) or (
        status is SourceStatus.STALE and answer.called_ns >= healed_ns
    )


def _known(consultation: FinishedConsultation, rigs: Sequence[SourceRig]) -> dict[str, Any]:
    """The values that make up the keys. Revealed values depend on the request only."""
    known: dict[str, Any] = dict(consultation.claims)
    for name, answer in consultation.result.answers.items():
        rig = next(rig for rig in rigs if rig.name == name)
        if isinstance(answer, Fact) and not answer.not_found:
            for given in rig.gives:
                known.setdefault(given, f"{given[0]}{len(answer.key) % 3}")
    return known


class MeteredUpstream:
    """An `Upstream` between a guard and its upstream, which counts calls and waiting asks."""

    def __init__(
        self,
        name: str,
        upstream: Upstream,
        key_of: Callable[[Known], str],
        invariants: Invariants,
        clock_ns: Callable[[], int],
    ) -> None:
        self.addresses = upstream.addresses
        self.name = name
        self.key_of = key_of
        self.clock_ns = clock_ns
        self.invariants = invariants
        self.open: dict[MeteredCall, None] = {}
        self.waiting: dict[MeteredAsk, None] = {}
        self._upstream = upstream
        self._seen = 0
        self._lasts: dict[str, int] = {}
        self._begun: list[MeteredCall] = []  # during a start
        self._firsts: Counter[int] = Counter()
        self._extras: Counter[int] = Counter()
        self._amplification: Counter[str] = Counter()  # by key, first calls less extra ones
        self._share_bps = 0

    def watch(self, guard: Guard, cache: Cache | None) -> None:
        self._guard = guard
        self._cache = cache
        self._policies: list[CacheSettings] = []
        self.ceiling_ms = 0
        self.recovery_ns = 0
        self.reconfigured()

    def reconfigured(self) -> None:
        """Widen the bounds to the new settings: earlier ones may still apply to calls in flight."""
        self.ceiling_ms = max(self.ceiling_ms, self._guard.adaptive_timeout.ceiling_ms)
        mechanisms = self._guard.mechanisms
        self._share_bps = max(self._share_bps, mechanisms.extra_bps)
        pause_s = 0.0 if mechanisms.breaker is None else mechanisms.breaker.open_max_s * 1.1
        # A probe in flight at the end of a fault may still fail, by taking too long.
        self.recovery_ns = max(self.recovery_ns, round(pause_s * 1e9) + (2 * self.ceiling_ms + 5) * MS_NS)
        if self._cache is not None:
            self._policies.append(self._cache.settings)

    def oldest_ns(self, status: SourceStatus, *, not_found: bool) -> int:
        """The largest allowed age of an answer."""
        if status is SourceStatus.FRESH:
            return 4 * self.ceiling_ms * MS_NS  # a full wait, joined by an ask with a full wait
        spans = (
            (
                each.negative_s
                if not_found
                else max(each.fresh_s, each.stale_s, each.error_s)
                if status is SourceStatus.STALE
                else each.fresh_s
            )
            for each in self._policies
        )
        return round(max(spans) * 1e9)

    # The `Upstream`

    def call(
        self, known: Known, call_headers: Any, budget_ms: int, on_answer: OnAnswer, avoid: int = 0
    ) -> UpstreamCall:
        if not 1 <= budget_ms <= self.ceiling_ms:
            self.invariants.report(f"{self.name} is called with {budget_ms} ms of {self.ceiling_ms}")
        key = self.key_of(known)
        first, self._seen = self._guard.counts.first_calls.value - self._seen, self._guard.counts.first_calls.value
        second = self.clock_ns() // 1_000_000_000
        if first:
            self._firsts[second] += 1
            self._amplification[key] += 1
            self._check_limit()
            self._check_single_flight(key)
        else:
            self._extras[second] += 1
            self._amplification[key] -= 1
            if self._amplification[key] < 0:
                self.invariants.report(f"{self.name}/{key} has a second extra call for one first call")
            self._check_budget(second)
        call = MeteredCall(self, key, on_answer)
        self._begun.append(call)
        self.open[call] = None
        call.call = self._upstream.call(known, call_headers, budget_ms, call.on_answer, avoid)
        return call

    def parse_stored(self, not_found: bool, body: bytes, known: Known) -> Any:
        return self._upstream.parse_stored(not_found, body, known)

    def end_refreshes(self, key: str) -> None:
        """The calls in flight are no refreshes any more: the next ask need not join them."""
        for call in self.open:
            if call.key == key:
                call.is_refresh = False

    def _check_budget(self, second: int) -> None:
        seconds = range(second - 9, second + 1)
        firsts, extras = (sum(counts[each] for each in seconds) for counts in (self._firsts, self._extras))
        if extras > max(10, firsts * self._share_bps / 10_000):
            self.invariants.report(f"{self.name}: {extras} extra calls for {firsts}")
        if not self._guard.ladder.hedging:
            self.invariants.report(f"{self.name}: an extra call while the ladder forbids hedging")

    def _check_limit(self) -> None:
        """Check the limit of a sole address.

        With several, only the guard knows which one is meant.
        """
        endpoint = self._guard.endpoints[0]
        if len(self.addresses) == 1 and endpoint.breaker.closed and endpoint.in_flight >= endpoint.limiter.limit:
            self.invariants.report(f"{endpoint!r} is called beyond its limit")

    def _check_single_flight(self, key: str) -> None:
        """No second call for a cached key while an ask waits that came since the last call.

        Unless that call is older than its timeout. With a second level asks wait before any call.
        """
        if self._cache is None or self._cache.l2 is not None:
            return
        now_ns = self.clock_ns()
        epoch = self.invariants.truth.epoch(self.name, key)
        too_long_ago_ns = now_ns - self._guard.adaptive_timeout.timeout_ms * MS_NS
        last_ns, self._lasts[key] = self._lasts.get(key, 0), now_ns
        waiting = [each for each in self.waiting if each.key == key and each.epoch == epoch and not each.starting]
        if last_ns > too_long_ago_ns and any(each.began_ns >= last_ns for each in waiting):
            self.invariants.report(f"{self.name}/{key} is called although an ask waits for it already")
        refreshing = [each for each in self.open if each.key == key and each.epoch == epoch and each.is_refresh]
        if any(each.began_ns > too_long_ago_ns for each in refreshing):
            self.invariants.report(f"{self.name}/{key} is called although a refresh is in flight already")

    def check_counts(self) -> None:
        """Compare the counts of the guard with the calls in flight."""
        in_flight = sum(endpoint.in_flight for endpoint in self._guard.endpoints)
        if in_flight != len(self.open):
            self.invariants.report(f"{self.name} has {len(self.open)} calls in flight, and counts {in_flight}")
        if not 0 <= self._guard.late_calls <= min(MAX_LATE_CALLS, len(self.open)):
            self.invariants.report(f"{self.name} has {self._guard.late_calls} late calls of {len(self.open)}")

    # Between a consultation and what it starts

    def metered(self, start: Start) -> Start:
        def watched(known: Known, call_headers: Any, budget_ms: int, done: OnOutcome) -> AskCall | None:
            key = self.key_of(known)
            waiting = MeteredAsk(self, key, self.invariants.truth.epoch(self.name, key), done)
            self.waiting[waiting] = None
            self._begun.clear()
            waiting.call = start(known, call_headers, budget_ms, waiting.deliver)
            waiting.starting = False
            if waiting.call is None and self._cache is not None:
                for call in self._begun:
                    call.is_refresh = True
            self._begun.clear()
            if waiting.call is None and waiting in self.waiting:
                self.invariants.report(f"{self.name} neither answered nor made a call")
            return None if waiting.call is None else waiting

        return watched


class MeteredAsk:
    """One waiting ask. `epoch`: the number of invalidations of its key when it started."""

    def __init__(self, meter: MeteredUpstream, key: str, epoch: int, done: OnOutcome) -> None:
        self.meter = meter
        self.key = key
        self.epoch = epoch
        self.done = done
        self.began_ns = meter.clock_ns()
        self.starting = True
        self.call: AskCall | None = None

    def deliver(self, outcome: Any, status: SourceStatus = SourceStatus.FRESH, age_ms: int = 0) -> None:
        if self not in self.meter.waiting:
            self.meter.invariants.report(f"{self.meter.name} called a callback twice, or after it was abandoned")
            return
        del self.meter.waiting[self]
        self.done(outcome, status, age_ms)

    def abandon(self) -> None:
        self._leave()
        if self.call is not None:
            self.call.abandon()

    def time_out(self) -> None:
        self._leave()
        if self.call is not None:
            self.call.time_out()

    def _leave(self) -> None:
        self.meter.waiting.pop(self, None)
        # An ask that joined a refresh and leaves ends the refresh's joining
        self.meter.end_refreshes(self.key)


class MeteredCall:
    """One upstream call in flight. `is_refresh`: it refreshes an answer that was served."""

    def __init__(self, meter: MeteredUpstream, key: str, on_answer: OnAnswer) -> None:
        self.meter = meter
        self.key = key
        self.began_ns = meter.clock_ns()
        self.epoch = meter.invariants.truth.epoch(meter.name, key)
        self.is_refresh = False
        self.call: UpstreamCall | None = None
        self._on_answer = on_answer

    @property
    def address_index(self) -> int:
        assert self.call is not None, "its address was read before it had one"
        return self.call.address_index

    def on_answer(self, outcome: Any, not_found: bool = False, body: bytes | None = None) -> None:
        if self not in self.meter.open:
            self.meter.invariants.report(f"{self.meter.name} answered a call after its end")
            return
        self._over()
        self.meter.end_refreshes(self.key)  # the other attempt may run on
        self._on_answer(outcome, not_found, body)

    def abandon(self) -> None:
        if self in self.meter.open:
            self._over()
            if self.call is not None:
                self.call.abandon()

    def _over(self) -> None:
        del self.meter.open[self]
        took_ms = (self.meter.clock_ns() - self.began_ns) / MS_NS
        if took_ms > 2 * self.meter.ceiling_ms + 2:
            self.meter.invariants.report(f"{self.meter.name} took {took_ms:.2f} ms of {self.meter.ceiling_ms}")
