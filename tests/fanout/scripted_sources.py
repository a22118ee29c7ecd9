"""Scripted sources in virtual time, which record their calls, and scatters over them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from enum import Enum, auto
from typing import Any, TypeVar

from cashier.fanout.ask import Ask, AskCall, Importance, Known, OnOutcome, SourceStatus, Unasked
from cashier.fanout.plan import Plan
from cashier.fanout.scatter import Conclusive, ScatterResult, Timing, scatter
from cashier.source_errors import SourceError
from tests.support.virtual_time import MS_NS, clock_ns, now_ms, timers_set

T = TypeVar("T")
NEVER = None


class AnswerMode(Enum):
    """How a source answers: during its start, by a callback, or in a task of its own."""

    AT_ONCE = auto()
    CALLBACK = auto()
    TASK = auto()


class Call(AskCall):
    """One call of a scripted source that counts its ends."""

    def __init__(self, known: Known, call_headers: Any, budget_ms: int, done: OnOutcome) -> None:
        self.known = dict(known)
        self.call_headers = call_headers
        self.budget_ms = budget_ms
        self.started_ms = now_ms()
        self.done = done
        self.answers = 0
        self.abandons = 0
        self.work: asyncio.TimerHandle | asyncio.Task[None] | None = None

    def answer(self, outcome: Any, status: SourceStatus, age_ms: int) -> None:
        self.answers += 1
        self.work = None
        self.done(outcome, status, age_ms)

    def abandon(self) -> None:
        self.abandons += 1
        if self.work is not None:
            self.work.cancel()
            self.work = None


class ScriptedSource:
    """A scripted source and its ask.

    It answers `outcome`, by default its name, after `after_ms`.
    """

    def __init__(
        self,
        name: str,
        importance: Importance,
        *,
        needs: tuple[str, ...] = (),
        gives: Mapping[str, Any] | None = None,
        reveal: Callable[[Any], dict[str, Any]] | None = None,
        after_ms: float | None = 10,
        outcome: Any = None,
        status: SourceStatus = SourceStatus.FRESH,
        age_ms: int = 0,
        timeout_ms: int = 100,
        mode: AnswerMode = AnswerMode.CALLBACK,
        unasked: Unasked | None = None,
    ) -> None:
        self.name = name
        self.after_ms = after_ms
        self.outcome = name if outcome is None else outcome
        self.status = status
        self.age_ms = age_ms
        self.mode = mode
        self.calls: list[Call] = []
        self.given = dict(gives or {})
        self.reveal = reveal
        self.importance = importance
        self.needs = needs
        self.timeout_ms = timeout_ms
        self.unasked = unasked

    @property
    def ask(self) -> Ask:
        """Created per access: a stored ask would form a reference cycle; some tests forbid it."""
        given = self.given
        reveal = self.reveal or ((lambda answer: dict(given)) if given else None)
        return Ask(
            self.name,
            self.importance,
            self.needs,
            self.timeout_ms,
            self.start,
            tuple(given),
            reveal,
            unasked=self.unasked,
        )

    def start(self, known: Known, call_headers: Any, budget_ms: int, done: OnOutcome) -> AskCall | None:
        call = Call(known, call_headers, budget_ms, done)
        self.calls.append(call)
        loop = asyncio.get_running_loop()
        if self.mode is AnswerMode.AT_ONCE:
            call.answer(self.outcome, self.status, self.age_ms)
            return None
        if self.after_ms is not NEVER:
            if self.mode is AnswerMode.TASK:
                call.work = loop.create_task(self._work(call, self.after_ms))
            else:  # call_at: tests that count call_later then count the scatter's own timers only
                call.work = loop.call_at(
                    loop.time() + self.after_ms / 1000, call.answer, self.outcome, self.status, self.age_ms
                )
        return call

    async def _work(self, call: Call, after_ms: float) -> None:
        await asyncio.sleep(after_ms / 1000)
        call.answer(self.outcome, self.status, self.age_ms)

    def __repr__(self) -> str:
        does = f"{self.mode.name} {self.after_ms} ms of {self.timeout_ms}"
        request = f"{self.name} {self.importance.name} needs {self.needs}"
        return f"<{request} {does}: {self.outcome!r}{' no reveal' if self.reveal else ''}>"

    @property
    def failing(self) -> bool:
        return isinstance(self.outcome, SourceError)


def required(name: str, **script: Any) -> ScriptedSource:
    return ScriptedSource(name, Importance.REQUIRED, **script)


def gating(name: str, **script: Any) -> ScriptedSource:
    return ScriptedSource(name, Importance.GATING, **script)


def enriching(name: str, **script: Any) -> ScriptedSource:
    return ScriptedSource(name, Importance.ENRICHING, **script)


def plan_of(sources: Iterable[ScriptedSource], inputs: Iterable[str] = ()) -> Plan:
    return Plan([source.ask for source in sources], inputs)


async def consult(
    *sources: ScriptedSource,
    known: Known | None = None,
    inputs: Iterable[str] = (),
    deadline_ms: float = 150,
    grace_ms: float = 15,
    reserve_ms: float = 5,
    conclusive: Conclusive | None = None,
    clock: Callable[[], int] = clock_ns,
) -> ScatterResult:
    """Run a scatter over scripted sources, and assert that it leaves nothing behind."""
    known = known or {}
    plan = plan_of(sources, [*known, *inputs])
    timing = Timing(grace_ns=round(grace_ms * MS_NS), reserve_ns=round(reserve_ms * MS_NS))
    deadline_ns = clock() + round(deadline_ms * MS_NS)
    try:
        return await scatter(
            plan, known, "headers", deadline_ns=deadline_ns, timing=timing, conclusive=conclusive, clock_ns=clock
        )
    finally:
        assert_nothing_is_left(sources)


def assert_nothing_is_left(sources: Iterable[ScriptedSource]) -> None:
    """Assert that every call ended once, by its answer or abandoned, and that no timer is set."""
    for source in sources:
        assert len(source.calls) <= 1, f"{source.name} was called {len(source.calls)} times"
        for call in source.calls:
            assert call.answers + call.abandons == 1, (
                f"{source.name}: {call.answers} answers, abandoned {call.abandons} times"
            )
    assert timers_set() == []
