"""Batching: one upstream call for the keys of several asks, if the source accepts many keys.

After each call keys gather for a while, longer under more load; a key that comes after that leaves
at the end of its loop turn. A source with little traffic is therefore called without delay. One
timer per call, none per key.

Abandoning a key disturbs no other; when all keys of a call are abandoned, so is the call. Batching
enforces no timeout: a caller abandons its key. Equal keys are not joined here; the cache does that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, Protocol, TypeAlias

from msgspec import Meta, Struct

from cashier.fanout.ask import Known
from cashier.fanout.upstream_protocol import OnAnswer, UpstreamCall
from cashier.metrics.store import Store
from cashier.source_errors import FailureReason, SourceError, Unreachable

_MS_NS = 1_000_000

# The arguments of `OnAnswer` for one key: the answer or the `SourceError` in its place,
# `not_found`, and the body.
Outcome: TypeAlias = tuple[Any, bool, bytes | None]


class OnBatchOutcomes(Protocol):
    """Receives the outcomes of a batched call."""

    def __call__(self, outcomes: Sequence[Outcome] | SourceError, /) -> None:
        """One outcome per key, in the order of the keys, or one error for all of them."""


class BatchUpstream(Protocol):
    """A source that accepts many keys in one call. Never raises for upstream or network faults."""

    @property
    def addresses(self) -> tuple[str, ...]: ...

    def call_many(
        self, keys: Sequence[Known], call_headers: Any, budget_ms: int, on_outcomes: OnBatchOutcomes, avoid: int = 0
    ) -> UpstreamCall:
        """As `Upstream.call`, for at least one key."""

    def parse_stored(self, not_found: bool, body: bytes, known: Known) -> Any:
        """As `Upstream.parse_stored`."""


class BatchPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How keys gather. `wait_ms`: no key waits longer for others. `max`: keys that fill a call."""

    max: Annotated[int, Meta(ge=1, le=500)] = 50
    # Calls per consultation × median wait is at least the number of batched sources ÷ twice the
    # rate: at 2,000/s six sources cost 0.5 calls and 3 ms, or 0.9 calls and 1.7 ms.
    wait_ms: Annotated[int, Meta(ge=0, le=100)] = 7


