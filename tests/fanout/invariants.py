"""What the engine promises, whatever happens to it: looked at from outside, by what was asked, what was called and what was told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from cashier.fanout.ask import Importance, Known, OnOutcome, PendingCall, SourceReport, SourceStatus, Start
from cashier.fanout.cache import Cache
from cashier.fanout.guard import Guard
from cashier.fanout.hedged_call import MAX_LATE_CALLS
from cashier.fanout.s3fifo import S3FifoStore
from cashier.fanout.scatter import ScatterResult
from cashier.fanout.ttl import CacheSettings
from cashier.fanout.upstream import OnAnswer, Upstream, UpstreamCall
from cashier.source_errors import Missing, MissingCause
from tests.fanout.simulated_upstreams import MS_NS, Fact, FaultSchedule, Truth

# Reports are told to hundredths of a ms.
_ROUNDED_NS = 20_000
# A second level keeps ages in whole ms, once when it takes an answer and once when it gives it.
_KEPT_NS = 2 * MS_NS
_SLACK_NS = MS_NS + _ROUNDED_NS


class FinishedConsultation(NamedTuple):
    """One consultation. `end_ms`: its deadline less the reserve, from its beginning."""

    claims: Mapping[str, str]
    began_ns: int
    ended_ns: int
    end_ms: int
    grace_ms: int
    gathered: ScatterResult


class SourceRig(NamedTuple):
    """One source with everything around it."""

    name: str
    importance: Importance
    needs: tuple[str, ...]
    gives: tuple[str, ...]
    places: int
    key_of: Callable[[Known], str | tuple[str, ...]]
    weather: FaultSchedule
    meter: MeteredUpstream
    guard: Guard
    cache: Cache
    cached: bool


class Invariants:
    """`broken`: a sentence for each that was. `statuses`: how often each has been reported."""

    def __init__(self, truth: Truth, store: S3FifoStore) -> None:
        self.truth = truth
        self.store = store
        self.broken: list[str] = []
        self.statuses: Counter[str] = Counter()
        self._told: dict[
            tuple[str, str], tuple[int, int]
        ] = {}  # the youngest answer: when it was told, and of which call

    def broke(self, sentence: str) -> None:
        self.broken.append(sentence)

    def of_consultation(self, asked: FinishedConsultation, rigs: Sequence[SourceRig], *, concluding: bool) -> None:
        reports = {report.name: report for report in asked.gathered.reports}
        if reports.keys() != {rig.name for rig in rigs} or reports.keys() != asked.gathered.answers.keys():
            self.broke(f"reports of {list(reports)} only")
            return
        self._of_its_end(asked, reports.values(), concluding=concluding)
        known = _known(asked, rigs)
        for rig in rigs:
            report = reports[rig.name]
            answer = asked.gathered.answers[rig.name]
            self.statuses[report.status.value] += 1
            if isinstance(answer, Missing):
                self._of_gap(report, answer)
            else:
                self._of_answer(asked.began_ns, report, answer, rig, known)
            rig.meter.look()

    def _of_its_end(self, asked: FinishedConsultation, reports: Any, *, concluding: bool) -> None:
        took_ns = asked.ended_ns - asked.began_ns
        if took_ns > max(0, asked.end_ms) * MS_NS + MS_NS:
            self.broke(f"a consultation took {took_ns / MS_NS:.2f} ms of {asked.end_ms}")
        if concluding or asked.gathered.failed_required:
            return
        hard_ms = max(
            (each.started_ms + each.elapsed_ms for each in reports if each.importance is not Importance.ENRICHING),
            default=0.0,
        )
        if took_ns > (hard_ms + asked.grace_ms) * MS_NS + _SLACK_NS:
            self.broke(
                f"ENRICHING sources were waited for until {took_ns / MS_NS:.2f} ms, with all others in at {hard_ms} ms"
            )

    def _of_gap(self, report: SourceReport, gap: Missing) -> None:
        expected = (
            SourceStatus.ERROR
            if gap.cause in (MissingCause.UNREACHABLE, MissingCause.OVERLOADED)
            else SourceStatus(gap.cause.value)
        )
        if (
            report.status is not expected
            or gap.source != report.name
            or gap.cause is MissingCause.PENDING
            or report.age_ms
        ):
            self.broke(f"{report} of {gap}")

    def _of_answer(self, began_ns: int, report: SourceReport, fact: Fact, rig: SourceRig, known: Known) -> None:
        started_ns = began_ns + round(report.started_ms * MS_NS)
        told_ns = started_ns + round(report.elapsed_ms * MS_NS)
        key = rig.meter.key_of(known)
        if fact.source != rig.name or fact.key != key:
            self.broke(f"{rig.name}/{key} was told of {fact}")
        if fact.version < self.truth.oldest(rig.name, key, started_ns - _ROUNDED_NS):
            self.broke(f"{report} tells of {fact}, which was invalidated before it was asked")
        self._of_its_order(report, fact, rig, started_ns, told_ns)
        rounded_ns = _ROUNDED_NS + (_KEPT_NS if rig.cache.l2 is not None else 0)
        behind_ns = report.age_ms * MS_NS - (
            (started_ns if report.status is SourceStatus.FRESH else told_ns) - fact.called_ns
        )
        if behind_ns + MS_NS + rounded_ns < 0 or (
            report.age_ms and behind_ns > 2 * rig.meter.ceiling_ms * MS_NS + rounded_ns
        ):
            self.broke(
                f"{report} has not the age of {fact}, told {(told_ns - fact.called_ns) / MS_NS:.2f} ms after its call"
            )
        most_ns = rig.meter.oldest_ns(report.status, not_found=fact.not_found)
        if told_ns - fact.called_ns > most_ns + rounded_ns + MS_NS:
            self.broke(f"{report} is older than {most_ns / MS_NS:.0f} ms")

    def _of_its_order(self, report: SourceReport, fact: Fact, rig: SourceRig, started_ns: int, told_ns: int) -> None:
        """Who asks after somebody was told is told nothing older, unless what is younger had to make room, or there is a second level."""
        if rig.cache.l2 is not None or self.store.evictions:
            return
        before = self._told.get((rig.name, fact.key))
        if before is not None and before[0] < started_ns - _ROUNDED_NS and fact.called_ns < before[1]:
            self.broke(
                f"{report} tells of {fact}, and somebody was told of a call of {before[1]} at {before[0]}, before it was asked"
            )
        outdated = self.truth.heard_between(rig.name, fact.key, started_ns - _ROUNDED_NS, told_ns)
        if not outdated and (before is None or fact.called_ns > before[1]):
            self._told[rig.name, fact.key] = (told_ns, fact.called_ns)

    def all_is_well(self, asked: Sequence[FinishedConsultation], rigs: Sequence[SourceRig], healed_ns: int) -> None:
        """Every source answers of itself again. What is served stale while it is fetched anew is so the first time only."""
        for rig in rigs:
            if not any(_is_well(each, rig, rigs, healed_ns) for each in asked):
                report = next(each for each in asked[-1].gathered.reports if each.name == rig.name)
                self.broke(f"{report} although all has been well for long; {rig.guard!r}")

    def nobody_waits(self, rigs: Sequence[SourceRig]) -> None:
        for rig in rigs:
            if rig.meter.waiting or rig.cache._fetches or rig.cache._joinable:
                self.broke(f"{rig.name}: {rig.cache!r} with {len(rig.meter.waiting)} who wait")

    def nothing_is_left(self, rigs: Sequence[SourceRig], timers: Sequence[asyncio.TimerHandle]) -> None:
        for rig in rigs:
            rig.meter.look()
            places = [endpoint.in_flight for endpoint in rig.guard.endpoints]
            if rig.meter.open or any(places) or rig.guard.timers.late_calls:
                self.broke(f"{rig.name} has {len(rig.meter.open)} calls left, in flight {places}, {rig.guard.timers!r}")
        if timers:
            self.broke(f"timers are left: {timers}")
        if len(asyncio.all_tasks()) > 1:
            self.broke(f"tasks are left: {asyncio.all_tasks()}")


def _is_well(asked: FinishedConsultation, rig: SourceRig, rigs: Sequence[SourceRig], healed_ns: int) -> bool:
    known = _known(asked, rigs)
    if not all(need in known for need in rig.needs):
        return True
    answer = asked.gathered.answers[rig.name]
    status = next(report.status for report in asked.gathered.reports if report.name == rig.name)
    return status in (SourceStatus.FRESH, SourceStatus.CACHED) or (
        status is SourceStatus.STALE and answer.called_ns >= healed_ns
    )


def _known(asked: FinishedConsultation, rigs: Sequence[SourceRig]) -> dict[str, Any]:
    """What each key is made of, in the end. What answers reveal depends on what was asked alone."""
    known: dict[str, Any] = dict(asked.claims)
    for name, answer in asked.gathered.answers.items():
        rig = next(rig for rig in rigs if rig.name == name)
        if isinstance(answer, Fact) and not answer.not_found:
            for given in rig.gives:
                known.setdefault(given, f"{given[0]}{len(answer.key) % 3}")
    return known


class MeteredUpstream:
    """An `Upstream` between a guard and what it guards, that counts what goes through and what is waited for."""

    def __init__(
        self,
        name: str,
        upstream: Upstream,
        key_of: Callable[[Known], str],
        promises: Invariants,
        clock_ns: Callable[[], int],
    ) -> None:
        self.addresses = upstream.addresses
        self.name = name
        self.key_of = key_of
        self.clock_ns = clock_ns
        self.promises = promises
        self.open: dict[MeteredCall, None] = {}
        self.waiting: dict[MeteredAsk, None] = {}
        self._upstream = upstream
        self._seen = 0
        self._lasts: dict[str, int] = {}
        self._begun: list[MeteredCall] = []  # while somebody asks
        self._firsts: Counter[int] = Counter()
        self._extras: Counter[int] = Counter()
        self._share_bps = 0

    def watch(self, guard: Guard, cache: Cache | None) -> None:
        self._guard = guard
        self._cache = cache
        self._policies: list[CacheSettings] = []
        self.ceiling_ms = 0
        self.heals_ns = 0
        self.reconfigured()

    def reconfigured(self) -> None:
        """The widest of all that has been in force is what counts."""
        self.ceiling_ms = max(self.ceiling_ms, self._guard.adaptive_timeout.ceiling_ms)
        mechanisms = self._guard.mechanisms
        self._share_bps = max(self._share_bps, mechanisms.extra_bps)
        pause_s = 0.0 if mechanisms.breaker is None else mechanisms.breaker.open_max_s * 1.1
        # A trial under way at the end of bad weather may still fail, by taking too long.
        self.heals_ns = max(self.heals_ns, round(pause_s * 1e9) + (2 * self.ceiling_ms + 5) * MS_NS)
        if self._cache is not None:
            self._policies.append(self._cache.settings)

    def oldest_ns(self, status: SourceStatus, *, not_found: bool) -> int:
        """How old an answer may be at most."""
        if status is SourceStatus.FRESH:
            return 4 * self.ceiling_ms * MS_NS  # waited for so long, and joined by somebody who waited as long
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

    # As an upstream

    def call(self, known: Known, call_headers: Any, budget_ms: int, heard: OnAnswer, avoid: int = 0) -> UpstreamCall:
        if not 1 <= budget_ms <= self.ceiling_ms:
            self.promises.broke(f"{self.name} is called with {budget_ms} ms of {self.ceiling_ms}")
        key = self.key_of(known)
        first, self._seen = self._guard.counts.first_calls - self._seen, self._guard.counts.first_calls
        second = self.clock_ns() // 1_000_000_000
        if first:
            self._firsts[second] += 1
            self._borne()
            self._joined(key)
        else:
            self._extras[second] += 1
            self._allowed(second)
        call = MeteredCall(self, key, heard)
        self._begun.append(call)
        self.open[call] = None
        call.leg = self._upstream.call(known, call_headers, budget_ms, call.heard, avoid)
        return call

    def parse_stored(self, not_found: bool, body: bytes, known: Known) -> Any:
        return self._upstream.parse_stored(not_found, body, known)

    def fetched(self, key: str) -> None:
        """Whoever asks next does not wait for what is under way now."""
        for call in self.open:
            if call.key == key:
                call.for_nobody = False

    def _allowed(self, second: int) -> None:
        seconds = range(second - 9, second + 1)
        firsts, extras = (sum(counts[each] for each in seconds) for counts in (self._firsts, self._extras))
        if extras > max(10, firsts * self._share_bps / 10_000):
            self.promises.broke(f"{self.name}: {extras} extra calls for {firsts}")
        if not self._guard.ladder.hedging:
            self.promises.broke(f"{self.name}: an extra call while we ourselves have too much to do")

    def _borne(self) -> None:
        """Where there is a choice of places only who chooses knows which one has to bear it."""
        endpoint = self._guard.endpoints[0]
        if len(self.addresses) == 1 and endpoint.breaker.closed and endpoint.in_flight >= endpoint.limiter.limit:
            self.promises.broke(f"{endpoint!r} is called once more")

    def _joined(self, key: str) -> None:
        """Of what is cached nobody asks while somebody waits for it who came since the last call, unless that has taken too long.

        With a second level they wait before there is a call.
        """
        if self._cache is None or self._cache.l2 is not None:
            return
        now_ns = self.clock_ns()
        epoch = self.promises.truth.epoch(self.name, key)
        too_long_ago_ns = now_ns - self._guard.adaptive_timeout.timeout_ms * MS_NS
        last_ns, self._lasts[key] = self._lasts.get(key, 0), now_ns
        waiting = [each for each in self.waiting if each.key == key and each.epoch == epoch and not each.starting]
        if last_ns > too_long_ago_ns and any(each.began_ns >= last_ns for each in waiting):
            self.promises.broke(f"{self.name}/{key} is called for although somebody waits for it already")
        refreshing = [each for each in self.open if each.key == key and each.epoch == epoch and each.for_nobody]
        if any(each.began_ns > too_long_ago_ns for each in refreshing):
            self.promises.broke(f"{self.name}/{key} is called for although it is being fetched anew already")

    def look(self) -> None:
        """What the guard believes of its calls, compared with what there is."""
        in_flight = sum(endpoint.in_flight for endpoint in self._guard.endpoints)
        if in_flight != len(self.open):
            self.promises.broke(f"{self.name} has {len(self.open)} calls under way, and believes in {in_flight}")
        if not 0 <= self._guard.timers.late_calls <= min(MAX_LATE_CALLS, len(self.open)):
            self.promises.broke(f"{self.name} has {self._guard.timers.late_calls} late calls of {len(self.open)}")

    # Between a consultation and what it starts

    def watching(self, start: Start) -> Start:
        def watched(known: Known, call_headers: Any, budget_ms: int, done: OnOutcome) -> PendingCall | None:
            key = self.key_of(known)
            waiting = MeteredAsk(self, key, self.promises.truth.epoch(self.name, key), done)
            self.waiting[waiting] = None
            self._begun.clear()
            waiting.flight = start(known, call_headers, budget_ms, waiting.told)
            waiting.starting = False
            if waiting.flight is None and self._cache is not None:
                for call in self._begun:
                    call.for_nobody = True
            self._begun.clear()
            if waiting.flight is None and waiting in self.waiting:
                self.promises.broke(f"{self.name} neither answered nor called")
            return None if waiting.flight is None else waiting

        return watched


class MeteredAsk:
    """One who waits for an answer: `epoch` invalidations had been heard of when they asked."""

    def __init__(self, meter: MeteredUpstream, key: str, epoch: int, done: OnOutcome) -> None:
        self.meter = meter
        self.key = key
        self.epoch = epoch
        self.done = done
        self.began_ns = meter.clock_ns()
        self.starting = True
        self.flight: PendingCall | None = None

    def told(self, outcome: Any, status: SourceStatus = SourceStatus.FRESH, age_ms: int = 0) -> None:
        if self not in self.meter.waiting:
            self.meter.promises.broke(f"{self.meter.name} told somebody twice, or who had gone")
            return
        del self.meter.waiting[self]
        self.done(outcome, status, age_ms)

    def abandon(self) -> None:
        self.meter.waiting.pop(self, None)
        self.meter.fetched(self.key)  # who joined what was for nobody and leaves, leaves it behind
        if self.flight is not None:
            self.flight.abandon()


class MeteredCall:
    """One leg, as long as it is open. `for_nobody`: an answer was there, and whoever asks next waits for this one."""

    def __init__(self, meter: MeteredUpstream, key: str, heard: OnAnswer) -> None:
        self.meter = meter
        self.key = key
        self.began_ns = meter.clock_ns()
        self.epoch = meter.promises.truth.epoch(meter.name, key)
        self.for_nobody = False
        self.leg: UpstreamCall | None = None
        self._heard = heard

    @property
    def address_index(self) -> int:
        assert self.leg is not None, "asked for its place before it had one"
        return self.leg.address_index

    def heard(self, outcome: Any, not_found: bool = False, body: bytes | None = None) -> None:
        if self not in self.meter.open:
            self.meter.promises.broke(f"{self.meter.name} told of a call that was over")
            return
        self._over()
        self.meter.fetched(self.key)  # the other leg may run on
        self._heard(outcome, not_found, body)

    def abandon(self) -> None:
        if self in self.meter.open:
            self._over()
            if self.leg is not None:
                self.leg.abandon()

    def _over(self) -> None:
        del self.meter.open[self]
        took_ms = (self.meter.clock_ns() - self.began_ns) / MS_NS
        if took_ms > 2 * self.meter.ceiling_ms + 2:
            self.meter.promises.broke(f"a call of {self.meter.name} took {took_ms:.2f} ms of {self.meter.ceiling_ms}")
