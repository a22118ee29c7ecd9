"""Flight: one question on its way to a source, by one leg or, where that is slow or has failed, by a second one beside it.

Whoever comes first answers. What is under way when nobody waits any more runs on for a bounded while: its answer warms a cache, its
latency trains the sketch, its connection goes back to its pool, and cutting it would cost a reconnect just when the source is sick.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from cashier.fanout.ask import Known, OnOutcome
from cashier.fanout.endpoint import Endpoint, elsewhere
from cashier.fanout.upstream import OnAnswer, UpstreamCall
from cashier.source_errors import NotAsked, Overloaded, SourceError, Unreachable

if TYPE_CHECKING:
    from cashier.fanout.guard import Guard

_MS_NS = 1_000_000
# So many calls of a source may run on unawaited.
MOST_LATE = 32
_GIVEN_UP = Unreachable("no answer in twice its time")


class CallAttempt(ABC):
    """One leg of a flight: where it went and when. `slow`: that has been counted against its place already."""

    __slots__ = ("began_ns", "leg", "place", "slow")

    place: Endpoint

    def __init__(self, began_ns: int) -> None:
        self.began_ns = began_ns
        self.leg: UpstreamCall | None = None
        self.slow = False

    @property
    @abstractmethod
    def flight(self) -> HedgedCall:
        """Whose leg it is."""

    def heard(self, outcome: Any, none: bool = False, body: bytes | None = None) -> None:
        """Where the upstream's outcome goes."""
        flight = self.flight
        guard = flight.guard
        if guard.several:
            self.follow()
        self.place.in_flight -= 1
        self.leg = None
        now_ns = guard.clock_ns()
        if isinstance(outcome, SourceError):
            if not isinstance(outcome, NotAsked):  # it has not heard of us, so it has not failed
                self.place.failed(self.began_ns, now_ns, slow=self.slow, lost=isinstance(outcome, Overloaded))
            flight.failed(self, outcome, now_ns)
        else:
            guard.sketch.took(now_ns - self.began_ns)
            self.place.answered(self.began_ns, now_ns, slow=self.slow)
            flight.answered(self, outcome, none, body)

    def follow(self) -> None:
        """Charge it to where it went after all: a wire tries another place where one refuses, a batch leaves later than its keys."""
        if self.leg is not None:
            place = self.flight.guard.places[self.leg.place]
            self.place.in_flight -= 1
            place.in_flight += 1
            self.place = place

    def drag(self, now_ns: int, *, lost: bool) -> None:
        """It takes too long, `lost` as in `Endpoint.failed`: that is said now, and not only when it ends."""
        if self.leg is not None and (lost or not self.slow):
            self.follow()
            self.place.failed(self.began_ns, now_ns, slow=self.slow, lost=lost)
            self.slow = True

    def cut(self) -> None:
        leg, self.leg = self.leg, None
        if leg is not None:
            self.place.in_flight -= 1
            leg.abandon()


class HedgeAttempt(CallAttempt):
    """The second leg: beside the first one, or `instead` of it where that had failed."""

    __slots__ = ("_flight", "instead")

    def __init__(self, flight: HedgedCall, began_ns: int) -> None:
        super().__init__(began_ns)
        self._flight = flight
        self.instead = flight.leg is None

    @property
    def flight(self) -> HedgedCall:
        return self._flight


