"""Retries of requests that may be repeated: status queries and reversals. Never of a submit.

A slow attempt is not given up: the next one starts beside it, and the first answer counts. So the
whole budget is kept for an upstream that is slow, and a request that was lost costs only
`attempt_ms`.

All requests to a service share a budget of further attempts. Without it a service that is too slow
for its load would get `attempts` times that load, and stay too slow after the cause is gone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

from msgspec import Meta, Struct

from cashier.fanout.retry_budget import RetryBudget
from cashier.fanout.timeline import CallKind
from cashier.source_errors import Overloaded, Unanswered

Positive = Annotated[int, Meta(ge=1)]

# Further attempts at a service: this share of its requests over ten seconds, or so many a second of
# each worker. The numbers of Finagle's RetryBudget.
FURTHER_BPS = 2_000
FURTHER_PER_S = 10
# The most `attempts` that a configuration may have: the cap of gRPC's retry policy.
MOST_ATTEMPTS = 5


def further_attempts() -> RetryBudget:
    """The budget of one service, for `retry_until_answered`."""
    return RetryBudget(FURTHER_BPS, FURTHER_PER_S)


class RetrySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """At most `attempts`, each running on until the end of the budget.

    The next one starts after a failure, or when the latest has not answered within `attempt_ms`;
    None: such that all attempts fit evenly into the budget. Before it comes a random wait, first up
    to `first_wait_ms`, then up to twice that and so on, at most `longest_wait_ms`. A wait is never
    shorter than the upstream's `Retry-After`.
    """

    attempts: Annotated[int, Meta(ge=1, le=100)] = 3
    attempt_ms: Positive | None = None
    first_wait_ms: Positive = 50
    longest_wait_ms: Positive = 1000

    def longest_wait_before_ms(self, number: int) -> int:
        """Before the attempt with this number, from 1 for the second."""
        return min(self.longest_wait_ms, self.first_wait_ms << (number - 1))

    def next_after_ms(self, budget_ms: int) -> int:
        if self.attempt_ms is not None:
            return self.attempt_ms
        return max(1, (budget_ms - self._waits_ms()) // self.attempts)

    def last_start_ms(self, budget_ms: int) -> int:
        """The latest start of the last attempt, if none before it answers."""
        return (self.attempts - 1) * self.next_after_ms(budget_ms) + self._waits_ms()

    def _waits_ms(self) -> int:
        return sum(self.longest_wait_before_ms(number) for number in range(1, self.attempts))


Answer = TypeVar("Answer")
Running = set[asyncio.Task[Answer | Unanswered]]


async def retry_until_answered(
    attempt: Callable[[int, CallKind], Awaitable[Answer | Unanswered]],
    budget_ms: int,
    settings: RetrySettings,
    further: RetryBudget | None = None,
) -> Answer | Unanswered:
    """Return the first answer, else the last `Unanswered`.

    `attempt` takes the milliseconds that it may last, and whether it is a HEDGE, beside one that
    has not answered yet. All attempts and waits fit into `budget_ms`. `further`: the budget of
    further attempts, on the loop's time; None: without a bound. Raises what an attempt raises.
    """
    loop = asyncio.get_running_loop()
    if further is not None:
        further.roll(_now_ns(loop))
        further.first_calls += 1
    ends_s = loop.time() + budget_ms / 1000
    next_after_s = settings.next_after_ms(budget_ms) / 1000

    async def next_attempt(kind: CallKind) -> Answer | Unanswered:
        return await attempt(max(1, int((ends_s - loop.time()) * 1000)), kind)

    running: Running[Answer] = {loop.create_task(next_attempt(CallKind.FIRST))}
    try:
        outcome = None
        for number in range(1, settings.attempts):
            outcome = await _first_answer(running, loop.time() + next_after_s) or outcome
            starts_s = loop.time() + _wait_s(settings, number, outcome)
            if _is_answer(outcome) or starts_s > ends_s - 0.001:
                break
            outcome = await _first_answer(running, starts_s) or outcome
            if _is_answer(outcome):
                break
            await asyncio.sleep(starts_s - loop.time())
            if further is not None and not further.take(_now_ns(loop)):
                break
            kind = CallKind.HEDGE if running else CallKind.RETRY
            running.add(loop.create_task(next_attempt(kind)))
        if not _is_answer(outcome):
            # Each attempt ends by itself.
            outcome = await _first_answer(running, None) or outcome
        assert outcome is not None  # noqa: S101  at least one attempt has ended
        return outcome
    finally:
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)


def _now_ns(loop: asyncio.AbstractEventLoop) -> int:
    return int(loop.time() * 1e9)


async def _first_answer(running: Running[Answer], until_s: float | None) -> Answer | Unanswered | None:
    """The first answer, or the last failure once nothing is running; None at `until_s`."""
    loop, failure = asyncio.get_running_loop(), None
    while running:
        timeout_s = None if until_s is None else until_s - loop.time()
        done, _ = await asyncio.wait(running, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            return failure
        running -= done
        for outcome in [task.result() for task in done]:
            if _is_answer(outcome):
                return outcome
            failure = outcome
    return failure


def _is_answer(outcome: object) -> bool:
    return outcome is not None and not isinstance(outcome, Unanswered)


def _wait_s(settings: RetrySettings, number: int, outcome: object) -> float:
    error = outcome.error if isinstance(outcome, Unanswered) else None
    retry_after_s = error.retry_after_s if isinstance(error, Overloaded) else None
    wait_s = random.uniform(0, settings.longest_wait_before_ms(number) / 1000)
    return max(retry_after_s or 0.0, wait_s)
