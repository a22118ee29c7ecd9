"""A scripted upstream in virtual time, askers that record their outcomes, and a guard over both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple, TypeVar

from cashier.fanout.ask import AskCall, Importance, Known, SourceStatus, Start
from cashier.fanout.guard import Guard
from cashier.fanout.guarded_source import Mechanisms
from cashier.fanout.load_shedding import DegradationLadder
from cashier.fanout.upstream_protocol import OnAnswer, Upstream
from cashier.source_errors import Garbled, SourceError
from tests.support.virtual_time import MS_NS, clock_ns, timers_set

T = TypeVar("T")
# The loop's time is a float: simultaneous events may differ by this.
_ROUNDING_S = 1e-9


async def pass_ms(ms: float) -> None:
    """Let the time pass, with all events until then."""
    await asyncio.sleep(ms / 1000 + _ROUNDING_S)


class Reply(NamedTuple):
    """The scripted end of a call: this outcome after `after_ms`, None for never."""

    after_ms: float | None = 10
    outcome: Any = "an answer"
    not_found: bool = False
    body: bytes | None = None


class ScriptedCall:
    """One call and its end."""

    def __init__(
        self, known: Known, call_headers: Any, budget_ms: int, on_answer: OnAnswer, place: int, avoid: int
    ) -> None:
        self.known = known
        self.call_headers = call_headers
        self.budget_ms = budget_ms
        self.on_answer = on_answer
        self.address_index = place
        self.avoid = avoid
        self.started_ns = clock_ns()
        self.answered = False
        self.abandoned = False
        self.timer: asyncio.TimerHandle | None = None

    @property
    def in_flight(self) -> bool:
        return not (self.answered or self.abandoned)

    def answer(self, reply: Reply = Reply()) -> None:  # noqa: B008 - immutable
        assert self.in_flight, "a call was answered after its end"
        self.answered = True
        self.timer = None
        self.on_answer(reply.outcome, reply.not_found, reply.body)

    def abandon(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if not self.answered:
            self.abandoned = True

    def __repr__(self) -> str:
        end = "answered" if self.answered else "abandoned" if self.abandoned else "in flight"
        return f"<Leg to {self.address_index}, {end}>"


Script = Callable[[ScriptedCall], Reply]


class ScriptedUpstream:
    """An `Upstream`.

    `script` decides each call and may change; addresses are chosen as by a wire.
    """

    def __init__(self, script: Script | Reply | None = None, places: int = 1) -> None:
        self.addresses = tuple(f"address {index}" for index in range(places))
        self.calls: list[ScriptedCall] = []
        self._turn = 0
        self.set_script(script or Reply())

    def set_script(self, script: Script | Reply) -> None:
        """Apply to later calls."""
        reply = script
        self._script: Script = (lambda call: reply) if isinstance(reply, Reply) else reply

    def call(
        self, known: Known, call_headers: Any, budget_ms: int, on_answer: OnAnswer, avoid: int = 0
    ) -> ScriptedCall:
        assert budget_ms >= 1
        call = ScriptedCall(known, call_headers, budget_ms, on_answer, self._next(avoid), avoid)
        reply = self._script(call)
        self.calls.append(call)
        if reply.after_ms is not None:
            call.timer = asyncio.get_running_loop().call_later(reply.after_ms / 1000, call.answer, reply)
        return call

    def parse_stored(self, not_found: bool, body: bytes, known: Known) -> Any:
        if body == b"a lie":
            return Garbled("not of the agreed shape")
        return None if not_found else body.decode()

    def _next(self, avoid: int) -> int:
        """Return the least loaded address outside of `avoid`; ties rotate."""
        count = len(self.addresses)
        if avoid == (1 << count) - 1:
            avoid = 0
        self._turn += 1
        loads = [0] * count
        for call in self.in_flight:
            loads[call.address_index] += 1
        free = [index for index in range(count) if not avoid >> index & 1]
        return min(free, key=lambda index: (loads[index], (index - self._turn) % count))

    @property
    def in_flight(self) -> list[ScriptedCall]:
        """Of the latest calls only: long simulations have many."""
        return [call for call in self.calls[-1_000:] if call.in_flight]

    @property
    def abandoned(self) -> list[ScriptedCall]:
        return [call for call in self.calls if call.abandoned]


class Asker:
    """One ask with a bounded wait and at most one outcome."""

    def __init__(self) -> None:
        self.started_ns = clock_ns()
        self.answered_ns: int | None = None
        self.outcome: Any = None
        self.status: SourceStatus | None = None
        self.age_ms = 0
        self.left = False
        self.call: AskCall | None = None
        self.timer: asyncio.TimerHandle | None = None

    def done(self, outcome: Any, status: SourceStatus = SourceStatus.FRESH, age_ms: int = 0) -> None:
        assert self.answered_ns is None, "called twice"
        assert not self.left, "called after it was abandoned"
        self.answered_ns = clock_ns()
        self.outcome, self.status, self.age_ms = outcome, status, age_ms
        if self.timer is not None:
            self.timer.cancel()

    def leave(self) -> None:
        if self.answered_ns is None:
            self.left = True
        if self.timer is not None:
            self.timer.cancel()
        if self.call is not None:
            self.call.abandon()

    @property
    def answered(self) -> bool:
        return self.answered_ns is not None

    @property
    def took_ms(self) -> float:
        """The time until its outcome."""
        assert self.answered_ns is not None, "it has no outcome"
        return (self.answered_ns - self.started_ns) / MS_NS

    @property
    def error_type(self) -> type[SourceError] | None:
        return type(self.outcome) if isinstance(self.outcome, SourceError) else None


def ask(start: Start, known: Known | None = None, *, waits_ms: int = 100) -> Asker:
    """Ask now, and abandon after `waits_ms`."""
    asker = Asker()
    asker.call = start(known or {}, "headers", waits_ms, asker.done)
    if not asker.answered:
        assert asker.call is not None
        asker.timer = asyncio.get_running_loop().call_later(waits_ms / 1000, asker.leave)
    return asker


async def ask_steadily(
    start: Start, *, every_ms: float, for_ms: float, waits_ms: Callable[[], int] = lambda: 100
) -> list[Asker]:
    """Ask at regular intervals."""
    askers = []
    for _ in range(round(for_ms / every_ms)):
        askers.append(ask(start, waits_ms=waits_ms()))
        await pass_ms(every_ms)
    return askers


def guarded(
    upstream: Upstream,
    mechanisms: Mechanisms | None = None,
    *,
    ceiling_ms: int = 100,
    importance: Importance = Importance.GATING,
    ladder: DegradationLadder | None = None,
    subject: str | None = None,
) -> Guard:
    """A guard on this loop's time, with a fixed seed."""
    return Guard(
        "source",
        upstream,
        ceiling_ms,
        mechanisms or Mechanisms(),
        ladder or DegradationLadder(),
        importance,
        subject=subject,
        clock_ns=clock_ns,
        random=Random(1),
    )


