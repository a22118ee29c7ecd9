"""Batch: one call for the keys of many askers, made from a source that can be asked for many at once.

Keys leave at the end of the loop turn in which they came while the source has room; only while it is busy do they gather, for a bounded
while. So an idle source is asked as soon as ever, and a batch grows by itself where there is load. One timer per call, none per key.
Each asker has a leg of its own: leaving disturbs nobody else, and only when all have left is their call abandoned.

Nobody's time is kept here: who waits abandons. Equal keys are not joined here: that is the cache's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from enum import Enum, auto
from functools import partial
from typing import Annotated, Any, Protocol, TypeAlias

from msgspec import Meta, Struct

from cashier.fanout.ask import Known
from cashier.fanout.upstream import OnAnswer, UpstreamCall
from cashier.source_errors import SourceError, Unreachable

_MS_NS = 1_000_000

# What `OnAnswer` takes, for one key: the answer or the `SourceError` in its place, whether it is that there is none, and its body.
Outcome: TypeAlias = tuple[Any, bool, bytes | None]


class OnBatchOutcomes(Protocol):
    """Where the outcomes of a call for many go."""

    def __call__(self, outcomes: Sequence[Outcome] | SourceError, /) -> None:
        """One outcome per key, in the order of the keys, or what became of all of them."""


class BatchUpstream(Protocol):
    """A source that can be asked for many keys in one call. Never raises for what it or a network does."""

    @property
    def places(self) -> tuple[str, ...]: ...

    def call_many(
        self, many: Sequence[Known], call_headers: Any, budget_ms: int, heard: OnBatchOutcomes, avoid: int = 0
    ) -> UpstreamCall:
        """As `Upstream.call`, for at least one key."""

    def read(self, none: bool, body: bytes, known: Known) -> Any:
        """As `Upstream.read`."""


class BatchPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How keys gather. `room`: the source is busy while so many calls are under way. `wait_ms`: no key waits for others longer than this,
    room or not: it bounds the wait, and not the calls. `max`: so many keys fill a call.
    """

    max: Annotated[int, Meta(ge=1, le=500)] = 50
    wait_ms: Annotated[int, Meta(ge=0, le=100)] = 2
    # With 2, a source that answers within 2 ms hardly ever looks busy: at 2,000 keys a second 2.4 shared a call, with 1 it were 4.3.
    room: Annotated[int, Meta(ge=1)] = 1


class Departure(Enum):
    """When a call leaves: now, with the end of this loop turn, or when there is room, or at last after the wait."""

    NOW = auto()
    WITH_THE_TURN = auto()
    WITH_ROOM = auto()


def departure(keys: int, under_way: int, numbers: BatchPolicy) -> Departure:
    """For a call with `keys` gathered, while `under_way` others are."""
    if keys >= numbers.max:
        return Departure.NOW
    return Departure.WITH_THE_TURN if under_way < numbers.room else Departure.WITH_ROOM


