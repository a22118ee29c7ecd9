"""An upstream that does what a script says, at virtual times, and askers that remember what they heard. Proves that its calls are ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, NamedTuple, TypeVar

from cashier.fanout.ask import Importance, Known, PendingCall, SourceStatus, Start
from cashier.fanout.guard import Guard, Mechanisms
from cashier.fanout.load_shedding import DegradationLadder
from cashier.fanout.upstream import OnAnswer
from cashier.source_errors import Garbled, SourceError
from tests.fanout.virtual_loop import VirtualLoop

T = TypeVar("T")
MS_NS = 1_000_000
# A loop's time is a float: what happens at the same moment may differ by this.
_ROUNDING_S = 1e-9


def run_in_virtual_time(main: Callable[[], Coroutine[Any, Any, T]], *, coarse: bool = False) -> T:
    """Run it on a loop of its own whose time jumps to whatever happens next, and see that no task outlives it."""
    loop = VirtualLoop(1_000.0, coarse=coarse)

    async def alone() -> T:
        result = await main()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    try:
        return loop.run_until_complete(alone())
    finally:
        loop.close()


def clock_ns() -> int:
    return round(asyncio.get_running_loop().time() * 1e9)


def set_timers() -> list[asyncio.TimerHandle]:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop.timers()


async def pass_ms(ms: float) -> None:
    """Let so much time pass, and all happen that is to happen until then."""
    await asyncio.sleep(ms / 1000 + _ROUNDING_S)


class Reply(NamedTuple):
    """What becomes of a call: after so many ms, None is never, this outcome."""

    after_ms: float | None = 10
    outcome: Any = "an answer"
    not_found: bool = False
    body: bytes | None = None


class ScriptedCall:
    """One call, and how it ended."""

    def __init__(
        self, known: Known, call_headers: Any, budget_ms: int, heard: OnAnswer, place: int, avoid: int
    ) -> None:
        self.known = known
        self.call_headers = call_headers
        self.budget_ms = budget_ms
        self.heard = heard
        self.address_index = place
        self.avoid = avoid
        self.began_ns = clock_ns()
        self.answered = False
        self.abandoned = False
        self.timer: asyncio.TimerHandle | None = None

    @property
    def under_way(self) -> bool:
        return not (self.answered or self.abandoned)

    def answer(self, fate: Reply = Reply()) -> None:  # noqa: B008 - immutable
        assert self.under_way, "a call was answered after its end"
        self.answered = True
        self.timer = None
        self.heard(fate.outcome, fate.not_found, fate.body)

    def abandon(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if not self.answered:
            self.abandoned = True

    def __repr__(self) -> str:
        end = "answered" if self.answered else "abandoned" if self.abandoned else "under way"
        return f"<Leg to {self.address_index}, {end}>"


Script = Callable[[ScriptedCall], Reply]


class ScriptedUpstream:
    """An `Upstream`. Each call does what `script` says, which may be exchanged at any time; where it goes as a wire chooses it."""

    def __init__(self, script: Script | Reply | None = None, places: int = 1) -> None:
        self.addresses = tuple(f"place {index}" for index in range(places))
        self.legs: list[ScriptedCall] = []
        self._turn = 0
        self.does(script or Reply())

    def does(self, script: Script | Reply) -> None:
        """From now on."""
        fate = script
        self._script: Script = (lambda leg: fate) if isinstance(fate, Reply) else fate

    def call(self, known: Known, call_headers: Any, budget_ms: int, heard: OnAnswer, avoid: int = 0) -> ScriptedCall:
        assert budget_ms >= 1
        leg = ScriptedCall(known, call_headers, budget_ms, heard, self._next(avoid), avoid)
        fate = self._script(leg)
        self.legs.append(leg)
        if fate.after_ms is not None:
            leg.timer = asyncio.get_running_loop().call_later(fate.after_ms / 1000, leg.answer, fate)
        return leg

    def parse_stored(self, not_found: bool, body: bytes, known: Known) -> Any:
        if body == b"a lie":
            return Garbled("not of the agreed shape")
        return None if not_found else body.decode()

    def _next(self, avoid: int) -> int:
        """The least loaded of those that are not to be avoided; ties rotate."""
        count = len(self.addresses)
        if avoid == (1 << count) - 1:
            avoid = 0
        self._turn += 1
        loads = [0] * count
        for leg in self.under_way:
            loads[leg.address_index] += 1
        free = [index for index in range(count) if not avoid >> index & 1]
        return min(free, key=lambda index: (loads[index], (index - self._turn) % count))

    @property
    def under_way(self) -> list[ScriptedCall]:
        """Only of the latest calls: long simulations have many."""
        return [leg for leg in self.legs[-1_000:] if leg.under_way]

    @property
    def abandoned(self) -> list[ScriptedCall]:
        return [leg for leg in self.legs if leg.abandoned]


class Asker:
    """Somebody who asks once, waits for so long at most, and hears at most once."""

    def __init__(self) -> None:
        self.began_ns = clock_ns()
        self.heard_ns: int | None = None
        self.outcome: Any = None
        self.status: SourceStatus | None = None
        self.age_ms = 0
        self.gone = False
        self.flight: PendingCall | None = None
        self.timer: asyncio.TimerHandle | None = None

    def done(self, outcome: Any, status: SourceStatus = SourceStatus.FRESH, age_ms: int = 0) -> None:
        assert self.heard_ns is None, "told twice"
        assert not self.gone, "told after it had gone"
        self.heard_ns = clock_ns()
        self.outcome, self.status, self.age_ms = outcome, status, age_ms
        if self.timer is not None:
            self.timer.cancel()

    def leave(self) -> None:
        if self.heard_ns is None:
            self.gone = True
        if self.timer is not None:
            self.timer.cancel()
        if self.flight is not None:
            self.flight.abandon()

    @property
    def heard(self) -> bool:
        return self.heard_ns is not None

    @property
    def took_ms(self) -> float:
        """Until it heard."""
        assert self.heard_ns is not None, "it has heard nothing"
        return (self.heard_ns - self.began_ns) / MS_NS

    @property
    def refused(self) -> type[SourceError] | None:
        return type(self.outcome) if isinstance(self.outcome, SourceError) else None


def ask(start: Start, known: Known | None = None, *, waits_ms: int = 100) -> Asker:
    """Ask now, and leave after `waits_ms`."""
    asker = Asker()
    asker.flight = start(known or {}, "trip", waits_ms, asker.done)
    if not asker.heard:
        assert asker.flight is not None
        asker.timer = asyncio.get_running_loop().call_later(waits_ms / 1000, asker.leave)
    return asker


async def ask_steadily(
    start: Start, *, every_ms: float, for_ms: float, waits_ms: Callable[[], int] = lambda: 100
) -> list[Asker]:
    """Many, one after the other."""
    askers = []
    for _ in range(round(for_ms / every_ms)):
        askers.append(ask(start, waits_ms=waits_ms()))
        await pass_ms(every_ms)
    return askers


def guarded(
    upstream: ScriptedUpstream,
    mechanisms: Mechanisms | None = None,
    *,
    ceiling_ms: int = 100,
    importance: Importance = Importance.GATING,
    ladder: DegradationLadder | None = None,
) -> Guard:
    """On this loop's time, with dice that fall alike each time."""
    return Guard(
        "source",
        upstream,
        ceiling_ms,
        mechanisms or Mechanisms(),
        ladder or DegradationLadder(),
        importance,
        clock_ns=clock_ns,
        random=Random(1),
    )


