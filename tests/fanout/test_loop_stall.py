"""Loop stalls: answers that arrived meanwhile are used, and do not count as slow.

On uvloop, in real time.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from cashier.fanout.ask import Ask, AskCall, Importance, Known, OnOutcome, SourceStatus
from cashier.fanout.guard import Guard
from cashier.fanout.guarded_source import Mechanisms
from cashier.fanout.load_shedding import DegradationLadder
from cashier.fanout.loop_stall import stalled
from cashier.fanout.plan import Plan
from cashier.fanout.scatter import ScatterResult, Timing, scatter
from cashier.fanout.upstream_protocol import OnAnswer
from cashier.source_errors import SourceError

TIMEOUT_MS = 100
STALL_S = 0.3
TIMING = Timing(grace_ns=0, reserve_ns=0)


@pytest.mark.parametrize(
    ("late_ms", "is_one"), [(-1, False), (0, False), (2, False), (5, False), (6, True), (200, True)]
)
def test_a_timer_is_trusted_unless_it_fires_much_too_late(late_ms: int, is_one: bool) -> None:
    assert stalled(1_000_000_000, 1_000_000_000 + late_ms * 1_000_000) is is_one


class Wire(AskCall):
    """A real socket, whose answer arrives while the callback of another socket blocks the loop."""

    addresses = ("somewhere",)
    address_index = 0

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._busy, self._caller = socket.socketpair()
        for end in (self._ours, self._busy):
            end.setblocking(False)

    def close(self) -> None:
        for end in (self._ours, self._theirs, self._busy, self._caller):
            end.close()

    def call(self, known: Known, call_headers: Any, budget_ms: int, on_answer: OnAnswer, avoid: int = 0) -> Wire:
        self._ask(on_answer)
        return self

    def start(self, known: Known, call_headers: Any, budget_ms: int, done: OnOutcome) -> AskCall:
        self._ask(done)
        return self

    def parse_stored(self, not_found: bool, body: bytes, known: Known) -> Any:
        raise AssertionError("nothing is stored")

    def abandon(self) -> None:
        asyncio.get_running_loop().remove_reader(self._ours)

    def _ask(self, deliver: Callable[[Any], None]) -> None:
        loop = asyncio.get_running_loop()

        def readable() -> None:
            loop.remove_reader(self._ours)
            deliver(self._ours.recv(100))

        def stall() -> None:
            loop.remove_reader(self._busy)
            self._theirs.send(b"an answer")
            time.sleep(STALL_S)

        loop.add_reader(self._ours, readable)
        loop.add_reader(self._busy, stall)
        self._caller.send(b"a request")


class SilentWire:
    addresses = ("somewhere",)
    address_index = 0

    def call(self, known: Known, call_headers: Any, budget_ms: int, on_answer: OnAnswer, avoid: int = 0) -> SilentWire:
        return self

    def parse_stored(self, not_found: bool, body: bytes, known: Known) -> Any:
        raise AssertionError("nothing is stored")

    def abandon(self) -> None: ...


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.close()


def test_an_answer_that_arrived_during_a_stall_is_used(wire: Wire) -> None:
    async def consult() -> ScatterResult:
        plan = Plan([Ask("card", Importance.GATING, (), TIMEOUT_MS, wire.start)], [])
        return await scatter(plan, {}, None, deadline_ns=time.perf_counter_ns() + TIMEOUT_MS * 1_000_000, timing=TIMING)

    result = uvloop.run(consult())
    assert result.answers == {"card": b"an answer"}


@pytest.mark.timing
def test_a_source_that_answered_during_a_stall_is_neither_hedged_nor_counted_as_slow(wire: Wire) -> None:
    outcomes: list[Any] = []

    def done(outcome: Any, status: SourceStatus = SourceStatus.FRESH, age_ms: int = 0) -> None:
        outcomes.append(outcome)

    async def ask() -> Guard:
        guard = Guard("card", wire, TIMEOUT_MS, Mechanisms(), DegradationLadder(), Importance.GATING)
        guard.hedge.delay_ns = 2_000_000
        guard.start({}, None, TIMEOUT_MS, done)
        for _ in range(100):
            await asyncio.sleep(0.001)
            if outcomes:
                break
        guard.close()
        return guard

    guard = uvloop.run(ask())
    assert outcomes == [b"an answer"]
    assert guard.counts.hedges.value == 0


@pytest.mark.parametrize("stalled_ms", [2 * TIMEOUT_MS + 10, 3 * TIMEOUT_MS])
def test_a_source_that_hangs_during_a_stall_has_timed_out(stalled_ms: int) -> None:
    """The timer that ends late calls may fire before the waiter's own timeout."""
    failures: list[SourceError] = []
    wire = SilentWire()
    guard = Guard(
        "card", wire, TIMEOUT_MS, Mechanisms(), DegradationLadder(), Importance.GATING,
        on_failure=lambda endpoint, error: failures.append(error),
    )  # fmt: skip

    async def consult() -> ScatterResult:
        asyncio.get_running_loop().call_soon(time.sleep, stalled_ms / 1000)
        plan = Plan([Ask("card", Importance.GATING, (), TIMEOUT_MS, guard.start)], [])
        try:
            return await scatter(plan, {}, None, deadline_ns=time.perf_counter_ns() + 10**10, timing=TIMING)
        finally:
            guard.close()

    result = uvloop.run(consult())
    assert [report.status for report in result.reports] == [SourceStatus.TIMEOUT]
    assert [str(failure) for failure in failures] == ["no answer within the timeout"]
    assert guard.endpoints[0].in_flight == 0