class Batch:
    """An `Upstream` made from a `BatchUpstream`. `calls` and `keys` count what has gone out since it was made.

    What differs in `avoid` gathers apart: a hedge is asked elsewhere, and nobody else is on its account. A call goes out with the `call_headers`
    of its first key, and with the longest time that one of its keys has left.
    """

    __slots__ = ("_clock_ns", "_gathering", "_many", "_numbers", "_under_way", "calls", "keys", "places")

    def __init__(
        self, many: BatchUpstream, numbers: BatchPolicy, clock_ns: Callable[[], int] = time.perf_counter_ns
    ) -> None:
        self.places = many.places
        self.calls = 0
        self.keys = 0
        self._many = many
        self._numbers = numbers
        self._clock_ns = clock_ns
        self._gathering: dict[int, BatchLoad] = {}  # by `avoid`, the oldest first
        self._under_way = 0

    def __repr__(self) -> str:
        gathered = sum(load.waiting for load in self._gathering.values())
        return f"Batch({', '.join(self.places)}; {self._under_way} calls under way, {gathered} keys gathered)"

    def call(self, known: Known, call_headers: Any, budget_ms: int, heard: OnAnswer, avoid: int = 0) -> UpstreamCall:
        load = self._gathering.get(avoid)
        if load is None:
            load = self._gathering[avoid] = BatchLoad(self, avoid)
        waiter = BatchWaiter(load, known, call_headers, self._clock_ns() + budget_ms * _MS_NS, heard)
        load.waiters.append(waiter)
        load.waiting += 1
        leaves = departure(load.waiting, self._under_way, self._numbers)
        if leaves is Departure.NOW:
            self._send(load)
        elif load.due is None:
            loop = asyncio.get_running_loop()
            at_once = leaves is Departure.WITH_THE_TURN
            load.due = (
                loop.call_soon(self._send, load)
                if at_once
                else loop.call_later(self._numbers.wait_ms / 1000, self._send, load)
            )
        return waiter

    def read(self, none: bool, body: bytes, known: Known) -> Any:
        return self._many.read(none, body, known)

    def left(self, load: BatchLoad) -> None:
        """Nobody waits for this load any more."""
        if load.flight is not None:
            flight = load.over()
            flight.abandon()
            self._came_back()
        elif self._gathering.get(load.avoid) is load:
            self._close(load)

    def _close(self, load: BatchLoad) -> None:
        """Gather into it no longer."""
        del self._gathering[load.avoid]
        if load.due is not None:
            load.due.cancel()
            load.due = None

    def _send(self, load: BatchLoad) -> None:
        self._close(load)
        self._ask(load)

    def _ask(self, load: BatchLoad) -> None:
        load.waiters = waiters = [waiter for waiter in load.waiters if waiter.heard is not None]
        left_ms = (max(waiter.until_ns for waiter in waiters) - self._clock_ns()) // _MS_NS
        many = [waiter.known for waiter in waiters]
        try:
            load.flight = self._many.call_many(
                many, waiters[0].call_headers, max(1, left_ms), partial(self._heard, load), load.avoid
            )
        except Exception as bug:  # noqa: BLE001 - of whoever makes the call from the keys; one key's must not be the others' trouble
            self._ask_apart(load, bug)
            return
        self._under_way += 1
        self.calls += 1
        self.keys += len(waiters)

    def _ask_apart(self, load: BatchLoad, bug: Exception) -> None:
        """The call could not be made. Each key is tried alone, and one that fails alone is reported and hears that it was not asked."""
        if len(load.waiters) > 1:
            for waiter in load.waiters:
                waiter.load = BatchLoad(self, load.avoid, [waiter])
                self._ask(waiter.load)
            return
        unasked = Unreachable(f"could not be asked: {type(bug).__name__}")
        asyncio.get_running_loop().call_soon(load.waiters[0].hear, (unasked, False, None))
        _report("a batched call could not be made", bug)

    def _heard(self, load: BatchLoad, outcomes: Sequence[Outcome] | SourceError) -> None:
        waiters = load.waiters
        load.over()
        self._came_back()  # first of all: the source need not wait until all have been told
        if isinstance(outcomes, SourceError):
            outcomes = [(outcomes, False, None)] * len(waiters)
        for waiter, outcome in zip(waiters, outcomes, strict=True):
            waiter.hear(outcome)

    def _came_back(self) -> None:
        self._under_way -= 1
        for load in tuple(self._gathering.values()):
            if departure(load.waiting, self._under_way, self._numbers) is not Departure.WITH_ROOM:
                self._send(load)


class BatchLoad:
    """The keys of one call. It gathers until it is sent, then has a `flight`, and is over when that is."""

    __slots__ = ("_place", "avoid", "batch", "due", "flight", "waiters", "waiting")

    def __init__(self, batch: Batch, avoid: int, waiters: Sequence[BatchWaiter] = ()) -> None:
        self.batch = batch
        self.avoid = avoid
        self.waiters = list(waiters)
        self.waiting = len(waiters)
        self.due: asyncio.Handle | None = None
        self.flight: UpstreamCall | None = None
        self._place = 0

    @property
    def place(self) -> int:
        return self._place if self.flight is None else self.flight.place

    def over(self) -> UpstreamCall:
        """Lets go of everything, so that a leg that is kept for long holds nothing and no cycle is left. Returns the flight."""
        flight = self.flight
        assert flight is not None, "a call was over before it was made"  # noqa: S101 - the contract of `BatchUpstream`, which a type cannot say
        self._place = flight.place
        self.flight = None
        self.waiters = []
        return flight


class BatchWaiter:
    """One key of a load, and the leg of who asked for it. `until_ns`: when its time is over."""

    __slots__ = ("heard", "known", "load", "call_headers", "until_ns")

    def __init__(self, load: BatchLoad, known: Known, call_headers: Any, until_ns: int, heard: OnAnswer) -> None:
        self.load = load
        self.known = known
        self.call_headers = call_headers
        self.until_ns = until_ns
        self.heard: OnAnswer | None = heard  # None: heard, or abandoned

    @property
    def place(self) -> int:
        return self.load.place

    def hear(self, outcome: Outcome) -> None:
        heard, self.heard = self.heard, None
        if heard is None:
            return
        try:
            heard(*outcome)
        except Exception as bug:  # noqa: BLE001 - a bug of one asker; raised on, it would keep the others from being told
            _report("an asker of a batched call raised", bug)

    def abandon(self) -> None:
        if self.heard is not None:
            self.heard = None
            self.load.waiting -= 1
            if not self.load.waiting:
                self.load.batch.left(self.load)


def _report(what: str, bug: Exception) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": f"cashier: {what}", "exception": bug})
