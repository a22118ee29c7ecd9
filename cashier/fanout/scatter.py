"""The scatter: start all asks of a plan concurrently, return the answers by the deadline.

No task per ask and one timer per consultation: an ask in progress is an object with a callback.
This module knows neither what is asked nor what the answers mean. However a consultation ends, it
leaves nothing behind: no call, timer, future or reference cycle.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextvars import Context, copy_context
from typing import Any, TypeAlias

from msgspec import Struct

from cashier.fanout.ask import Ask, Fallback, Importance, Known, SourceReport, SourceStatus
from cashier.fanout.ask_state import NEVER_NS, PendingAsk
from cashier.fanout.loop_stall import TURN_S, stalled
from cashier.fanout.plan import Plan
from cashier.source_errors import FailureReason, Missing, MissingCause, Skipped, SourceError, TimedOut

# Takes the answers so far, by name (failures as Missing); True if no further answer can change the
# result.
Conclusive: TypeAlias = Callable[[Mapping[str, Any]], bool]

_MS_NS = 1_000_000
_TIMED_OUT = TimedOut("no answer in time")
_NO_TIME = Skipped("too little time was left to ask")
_UNMET_NEED = Skipped("an answer that it needs is missing", reason=FailureReason.NOT_NEEDED)
_CUT_OFF = Skipped("the result was final before", reason=FailureReason.NOT_NEEDED)
_REQUIRED = Importance.REQUIRED
_ENRICHING = Importance.ENRICHING
_STATUS: dict[MissingCause, SourceStatus] = {
    cause: SourceStatus.ERROR
    if cause in (MissingCause.UNREACHABLE, MissingCause.OVERLOADED)
    else SourceStatus(cause.value)
    for cause in MissingCause
    if cause is not MissingCause.NOT_CONFIGURED  # then there is no ask
}


class Timing(Struct, frozen=True):
    """`grace_ns`: how long to wait for ENRICHING asks after all others.

    `reserve_ns`: kept of the deadline for the caller.
    """

    grace_ns: int
    reserve_ns: int


class ScatterResult(Struct, frozen=True):
    """Answers and reports of every ask, in the plan's order, not in order of arrival.

    `answers`: by name, the answer or the Missing in its place. `failed_required`: the REQUIRED asks
    that failed, without those that were merely cut off.

    Statuses: TIMEOUT was started and gave no answer in time. SKIPPED was never started, or cut off
    because its answer could change nothing any more; its answer is a Missing, or the `unasked` one
    of an ask that lacks a need. The report of an ask that never started has the moment of that
    decision and no elapsed time.
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
    """Start the asks that `known` allows, then those that answers allow, until the result is final.

    It ends when all asks have ended; when all REQUIRED and GATING asks have ended and the grace for
    ENRICHING ones is over; at `deadline_ns` (by `clock_ns`) less the reserve; when a REQUIRED ask
    has failed; or when `conclusive`, called after each REQUIRED answer, returns True. A name in
    `known` is final: no answer replaces it. An ask with less than 1 ms left is SKIPPED. If all asks
    end while they start, this coroutine does not suspend.

    Never raises for source faults. What `start`, `reveal` or `conclusive` raise is a bug and is
    raised here; then, and on cancellation, all calls are abandoned.
    """
    consultation = Scatter(
        plan, call_headers, deadline_ns=deadline_ns, timing=timing, conclusive=conclusive, clock_ns=clock_ns
    )
    try:
        return await consultation.run(known)
    finally:
        consultation.close()


