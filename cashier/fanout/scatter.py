"""Scatter: put all the asks of a plan at once, and come back by the deadline with what was answered.

No task per ask and one timer per consultation: an ask under way is a slot with a callback. What is asked, and what the answers mean,
is not known here. Nothing of a consultation is left behind when it ends, however it ends: no call, timer, future or reference cycle.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from msgspec import Struct

from cashier.fanout.ask import Ask, Fallback, Importance, Known, SourceReport, SourceStatus
from cashier.fanout.loop_stall import TURN_S, stalled
from cashier.fanout.pending_ask import NEVER_NS, PendingAsk
from cashier.fanout.plan import Plan
from cashier.source_errors import Missing, MissingCause, SourceError

# Looks at the answers so far, by name (those that failed as Missing); True when no other could change what will be said.
Conclusive: TypeAlias = Callable[[Mapping[str, Any]], bool]

_MS_NS = 1_000_000
_REQUIRED = Importance.REQUIRED
_ENRICHING = Importance.ENRICHING
_STATUS = {
    cause: SourceStatus.ERROR
    if cause in (MissingCause.UNREACHABLE, MissingCause.OVERLOADED)
    else SourceStatus(cause.value)
    for cause in MissingCause
}


class Timing(Struct, frozen=True):
    """`grace_ns`: how long ENRICHING asks are waited for once all others are in. `reserve_ns`: kept of the deadline for the caller."""

    grace_ns: int
    reserve_ns: int


class ScatterResult(Struct, frozen=True):
    """What a scatter brought: every ask of the plan, in the plan's order, whatever the order of arrival.

    `answers`: by name, what was answered or the Missing in its place. TIMEOUT: it was asked and silent for too long. SKIPPED: it was
    never asked, or cut off because its answer could change nothing any more. `failed_required`: the REQUIRED asks that came to nothing
    by themselves; one that was merely cut off is not among them. What was never asked is reported with the moment that this was decided
    and no time elapsed.
    """

    answers: dict[str, Any]
    reports: tuple[SourceReport, ...]
    failed_required: tuple[str, ...]


async def scatter(
    plan: Plan,
    known: Known,
    call_headers: Any,
    *,
    deadline_ns: int,
    timing: Timing,
    conclusive: Conclusive | None = None,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> ScatterResult:
    """Ask everything in `plan` that `known` allows, then what the answers allow, until nothing more is worth waiting for.

    It ends when all are in; or all REQUIRED and GATING, and the grace for the ENRICHING is over; or at `deadline_ns` (by `clock_ns`)
    less the reserve; or when a REQUIRED ask has failed; or when `conclusive`, called after each REQUIRED answer, says so. A name in
    `known` stands: no answer replaces it. An ask with less than 1 ms left is not put, and so SKIPPED. When all is answered while being
    asked, it does not suspend.

    Never raises for what a source does. What `start`, `reveal` or `conclusive` raise is a bug and comes out of here; then, and when
    cancelled, all calls are abandoned.
    """
    consultation = Scatter(
        plan, call_headers, deadline_ns=deadline_ns, timing=timing, conclusive=conclusive, clock_ns=clock_ns
    )
    try:
        consultation.start(known)
        if not consultation.over:
            await consultation.end()
        return consultation.gathered()
    finally:
        consultation.close()


class Scatter:
    """One consultation on its way: `start` it, await its `end` unless it is `over`, take what was `gathered`, and `close` it always.

    `scatter` is these four in a row. What is wanted before the end is in `unfolding`.
    """

    __slots__ = (
        "_answers", "_armed_ns", "_began_ns", "_bug", "_clock_ns", "_conclusive", "_end_ns", "_failed", "_grace_ns", "_hard",
        "_hard_in_ns", "_known", "_next_ns", "_pending", "_plan", "_ready", "_slots", "_stalled", "_starting", "_timer", "_call_headers", "_waiter",
        "over",
    )  # fmt: skip

    def __init__(
        self,
        plan: Plan,
        call_headers: Any,
        *,
        deadline_ns: int,
        timing: Timing,
        conclusive: Conclusive | None,
        clock_ns: Callable[[], int],
    ) -> None:
        self._plan = plan
        self._call_headers = call_headers
        self._conclusive = conclusive
        self._clock_ns = clock_ns
        self._began_ns = self._hard_in_ns = clock_ns()
        self._end_ns = deadline_ns - timing.reserve_ns
        self._grace_ns = timing.grace_ns
        self._known: Known = {}
        self._answers: dict[str, Any] = {}
        self._slots = [PendingAsk(ask, self) for ask in plan.asks]
        self._ready: list[PendingAsk] = []
        self._starting = False
        self._pending = len(self._slots)
        self._hard = plan.hard
        self._failed: list[str] = []
        self._next_ns = NEVER_NS  # no ask under way expires before
        self._armed_ns = NEVER_NS
        self._stalled = False
        self._timer: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._bug: Exception | None = None
        self.over = False

    def __repr__(self) -> str:
        return f"Scatter({'over' if self.over else 'under way'}; {', '.join(map(repr, self._slots))})"

    def start(self, known: Known) -> None:
        """Put all asks whose needs are `known`, in the plan's order."""
        self._known = known
        if known.keys() >= self._plan.needs:
            self._ready += self._slots
        else:
            self._sort_out(known)
        self._start_ready()

    def _sort_out(self, known: Known) -> None:
        """Which can be asked, which have to wait for what others reveal, and which wait for what nobody will."""
        hopeless: list[PendingAsk] = []
        for slot in self._slots:
            for need in slot.ask.needs:
                if need not in known:
                    slot.lacking += 1
                    if need not in self._plan.givers:
                        hopeless.append(slot)
            if not slot.lacking:
                self._ready.append(slot)
        for slot in hopeless:
            self._skip(slot, self._began_ns)

    def end(self) -> asyncio.Future[None]:
        """What to await, once, while it is not over."""
        self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter

    def gathered(self) -> ScatterResult:
        """The whole result, once it is over; what has not ended by itself is cut off. Raises the bug that ended it, if one did."""
        if self._bug is not None:
            raise self._bug
        answers: dict[str, Any] = {}
        reports: list[SourceReport] = []
        began_ns = self._began_ns
        for slot in self._slots:
            status = slot.status or self._unsettled(slot)
            ask = slot.ask
            started_ns = slot.started_ns
            answers[ask.name] = self._answers[ask.name]
            # To hundredths of a millisecond, by integers: `round` costs five times as much.
            started_ms = (started_ns - began_ns + 5_000) // 10_000 / 100
            elapsed_ms = (slot.ended_ns - started_ns + 5_000) // 10_000 / 100
            reports.append(SourceReport(ask.name, ask.importance, status, started_ms, elapsed_ms, slot.age_ms))
        failed = tuple(name for name in answers if name in self._failed) if self._failed else ()
        return ScatterResult(answers, tuple(reports), failed)

    def close(self) -> None:
        """Abandon what is still under way and let go of everything. Idempotent."""
        self.over = True
        self._bug = None  # its traceback leads back here
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        flights = []
        for slot in self._slots:
            slot.scatter = None
            if slot.flight is not None:
                flights.append(slot.flight)
                slot.flight = None
        for flight in flights:
            flight.abandon()

    def arrived(self, slot: PendingAsk, outcome: Any, status: SourceStatus, age_ms: int) -> None:
        """Take the outcome of one ask, start those that waited for it, and see whether that was all."""
        try:
            now_ns = self._clock_ns()
            if isinstance(outcome, SourceError):
                self._fail(slot, outcome.cause, now_ns)
            else:
                slot.age_ms = age_ms
                self._settle(slot, outcome, status, now_ns)
                self._learn(slot.ask, outcome, now_ns)
            if self._starting or self.over:
                return
            if self._ready:
                self._start_ready()
            elif not self._hard or self._failed:
                self._weigh()
        except Exception as bug:  # noqa: BLE001 - it must come out of `scatter`, not end in the callback of some wire
            self._break_off(bug)

    def _start_ready(self) -> None:
        """Put what can be put now. Sources that answer at once add to the list while it is worked off, so that nothing nests."""
        self._starting = True
        for slot in self._ready:
            self._put(slot)
            if self._failed or self.over:
                break
        self._ready.clear()
        self._starting = False
        if not self.over:
            self._weigh()

    def _put(self, slot: PendingAsk) -> None:
        ask = slot.ask
        budget_ms = ask.timeout_ms if ask.pace is None else ask.pace.timeout_ms
        now_ns = slot.started_ns = self._clock_ns()
        expires_ns = now_ns + budget_ms * _MS_NS
        if expires_ns > self._end_ns:
            budget_ms = (self._end_ns - now_ns) // _MS_NS
            if budget_ms < 1:
                self._skip(slot, now_ns)
                return
        slot.expires_ns = expires_ns
        self._next_ns = expires_ns if expires_ns < self._next_ns else self._next_ns
        flight = ask.start(self._known, self._call_headers, budget_ms, slot.done)
        if flight is None:
            return
        if slot.status is None:
            slot.flight = flight
        else:  # it was answered while being asked
            flight.abandon()

    def _learn(self, ask: Ask, answer: Any, now_ns: int) -> None:
        if ask.importance is _REQUIRED and self._conclusive is not None and self._conclusive(self._answers):
            self._finish()
        elif ask.reveal is not None:
            self._reveal(ask, ask.reveal, answer, now_ns)

    def _reveal(self, ask: Ask, reveal: Callable[[Any], dict[str, Any]], answer: Any, now_ns: int) -> None:
        wanted = [name for name in ask.gives if name not in self._known]
        if not wanted:
            return
        revealed = reveal(answer)
        if strange := revealed.keys() - set(ask.gives):
            raise ValueError(f"{ask.name} revealed {', '.join(sorted(strange))}, which it does not give")
        # A new mapping: what an ask was told does not change under it, and the caller's mapping is the caller's.
        self._known = {**self._known, **{name: revealed[name] for name in wanted if name in revealed}}
        for name in wanted:
            for waiting in self._waiting_for(name):
                if name in revealed:
                    waiting.lacking -= 1
                    if not waiting.lacking:
                        self._ready.append(waiting)
                else:
                    self._skip(waiting, now_ns)

    def _waiting_for(self, name: str) -> list[PendingAsk]:
        """Those that need it. One that was skipped may be among them: it lacks for ever what it was skipped for."""
        return [self._slots[index] for index in self._plan.waiters[name]]

    def _settle(self, slot: PendingAsk, outcome: Any, status: SourceStatus, now_ns: int) -> None:
        ask = slot.ask
        slot.scatter = None
        slot.status = status
        slot.ended_ns = now_ns
        self._answers[ask.name] = outcome
        self._pending -= 1
        if ask.importance is not _ENRICHING:
            self._hard -= 1
            self._hard_in_ns = now_ns

    def _fail(self, slot: PendingAsk, cause: MissingCause, now_ns: int) -> None:
        """Put an older answer in its place, or a Missing, and that too in the places of those that wait for what only it could give."""
        ask = slot.ask
        if ask.instead is not None and not slot.lacking and self._stand_in(slot, ask.instead, now_ns):
            return
        self._settle(slot, Missing(ask.name, cause), _STATUS[cause], now_ns)
        if ask.importance is _REQUIRED:
            self._failed.append(ask.name)
        for name in ask.gives:
            if name not in self._known:
                for waiting in self._waiting_for(name):
                    self._skip(waiting, now_ns)
        slot.let_go()

    def _stand_in(self, slot: PendingAsk, instead: Fallback, now_ns: int) -> bool:
        found = instead(self._known)
        if found is None:
            return False
        answer, slot.age_ms = found
        self._settle(slot, answer, SourceStatus.STALE, now_ns)
        slot.let_go()
        self._learn(slot.ask, answer, now_ns)
        return True

    def _skip(self, slot: PendingAsk, now_ns: int) -> None:
        if slot.status is None:
            slot.started_ns = now_ns
            self._fail(slot, MissingCause.SKIPPED, now_ns)

    def _unsettled(self, slot: PendingAsk) -> SourceStatus:
        """What to report of an ask that has not ended by itself: it is cut off."""
        now_ns = self._clock_ns()
        if slot.expires_ns == NEVER_NS:
            slot.started_ns = now_ns
        self._settle(slot, Missing(slot.ask.name, MissingCause.SKIPPED), SourceStatus.SKIPPED, now_ns)
        return SourceStatus.SKIPPED

    def _weigh(self) -> None:
        """End where nothing more is worth waiting for; where only ENRICHING asks are left, wait for no more than the grace."""
        if self._failed or not self._pending:
            self._finish()
            return
        if not self._hard:
            self._end_ns = min(self._end_ns, self._hard_in_ns + self._grace_ns)
        self._keep_time()

    def _keep_time(self) -> None:
        """Have the timer fire when the next thing runs out of time. One that will fire before that is left as it is."""
        due_ns = min(self._next_ns, self._end_ns)
        if due_ns >= self._armed_ns:
            return
        if self._timer is not None:
            self._timer.cancel()
        # Whole milliseconds, because uvloop rounds to them. An ask's own time is rounded up (what rounds to none is "at once", and would
        # spin); the end is rounded down, and `_give_up` takes the last millisecond as the end: it is the caller's reserve that pays for
        # being late.
        left_ns = due_ns - self._clock_ns()
        left_ms = max(0, left_ns // _MS_NS) if due_ns == self._end_ns else -(-left_ns // _MS_NS)
        self._timer = asyncio.get_running_loop().call_later(left_ms / 1000, self._tick)
        self._armed_ns = due_ns

    def _tick(self) -> None:
        """A timer is a hint: early (libuv), late (see `stall`), or for an ask that has been answered since. The clock decides."""
        due_ns = self._armed_ns
        self._timer = None
        self._armed_ns = NEVER_NS
        if self.over:
            return
        now_ns = self._clock_ns()
        if not self._stalled and stalled(due_ns, now_ns):
            self._stalled = True
            self._timer = asyncio.get_running_loop().call_later(TURN_S, self._tick)
            self._armed_ns = now_ns
            return
        try:
            self._give_up(now_ns)
        except Exception as bug:  # noqa: BLE001 - here too: the loop would only log it, and `scatter` would wait for ever
            self._break_off(bug)

    def _give_up(self, now_ns: int) -> None:
        """Do without what was asked and is out of time; at the end that is all of it, and with it goes what waits for it."""
        ended = now_ns > self._end_ns - _MS_NS
        self._next_ns = NEVER_NS
        for slot in self._slots:
            if slot.status is not None or slot.expires_ns == NEVER_NS:
                continue
            if ended or slot.expires_ns <= now_ns:
                self._fail(slot, MissingCause.TIMEOUT, now_ns)
            else:
                self._next_ns = min(self._next_ns, slot.expires_ns)
        if self._ready:
            self._start_ready()
        else:
            self._weigh()

    def _break_off(self, bug: Exception) -> None:
        self._bug = bug
        self._finish()

    def _finish(self) -> None:
        self.over = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