class HedgedCall(CallAttempt):
    """The first leg is the flight itself, because most have no other. `heard_by` is who waits, or would still like to know (`keep`);
    None when they have been told or want no more."""

    __slots__ = (
        "awaited",
        "budget_ms",
        "error",
        "extra",
        "guard",
        "heard_by",
        "keep",
        "known",
        "late",
        "spent",
        "call_headers",
    )

    def __init__(
        self,
        guard: Guard,
        known: Known,
        call_headers: Any,
        budget_ms: int,
        heard_by: OnAnswer | OnOutcome,
        began_ns: int,
        *,
        keep: bool,
    ) -> None:
        self.began_ns = began_ns  # not by `super`: this is the hot path
        self.leg = None
        self.slow = False
        self.guard = guard
        self.known = known
        self.call_headers = call_headers
        self.budget_ms = budget_ms
        self.heard_by: OnAnswer | OnOutcome | None = heard_by
        self.keep = keep
        self.awaited = True
        self.late = False
        self.spent = False  # the one extra call has been made, or may not be
        self.extra: HedgeAttempt | None = None
        self.error: SourceError | None = None

    @property
    def flight(self) -> HedgedCall:
        return self

    def send(self, attempt: CallAttempt, budget_ms: int, avoid: int) -> None:
        """Make a call: the first is the flight's own, a second one an `HedgeAttempt`."""
        guard = self.guard
        attempt.leg = leg = guard.upstream.call(self.known, self.call_headers, budget_ms, attempt.heard, avoid)
        attempt.place = place = guard.places[leg.place]
        place.in_flight += 1

    @property
    def over(self) -> bool:
        return self.leg is None and (self.extra is None or self.extra.leg is None)

    def hedge(self, now_ns: int) -> None:
        """It has taken longer than most: send another beside it, where one may be sent."""
        if self._second(now_ns):
            self.guard.counts.hedges += 1

    def _second(self, now_ns: int) -> bool:
        guard = self.guard
        if self.spent or not self.awaited:
            return False
        self.follow()
        left_ms = self.budget_ms - (now_ns - self.began_ns) // _MS_NS
        avoid = elsewhere(guard.places, self.place)
        if avoid is None or left_ms < 1 or not guard.ladder.hedging or not guard.budget.take(now_ns):
            return False
        self.spent = True
        self.extra = HedgeAttempt(self, now_ns)
        self.send(self.extra, left_ms, avoid)
        return True

    def answered(self, attempt: CallAttempt, outcome: Any, none: bool, body: bytes | None) -> None:
        if self.heard_by is not None:
            if attempt is self.extra and not self.extra.instead:
                self.guard.counts.hedges_won += 1
            if self.late:
                self.guard.counts.harvested += 1
            self._tell(outcome, none, body)
        if self.late or not self.over:  # most have nothing to settle
            self._settle()

    def failed(self, attempt: CallAttempt, error: SourceError, now_ns: int) -> None:
        """Another attempt where that may help; else, when the other leg has nothing to say either, it is the answer."""
        self.error = self.error or error
        if self._retryable(error) and self._second(now_ns):
            self.guard.counts.retries += 1
            return
        if self.over and self.heard_by is not None:
            self._tell(self.error)
        self._settle()

    def _retryable(self, error: SourceError) -> bool:
        """What a place refuses or garbles is tried elsewhere, never there again."""
        if not self.guard.mechanisms.retry or isinstance(error, NotAsked):
            return False
        return isinstance(error, Unreachable) or len(self.guard.places) > 1

    def _tell(self, outcome: Any, none: bool = False, body: bytes | None = None) -> None:
        heard_by, self.heard_by = self.heard_by, None
        self.awaited = False
        if self.keep:
            heard_by(outcome, none, body)  # type: ignore[misc,arg-type]  # a `OnAnswer`, and told once; a cast is a call
        else:
            heard_by(outcome)  # type: ignore[misc]

    def abandon(self) -> None:
        """Nobody waits any more. It runs on if it may."""
        if not self.awaited:
            return
        self.awaited = False
        if not self.keep:
            self.heard_by = None
        guard = self.guard
        now_ns = guard.clock_ns()
        waited_ns = now_ns - self.began_ns
        if (
            waited_ns >= guard.patience.timeout_ms * _MS_NS - _MS_NS
            and guard.patience.timeout_ms < guard.patience.ceiling_ms
        ):
            guard.patience.gave_up()
        if waited_ns >= guard.ceiling_ns - _MS_NS:
            self.drag(now_ns, lost=True)
        self._settle()

    def _settle(self) -> None:
        """What is still under way, awaited by nobody, becomes late, or is cut where too many are late already."""
        if self.awaited or (self.late and not self.over):
            return
        guard = self.guard
        if self.over:
            self.extra = None  # it refers back
            if self.late:
                self.late = False
                guard.watch.late -= 1
        elif guard.mechanisms.late and guard.watch.late < MOST_LATE:
            self.late = True
            guard.watch.late += 1
            guard.counts.late += 1
        else:
            self.cut_off()

    def cut_off(self) -> None:
        """End it now. Whoever would still have liked to know is told that there is no answer."""
        guard = self.guard
        now_ns = guard.clock_ns()
        enough_ns = guard.patience.timeout_ms * _MS_NS - _MS_NS
        for attempt in (self, self.extra):
            if attempt is not None and attempt.leg is not None:
                guard.sketch.cut()
                if now_ns - attempt.began_ns >= enough_ns:  # what does not run on will not be heard of again
                    attempt.drag(now_ns, lost=True)
                attempt.cut()
        self.extra = None
        if self.late:
            self.late = False
            guard.watch.late -= 1
        if self.heard_by is not None:
            self._tell(_GIVEN_UP)
