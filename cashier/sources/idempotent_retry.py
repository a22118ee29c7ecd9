"""Retries of requests that may be repeated: status queries and reversals. Never of a submit.

Number and waits are settings; tenacity does the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

from msgspec import Meta, Struct
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, wait_random_exponential

from cashier.source_errors import Overloaded, Unanswered

Positive = Annotated[int, Meta(ge=1)]


class RetrySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """At most `attempts`, each given up after `attempt_ms`.

    Waits are random, first up to `first_wait_ms`, then up to twice that and so on, at most
    `longest_wait_ms`. A wait is never shorter than the upstream's `Retry-After`.
    """

    attempts: Positive = 3
    attempt_ms: Positive = 800
    first_wait_ms: Positive = 50
    longest_wait_ms: Positive = 1000


Answer = TypeVar("Answer")


async def retry_until_answered(
    attempt: Callable[[int], Awaitable[Answer | Unanswered]], budget_ms: int, settings: RetrySettings
) -> Answer | Unanswered:
    """Return the first answer, else the last `Unanswered`.

    `attempt` takes the milliseconds that it may last; all attempts and waits fit into `budget_ms`.
    """
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + budget_ms / 1000

    def remaining_ms() -> int:
        return int((ends_s - loop.time()) * 1000)

    def exhausted(state: RetryCallState) -> bool:
        return state.attempt_number >= settings.attempts or remaining_ms() - state.upcoming_sleep * 1000 < 1

    async def bounded_attempt() -> Answer | Unanswered:
        return await attempt(max(1, min(settings.attempt_ms, remaining_ms())))

    retrying = AsyncRetrying(
        stop=exhausted,
        wait=_wait(settings),
        retry=retry_if_result(lambda outcome: isinstance(outcome, Unanswered)),
        retry_error_callback=_outcome,
    )
    return await retrying(bounded_attempt)


def _wait(settings: RetrySettings) -> Callable[[RetryCallState], float]:
    backoff = wait_random_exponential(multiplier=settings.first_wait_ms / 1000, max=settings.longest_wait_ms / 1000)

    def wait_s(state: RetryCallState) -> float:
        error = _outcome(state).error
        retry_after_s = error.retry_after_s if isinstance(error, Overloaded) else None
        return max(retry_after_s or 0.0, backoff(state))

    return wait_s


def _outcome(state: RetryCallState) -> Any:
    """The outcome of the attempt just made. It has not raised: exceptions are not retried."""
    assert state.outcome is not None  # noqa: S101  tenacity calls this after an attempt only
    return state.outcome.result()
