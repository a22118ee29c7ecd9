"""Retries of look-ups: slow upstreams have the whole budget, lost requests cost one attempt."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.fanout.timeline import CallKind
from cashier.source_errors import Overloaded, TimedOut, Unanswered, Unreachable
from cashier.sources.idempotent_retry import RetrySettings, retry_until_answered
from tests.support.virtual_time import run_in_virtual_time

SETTINGS = st.builds(
    RetrySettings,
    attempts=st.integers(1, 6),
    attempt_ms=st.none() | st.integers(1, 5_000),
    first_wait_ms=st.integers(1, 500),
    longest_wait_ms=st.integers(1, 2_000),
)


class SlowUpstream:
    """Answers each attempt after its own time. None: never. `begun_ms`: when attempts began."""

    def __init__(self, *after_ms: int | None) -> None:
        self._after_ms = list(after_ms)
        self.begun_ms: list[int] = []
        self.abandoned = 0

    async def attempt(self, budget_ms: int, _: CallKind) -> str | Unanswered:
        self.begun_ms.append(round(asyncio.get_running_loop().time() * 1_000))
        after_ms = self._after_ms.pop(0) if len(self._after_ms) > 1 else self._after_ms[0]
        if after_ms is None or after_ms > budget_ms:
            try:
                await asyncio.sleep(budget_ms / 1_000)
            except asyncio.CancelledError:
                self.abandoned += 1
                raise
            return Unanswered(TimedOut("silent"))
        await asyncio.sleep(after_ms / 1_000)
        return "answer"


def looked_up(upstream: SlowUpstream, budget_ms: int, settings: RetrySettings) -> tuple[str | Unanswered, float]:
    async def look_up() -> tuple[str | Unanswered, float]:
        outcome = await retry_until_answered(upstream.attempt, budget_ms, settings)
        return outcome, asyncio.get_running_loop().time() * 1_000

    return run_in_virtual_time(look_up())


@given(budget_ms=st.integers(5, 60_000), settings=SETTINGS)
def test_an_answer_just_within_the_budget_counts(budget_ms: int, settings: RetrySettings) -> None:
    """Whatever the attempts: none of them cuts the budget of the whole."""
    outcome, ended_ms = looked_up(SlowUpstream(budget_ms - 2), budget_ms, settings)
    assert outcome == "answer"
    assert ended_ms <= budget_ms


@given(budget_ms=st.integers(1, 60_000), settings=SETTINGS)
def test_silence_ends_with_the_budget(budget_ms: int, settings: RetrySettings) -> None:
    upstream = SlowUpstream(None)
    outcome, ended_ms = looked_up(upstream, budget_ms, settings)
    assert isinstance(outcome, Unanswered)
    assert ended_ms <= budget_ms + 1
    assert len(upstream.begun_ms) <= settings.attempts


@given(budget_ms=st.integers(500, 60_000), settings=SETTINGS)
def test_every_attempt_starts_if_the_last_can(budget_ms: int, settings: RetrySettings) -> None:
    """The rule by which `payment_faults` refuses tries that do not fit."""
    upstream = SlowUpstream(None)
    looked_up(upstream, budget_ms, settings)
    if settings.last_start_ms(budget_ms) < budget_ms - 1:
        assert len(upstream.begun_ms) == settings.attempts


def test_a_lost_request_costs_one_attempt() -> None:
    upstream = SlowUpstream(None, 5)
    outcome, ended_ms = looked_up(upstream, 2_000, RetrySettings(attempt_ms=300))
    assert outcome == "answer"
    assert 305 <= ended_ms <= 356
    assert upstream.abandoned == 1


@pytest.mark.virtual_time
async def test_a_failure_is_retried_at_once_and_retry_after_is_respected() -> None:
    loop, failures = asyncio.get_running_loop(), [Unreachable("reset"), Overloaded("later", 0.7)]

    async def attempt(_: int, __: CallKind) -> str | Unanswered:
        return Unanswered(failures.pop(0)) if failures else "answer"

    started_s = loop.time()
    assert await retry_until_answered(attempt, 5_000, RetrySettings(attempt_ms=4_000)) == "answer"
    assert 0.7 <= loop.time() - started_s <= 0.76


@pytest.mark.virtual_time
async def test_an_exception_of_an_attempt_is_raised_and_the_others_end() -> None:
    upstream, broken = SlowUpstream(None), [False, True]

    async def attempt(budget_ms: int, kind: CallKind) -> str | Unanswered:
        if broken.pop(0):
            raise LookupError
        return await upstream.attempt(budget_ms, kind)

    with pytest.raises(LookupError):
        await retry_until_answered(attempt, 5_000, RetrySettings(attempt_ms=100))
    assert upstream.abandoned == 1