class Scatter:
    """One scatter: `run` it, always `close` it. `streaming_scatter` adds snapshots before the end.

    `asks`: the state of each ask, in the plan's order.
    """

    __slots__ = (
        "_answers", "_bug", "_call_headers", "_conclusive", "_context", "_end_ns", "_essential_left",
        "_essentials_settled_ns", "_failed_required", "_grace_ns", "_known", "_left",
        "_next_expiry_ns", "_plan", "_ready", "_starting_ns", "_timer", "_timer_due_ns", "_waited_for_stall",
        "_waiter", "asks", "clock_ns", "ended", "started_ns",
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
        self.clock_ns = clock_ns
        self.started_ns = self._essentials_settled_ns = clock_ns()
        self._end_ns = deadline_ns - timing.reserve_ns
        self._grace_ns = timing.grace_ns
        self._known: Known = {}
        self._answers: dict[str, Any] = {}
        self.asks = [PendingAsk(ask, self) for ask in plan.asks]
        self._ready: list[PendingAsk] = []
        self._context: Context | None = None
        self._starting_ns: int | None = None  # while asks are being started: when that began
        self._left = len(self.asks)  # not settled
        self._essential_left = plan.essential_count
        self._failed_required: list[str] = []
        self._next_expiry_ns = NEVER_NS  # no later than the first expiry of a started ask
        self._timer_due_ns = NEVER_NS
        self._waited_for_stall = False
        self._timer: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._bug: Exception | None = None
        self.ended = False

    def __repr__(self) -> str:
        return f"Scatter({'ended' if self.ended else 'in progress'}; {', '.join(map(repr, self.asks))})"

    async def run(self, known: Known) -> ScatterResult:
        """Start, await the end, and return the result. The caller closes."""
        self.start(known)
        if not self.ended:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self.result()

    def start(self, known: Known) -> None:
        """Start all asks whose needs are `known`, in the plan's order."""
        self._known = known
        if known.keys() >= self._plan.needs:
            self._ready += self.asks
        else:
            # Asks that start later do so in the callback of a wire or a timer, which may have the
            # context of another consultation. What they call is the embedding program's own.
            self._context = copy_context()
            self._sort_by_needs(known)
        self._start_ready()

    def _sort_by_needs(self, known: Known) -> None:
        """Find the asks that can start; end those that need a name which nothing gives."""
        impossible: list[PendingAsk] = []
        for pending in self.asks:
            for need in pending.ask.needs:
                if need not in known:
                    pending.unmet_needs += 1
                    if need not in self._plan.giver_of:
                        impossible.append(pending)
            if not pending.unmet_needs:
                self._ready.append(pending)
        for pending in impossible:
            unasked = pending.ask.unasked
            if unasked is None:
                self._skip(pending, _UNMET_NEED, self.started_ns)
            elif pending.status is None:
                pending.started_ns = self.started_ns
                self._settle(pending, unasked.answer, SourceStatus.SKIPPED, self.started_ns)

    def result(self) -> ScatterResult:
        """Return the result after the end; cut off asks that are still in progress.

        Raises the bug that ended it, if any.
        """
        if self._bug is not None:
            raise self._bug
        answers: dict[str, Any] = {}
        reports: list[SourceReport] = []
        scatter_started_ns = self.started_ns
        for pending in self.asks:
            status = pending.status or self._unsettled(pending)
            ask = pending.ask
            started_ns = pending.started_ns
            answers[ask.name] = self._answers[ask.name]
            # To hundredths of a millisecond, by integers: `round` costs five times as much.
            started_ms = (started_ns - scatter_started_ns + 5_000) // 10_000 / 100
            elapsed_ms = (pending.ended_ns - started_ns + 5_000) // 10_000 / 100
            reports.append(SourceReport(ask.name, ask.importance, status, started_ms, elapsed_ms, pending.age_ms))
        failed = tuple(name for name in answers if name in self._failed_required) if self._failed_required else ()
        return ScatterResult(answers, tuple(reports), failed)

    def close(self) -> None:
        """Abandon all calls in progress and drop all references. Idempotent."""
        self.ended = True
        self._bug = None  # its traceback refers back to this object
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        calls = []
        for pending in self.asks:
            pending.scatter = pending.ended_call = pending.error = None
            if pending.call is not None:
                calls.append(pending.call)
                pending.call = None
        for call in calls:
            call.abandon()

    def collect(self, pending: PendingAsk, outcome: Any, status: SourceStatus, age_ms: int) -> None:
        """Take the outcome of one ask, start the asks that it unblocks, check for the end."""
        try:
            now_ns = self.clock_ns() if self._starting_ns is None else self._starting_ns
            if isinstance(outcome, SourceError):
                self._fail(pending, outcome, now_ns)
            else:
                pending.age_ms = age_ms
                self._settle(pending, outcome, status, now_ns)
                self._use_answer(pending.ask, outcome, now_ns)
            if self._starting_ns is not None or self.ended:
                return
            if self._ready:
                self._start_unblocked()
            elif not self._essential_left or self._failed_required:
                self._check_end()
        except Exception as bug:  # noqa: BLE001 - `scatter` must raise it; here it would end in the callback of a wire
            self._end_by_bug(bug)

    def _start_unblocked(self) -> None:
        assert self._context is not None, "an ask waited"  # noqa: S101 - beyond types
        self._context.run(self._start_ready)

    def _start_ready(self) -> None:
        """Start all ready asks.

        Sources that answer at once extend the list during the loop, so nothing recurses.
        """
        self._starting_ns = now_ns = self.clock_ns()
        for pending in self._ready:
            self._start_ask(pending, now_ns)
            if self._failed_required or self.ended:
                break
        self._ready.clear()
        self._starting_ns = None
        if not self.ended:
            self._check_end()

    def _start_ask(self, pending: PendingAsk, now_ns: int) -> None:
        ask = pending.ask
        budget_ms = ask.timeout_ms if ask.current_timeout is None else ask.current_timeout.timeout_ms
        pending.started_ns = now_ns
        expires_ns = now_ns + budget_ms * _MS_NS
        if expires_ns > self._end_ns:
            budget_ms = (self._end_ns - now_ns) // _MS_NS
            if budget_ms < 1:
                self._skip(pending, _NO_TIME, now_ns)
                return
        pending.expires_ns = expires_ns
        self._next_expiry_ns = expires_ns if expires_ns < self._next_expiry_ns else self._next_expiry_ns
        call = ask.start(self._known, self._call_headers, budget_ms, pending.done)
        if call is None:
            return
        if pending.status is None:
            pending.call = call
        else:  # answered during `start`
            call.abandon()

    def _use_answer(self, ask: Ask, answer: Any, now_ns: int) -> None:
        if ask.importance is _REQUIRED and self._conclusive is not None and self._conclusive(self._answers):
            self._end()
        elif ask.reveal is not None:
            self._reveal(ask, ask.reveal, answer, now_ns)

    def _reveal(self, ask: Ask, reveal: Callable[[Any], dict[str, Any]], answer: Any, now_ns: int) -> None:
        wanted = [name for name in ask.gives if name not in self._known]
        if not wanted:
            return
        revealed = reveal(answer)
        if undeclared := revealed.keys() - set(ask.gives):
            raise ValueError(f"{ask.name} revealed {', '.join(sorted(undeclared))}, which it does not give")
        # A new mapping: started asks and the caller hold the present one.
        self._known = {**self._known, **{name: revealed[name] for name in wanted if name in revealed}}
        for name in wanted:
            for waiting in self._asks_needing(name):
                if name in revealed:
                    waiting.unmet_needs -= 1
                    if not waiting.unmet_needs:
                        self._ready.append(waiting)
                else:
                    self._skip(waiting, _UNMET_NEED, now_ns)

    def _asks_needing(self, name: str) -> list[PendingAsk]:
        """May include skipped asks. They never become ready: their missing need stays unmet."""
        return [self.asks[index] for index in self._plan.needed_by[name]]

    def _settle(self, pending: PendingAsk, outcome: Any, status: SourceStatus, now_ns: int) -> None:
        ask = pending.ask
        pending.scatter = None
        pending.status = status
        pending.ended_ns = now_ns
        self._answers[ask.name] = outcome
        self._left -= 1
        if ask.importance is not _ENRICHING:
            self._essential_left -= 1
            self._essentials_settled_ns = now_ns

    def _fail(self, pending: PendingAsk, error: SourceError, now_ns: int) -> None:
        """Use the fallback, else settle as Missing and skip the asks that depend on this one."""
        pending.error = error
        ask, cause = pending.ask, error.cause
        if ask.fallback is not None and not pending.unmet_needs and self._use_fallback(pending, ask.fallback, now_ns):
            return
        self._settle(pending, Missing(ask.name, cause), _STATUS[cause], now_ns)
        if ask.importance is _REQUIRED:
            self._failed_required.append(ask.name)
        for name in ask.gives:
            if name not in self._known:
                for waiting in self._asks_needing(name):
                    self._skip(waiting, _UNMET_NEED, now_ns)
        pending.abandon_call()

    def _use_fallback(self, pending: PendingAsk, fallback: Fallback, now_ns: int) -> bool:
        substitute = fallback(self._known)
        if substitute is None:
            return False
        answer, pending.age_ms = substitute
        self._settle(pending, answer, SourceStatus.STALE, now_ns)
        pending.abandon_call()
        self._use_answer(pending.ask, answer, now_ns)
        return True

    def _skip(self, pending: PendingAsk, reason: Skipped, now_ns: int) -> None:
        if pending.status is None:
            pending.started_ns = now_ns
            self._fail(pending, reason, now_ns)

    def _unsettled(self, pending: PendingAsk) -> SourceStatus:
        """Cut off an ask that has not ended by itself, and return the status to report."""
        now_ns = self.clock_ns()
        if pending.expires_ns == NEVER_NS:
            pending.started_ns = now_ns
        pending.error = _CUT_OFF
        self._settle(pending, Missing(pending.ask.name, MissingCause.SKIPPED), SourceStatus.SKIPPED, now_ns)
        return SourceStatus.SKIPPED

    def _check_end(self) -> None:
        """End if the result is final. If only ENRICHING asks are left, wait for the grace only."""
        if self._failed_required or not self._left:
            self._end()
            return
        if not self._essential_left:
            self._end_ns = min(self._end_ns, self._essentials_settled_ns + self._grace_ns)
        self._arm_timer()

    def _arm_timer(self) -> None:
        """Set the timer to the next expiry. An armed timer that fires earlier stays."""
        due_ns = min(self._next_expiry_ns, self._end_ns)
        if due_ns >= self._timer_due_ns:
            return
        if self._timer is not None:
            self._timer.cancel()
        # Whole milliseconds, because uvloop rounds to them. An ask's expiry is rounded up: a timer
        # of zero would spin. The end is rounded down, and `_expire` takes the last millisecond as
        # the end: lateness would cost the caller's reserve.
        left_ns = due_ns - self.clock_ns()
        left_ms = max(0, left_ns // _MS_NS) if due_ns == self._end_ns else -(-left_ns // _MS_NS)
        self._timer = asyncio.get_running_loop().call_later(left_ms / 1000, self._on_timer)
        self._timer_due_ns = due_ns

    def _on_timer(self) -> None:
        """A timer is a hint: early (libuv), late (`loop_stall`), or for an ask that has ended.

        The clock decides.
        """
        due_ns = self._timer_due_ns
        self._timer = None
        self._timer_due_ns = NEVER_NS
        if self.ended:
            return
        now_ns = self.clock_ns()
        if not self._waited_for_stall and stalled(due_ns, now_ns):
            self._waited_for_stall = True
            self._timer = asyncio.get_running_loop().call_later(TURN_S, self._on_timer)
            self._timer_due_ns = now_ns
            return
        try:
            self._expire(now_ns)
        except Exception as bug:  # noqa: BLE001 - `scatter` must raise it; the loop would only log it
            self._end_by_bug(bug)

    def _expire(self, now_ns: int) -> None:
        """Time out the started asks that have expired; at the end, all that are started."""
        at_end = now_ns > self._end_ns - _MS_NS
        self._next_expiry_ns = NEVER_NS
        for pending in self.asks:
            if pending.status is not None or pending.expires_ns == NEVER_NS:
                continue
            if at_end or pending.expires_ns <= now_ns:
                self._fail(pending, _TIMED_OUT, now_ns)
            else:
                self._next_expiry_ns = min(self._next_expiry_ns, pending.expires_ns)
        if self._ready:
            self._start_unblocked()
        else:
            self._check_end()

    def _end_by_bug(self, bug: Exception) -> None:
        self._bug = bug
        self._end()

    def _end(self) -> None:
        self.ended = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