def assert_consistent(guard: Guard, upstream: ScriptedUpstream) -> None:
    """What is counted as under way is what is under way, by place, and late is what nobody waits for."""
    loads = [0] * len(upstream.addresses)
    for leg in upstream.under_way:
        loads[leg.address_index] += 1
    assert [endpoint.in_flight for endpoint in guard.endpoints] == loads
    assert guard.timers.late_calls >= 0


def assert_nothing_left(guard: Guard, upstream: ScriptedUpstream) -> None:
    """After its close."""
    assert upstream.under_way == []
    assert [endpoint.in_flight for endpoint in guard.endpoints] == [0] * len(upstream.addresses)
    assert guard.timers.late_calls == 0
    assert set_timers() == []


def first_then(first: Reply, second: Reply) -> Script:
    """Told by `avoid` and by what is under way: whatever is sent while, or after, another was is a second one."""
    seen: list[ScriptedCall] = []

    def script(leg: ScriptedCall) -> Reply:
        seen.append(leg)
        return first if len(seen) % 2 else second

    return script


def set_hedge_delay(guard: Guard, after_ms: int = 20) -> None:
    """As if it had learned so."""
    guard.hedge.delay_ns = after_ms * MS_NS


def lognormal(seed: int, *, median_ms: float = 8, spread: float = 0.3, factor: float = 1) -> Script:
    random = Random(seed)
    return lambda leg: Reply(random.lognormvariate(0, spread) * median_ms * factor)


def quantile_ms(askers: list[Asker], share: float) -> float:
    """Of what they waited, whether or not they heard."""
    waits = sorted(asker.took_ms if asker.heard else 100.0 for asker in askers)
    return waits[int(share * len(waits))]