def gathering_ns(keys: int, since_ns: int, policy: BatchPolicy) -> int:
    """Time for which keys gather after a call of `keys` keys, `since_ns` after the call before it.

    The longest wait less the time in which two keys come: no key waits for a call that few would
    share.
    """
    return max(0, policy.wait_ms * _MS_NS - 2 * since_ns // keys)


class Batch:
    """An `Upstream` made from a `BatchUpstream`. `calls` and `asks` count what was sent.

    Keys with different `avoid` gather apart: a hedge goes to another address, and only for the keys
    that need it. A call has the `call_headers` of its first key and the longest remaining budget.
    """

    __slots__ = (
        "_clock_ns", "_gathering", "_gathers_until_ns", "_left_ns", "_policy", "_upstream", "addresses", "asks", "calls"
    )  # fmt: skip

    def __init__(
        self,
        upstream: BatchUpstream,
        policy: BatchPolicy,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
        *,
        source: str = "unnamed",
        metrics: Store | None = None,
    ) -> None:
        metrics = metrics or Store()
        self.addresses = upstream.addresses
        self.calls = metrics.counter("cashier_source_calls_total", source, "batch")
        self.asks = metrics.counter("cashier_batched_asks_total", source)
        self._upstream = upstream
        self._policy = policy
        self._clock_ns = clock_ns
        self._gathering: dict[int, BatchLoad] = {}  # by `avoid`, the oldest first
        self._left_ns = self._gathers_until_ns = clock_ns()  # the last call left; until the next may

    def __repr__(self) -> str:
        gathered = sum(load.waiting for load in self._gathering.values())
        return f"Batch({', '.join(self.addresses)}; {gathered} keys gathered)"

    def call(
        self, known: Known, call_headers: Any, budget_ms: int, on_answer: OnAnswer, avoid: int = 0
    ) -> UpstreamCall:
        load = self._gathering.get(avoid)
        if load is None:
            load = self._gathering[avoid] = BatchLoad(self, avoid)
        now_ns = self._clock_ns()
        waiter = BatchWaiter(load, known, call_headers, now_ns + budget_ms * _MS_NS, on_answer)
        load.waiters.append(waiter)
        load.waiting += 1
        if load.waiting >= self._policy.max:
            self._send(load)
        elif load.departure_handle is None:
            wait_s = max(0, self._gathers_until_ns - now_ns) / 1e9
            load.departure_handle = asyncio.get_running_loop().call_later(wait_s, self._send, load)
        return waiter

    def parse_stored(self, not_found: bool, body: bytes, known: Known) -> Any:
        return self._upstream.parse_stored(not_found, body, known)

    def abandoned(self, load: BatchLoad) -> None:
        """All keys of the load are abandoned."""
        if load.call is not None:
            load.release().abandon()
        elif self._gathering.get(load.avoid) is load:
            self._close(load)

    def _close(self, load: BatchLoad) -> None:
        """Stop gathering keys into the load."""
        del self._gathering[load.avoid]
        if load.departure_handle is not None:
            load.departure_handle.cancel()
            load.departure_handle = None

    def _send(self, load: BatchLoad) -> None:
        now_ns = self._clock_ns()
        self._gathers_until_ns = now_ns + gathering_ns(load.waiting, now_ns - self._left_ns, self._policy)
        self._left_ns = now_ns
        self._close(load)
        self._call_upstream(load)

    def _call_upstream(self, load: BatchLoad) -> None:
        load.waiters = waiters = [waiter for waiter in load.waiters if waiter.on_answer is not None]
        left_ms = (max(waiter.expires_ns for waiter in waiters) - self._clock_ns()) // _MS_NS
        keys = [waiter.known for waiter in waiters]
        try:
            load.call = self._upstream.call_many(
                keys, waiters[0].call_headers, max(1, left_ms), partial(self._on_outcomes, load), load.avoid
            )
        except Exception as bug:  # noqa: BLE001 - of the adapter; one key must not fail the others
            self._call_one_by_one(load, bug)
            return
        self.calls.add()
        self.asks.add(len(waiters))

    def _call_one_by_one(self, load: BatchLoad, bug: Exception) -> None:
        """Retry each key alone after a bug prevented the call.

        Report the bug of a key that fails alone.
        """
        if len(load.waiters) > 1:
            for waiter in load.waiters:
                waiter.load = BatchLoad(self, load.avoid, [waiter])
                self._call_upstream(waiter.load)
            return
        known = isinstance(bug, SourceError)  # of an adapter
        raised = f"the call could not be made: {type(bug).__name__}"
        not_sent = bug if known else Unreachable(raised, reason=FailureReason.ADAPTER)
        asyncio.get_running_loop().call_soon(load.waiters[0].deliver, (not_sent, False, None))
        if not known:
            _report("a batched call could not be made", bug)

    def _on_outcomes(self, load: BatchLoad, outcomes: Sequence[Outcome] | SourceError) -> None:
        waiters = load.waiters
        load.release()
        if isinstance(outcomes, SourceError):
            outcomes = [(outcomes, False, None)] * len(waiters)
        for waiter, outcome in zip(waiters, outcomes, strict=True):
            waiter.deliver(outcome)


class BatchLoad:
    """The keys of one call. It gathers keys until it is sent, then has a `call` until that ends."""

    __slots__ = ("_address_index", "avoid", "batch", "call", "departure_handle", "waiters", "waiting")

    def __init__(self, batch: Batch, avoid: int, waiters: Sequence[BatchWaiter] = ()) -> None:
        self.batch = batch
        self.avoid = avoid
        self.waiters = list(waiters)
        self.waiting = len(waiters)
        self.departure_handle: asyncio.Handle | None = None
        self.call: UpstreamCall | None = None
        self._address_index = 0

    @property
    def address_index(self) -> int:
        return self._address_index if self.call is None else self.call.address_index

    def release(self) -> UpstreamCall:
        """Drop all references and return the call.

        A waiter that a caller keeps then holds nothing, and no cycle remains.
        """
        call = self.call
        assert call is not None, "a call ended before it was made"  # noqa: S101 - a contract beyond types
        self._address_index = call.address_index
        self.call = None
        self.waiters = []
        return call


class BatchWaiter:
    """One key of a load, as the `UpstreamCall` of its caller.

    `expires_ns`: the end of its budget.
    """

    __slots__ = ("call_headers", "expires_ns", "known", "load", "on_answer")

    def __init__(self, load: BatchLoad, known: Known, call_headers: Any, expires_ns: int, on_answer: OnAnswer) -> None:
        self.load = load
        self.known = known
        self.call_headers = call_headers
        self.expires_ns = expires_ns
        self.on_answer: OnAnswer | None = on_answer  # None: delivered, or abandoned

    @property
    def address_index(self) -> int:
        return self.load.address_index

    def deliver(self, outcome: Outcome) -> None:
        on_answer, self.on_answer = self.on_answer, None
        if on_answer is None:
            return
        try:
            on_answer(*outcome)
        except Exception as bug:  # noqa: BLE001 - of one caller; raised on, it would cost the others their outcomes
            _report("a callback of a batched call raised", bug)

    def abandon(self) -> None:
        if self.on_answer is not None:
            self.on_answer = None
            self.load.waiting -= 1
            if not self.load.waiting:
                self.load.batch.abandoned(self.load)


def _report(message: str, bug: Exception) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": f"cashier: {message}", "exception": bug})
