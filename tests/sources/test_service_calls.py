"""What is counted about calls of payment services."""

from __future__ import annotations

import asyncio

import pytest

from cashier.domain.order_result import NoOrder
from cashier.metrics.snapshot import HistogramValue
from cashier.metrics.store import Store
from cashier.source_errors import FailureReason, Unanswered
from cashier.sources.acquirer import AcquirerClient
from cashier.sources.idempotent_retry import RetrySettings
from cashier.wire.in_process import InProcessTransport
from cashier.wire.transport import CallHeaders, Request, Response

CALLS, HEDGES_WON = "cashier_source_calls_total", "cashier_hedges_won_total"
NO_ORDER, BROKEN = Response(404, b""), Response(500, b"")
Numbers = dict[str, dict[tuple[str, ...], int]]


async def counted(*answers: tuple[int, Response]) -> tuple[object, Numbers]:
    """The outcome of one query, and what has moved. `answers`: of each attempt, after its ms."""
    left = list(answers)

    async def acquirer(request: Request) -> Response:
        after_ms, response = left.pop(0)
        await asyncio.sleep(after_ms / 1000)
        return response

    metrics, transport = Store(), InProcessTransport(acquirer)
    settings = RetrySettings(attempts=len(answers), attempt_ms=100, first_wait_ms=1, longest_wait_ms=1)
    outcome = await AcquirerClient(transport, settings, metrics=metrics).result("o_1", CallHeaders("r-1"), 1_000)
    await transport.close()
    return outcome, moved(metrics)


def moved(metrics: Store) -> Numbers:
    numbers = {
        name: {
            labels: count
            for labels, value in children.items()
            if (count := value.count if isinstance(value, HistogramValue) else int(value))
        }
        for name, children in metrics.snapshot().items()
    }
    return {name: children for name, children in numbers.items() if children}


async def test_an_answer_of_a_service_counts_as_fresh() -> None:
    outcome, numbers = await counted((0, NO_ORDER))
    assert outcome == NoOrder()
    assert numbers == {
        "cashier_source_calls_total": {("acquirer", "first"): 1},
        "cashier_source_answers_total": {("acquirer", "FRESH", ""): 1},
        "cashier_source_duration_seconds": {("acquirer", "local", "answered"): 1},
    }


async def test_a_failure_of_a_service_counts_with_its_reason() -> None:
    outcome, numbers = await counted((0, Response(404, b"<html>nginx</html>")))
    assert isinstance(outcome, Unanswered)
    assert outcome.error.reason is FailureReason.WRONG_PATH
    assert numbers == {
        "cashier_source_calls_total": {("acquirer", "first"): 1},
        "cashier_source_answers_total": {("acquirer", "GARBLED", "WRONG_PATH"): 1},
        "cashier_source_duration_seconds": {("acquirer", "local", "failed"): 1},
    }


@pytest.mark.virtual_time
async def test_an_attempt_after_a_failed_one_is_a_retry() -> None:
    outcome, numbers = await counted((0, BROKEN), (0, NO_ORDER))
    assert outcome == NoOrder()
    assert numbers[CALLS] == {("acquirer", "first"): 1, ("acquirer", "retry"): 1}
    assert HEDGES_WON not in numbers


@pytest.mark.moves("cashier_hedges_won_total", "cashier_source_calls_total")
@pytest.mark.virtual_time
@pytest.mark.parametrize(("hedge_ms", "won"), [(10, 1), (500, 0)])
async def test_an_attempt_beside_a_slow_one_is_a_hedge_which_may_win(hedge_ms: int, won: int) -> None:
    outcome, numbers = await counted((300, NO_ORDER), (hedge_ms, NO_ORDER))
    assert outcome == NoOrder()
    assert numbers[CALLS] == {("acquirer", "first"): 1, ("acquirer", "hedge"): 1}
    assert numbers.get(HEDGES_WON, {}) == ({("acquirer",): 1} if won else {})


@pytest.mark.virtual_time
async def test_a_hedge_that_fails_wins_nothing() -> None:
    outcome, numbers = await counted((150, NO_ORDER), (0, BROKEN))
    assert outcome == NoOrder()
    assert HEDGES_WON not in numbers