def assert_consistent(guard: Guard, upstream: ScriptedUpstream) -> None:
    """Assert that the counts of calls in flight match the upstream, per address."""
    loads = [0] * len(upstream.addresses)
    for call in upstream.in_flight:
        loads[call.address_index] += 1
    assert [endpoint.in_flight for endpoint in guard.endpoints] == loads
    assert guard.late_calls >= 0


def assert_nothing_left(guard: Guard, upstream: ScriptedUpstream) -> None:
    """Assert that a closed guard has no calls and no timers."""
    assert upstream.in_flight == []
    assert [endpoint.in_flight for endpoint in guard.endpoints] == [0] * len(upstream.addresses)
    assert guard.late_calls == 0
    assert timers_set() == []


def first_then(first: Reply, second: Reply) -> Script:
    """A script with one reply for first attempts and one for second ones, in turn."""
    seen: list[ScriptedCall] = []

    def script(call: ScriptedCall) -> Reply:
        seen.append(call)
        return first if len(seen) % 2 else second

    return script


def set_hedge_delay(guard: Guard, after_ms: int = 20) -> None:
    """Set the delay as if it was learned."""
    guard.hedge.delay_ns = after_ms * MS_NS


def lognormal(seed: int, *, median_ms: float = 8, spread: float = 0.3, factor: float = 1) -> Script:
    random = Random(seed)
    return lambda call: Reply(random.lognormvariate(0, spread) * median_ms * factor)


def quantile_ms(askers: list[Asker], share: float) -> float:
    """A quantile of the waits, with or without an outcome."""
    waits = sorted(asker.took_ms if asker.answered else 100.0 for asker in askers)
    return waits[int(share * len(waits))]
