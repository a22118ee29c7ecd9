"""Asking again, for what may be asked any number of times: look-ups and polls. Never for what moves money.

How often and how long between is data; tenacity does the rest.
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
    """At most `attempts`, each given up after `attempt_ms`. The waits between are random, up to `first_wait_ms`, then up to twice that.

    Where the upstream names a time to wait, it is kept to.
    """

    attempts: Positive = 3
    attempt_ms: Positive = 800
    first_wait_ms: Positive = 50
    longest_wait_ms: Positive = 1000


Heard = TypeVar("Heard")


async def retry_until_answered(
    once: Callable[[int], Awaitable[Heard | Unanswered]], budget_ms: int, tries: RetrySettings
) -> Heard | Unanswered:
    """The first outcome that is news, else the last that is none. `once` takes what one attempt may last; all fit into `budget_ms`."""
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + budget_ms / 1000

    def left_ms() -> int:
        return int((ends_s - loop.time()) * 1000)

    def enough(state: RetryCallState) -> bool:
        return state.attempt_number >= tries.attempts or left_ms() - state.upcoming_sleep * 1000 < 1

    async def attempt() -> Heard | Unanswered:
        return await once(max(1, min(tries.attempt_ms, left_ms())))

    retrying = AsyncRetrying(
        stop=enough,
        wait=_wait(tries),
        retry=retry_if_result(lambda outcome: isinstance(outcome, Unanswered)),
        retry_error_callback=_outcome,
    )
    return await retrying(attempt)


def _wait(tries: RetrySettings) -> Callable[[RetryCallState], float]:
    backoff = wait_random_exponential(multiplier=tries.first_wait_ms / 1000, max=tries.longest_wait_ms / 1000)

    def wait_s(state: RetryCallState) -> float:
        error = _outcome(state).error
        said_s = error.retry_after_s if isinstance(error, Overloaded) else None
        return max(said_s or 0.0, backoff(state))

    return wait_s


def _outcome(state: RetryCallState) -> Any:
    """Of the attempt just made, which has not raised: what does is not tried again."""
    assert state.outcome is not None  # noqa: S101  tenacity asks after an attempt only
    return state.outcome.result()
