"""What is counted about calls of payment services."""

from __future__ import annotations

from cashier.domain.order_result import NoOrder
from cashier.metrics.snapshot import HistogramValue
from cashier.metrics.store import Store
from cashier.source_errors import FailureReason, Unanswered
from cashier.sources.acquirer import AcquirerClient
from cashier.sources.idempotent_retry import RetrySettings
from cashier.wire.in_process import InProcessTransport
from cashier.wire.transport import CallHeaders, Request, Response


async def counted(response: Response) -> tuple[object, dict[str, dict[tuple[str, ...], int]]]:
    """The outcome of one query, and what has moved."""

    async def acquirer(request: Request) -> Response:
        return response

    metrics, transport = Store(), InProcessTransport(acquirer)
    client = AcquirerClient(transport, RetrySettings(attempts=1), metrics=metrics)
    outcome = await client.result("o_1", CallHeaders("r-1"), 1_000)
    await transport.close()
    numbers = {
        name: {
            labels: count
            for labels, value in children.items()
            if (count := value.count if isinstance(value, HistogramValue) else int(value))
        }
        for name, children in metrics.snapshot().items()
    }
    return outcome, numbers


async def test_an_answer_of_a_service_counts_as_fresh() -> None:
    outcome, numbers = await counted(Response(404, b""))
    assert outcome == NoOrder()
    assert numbers == {
        "cashier_source_calls_total": {("acquirer", "first"): 1},
        "cashier_source_answers_total": {("acquirer", "FRESH", ""): 1},
        "cashier_source_duration_seconds": {("acquirer", "local", "answered"): 1},
    }


async def test_a_failure_of_a_service_counts_with_its_reason() -> None:
    outcome, numbers = await counted(Response(404, b"<html>nginx</html>"))
    assert isinstance(outcome, Unanswered)
    assert outcome.error.reason is FailureReason.WRONG_PATH
    assert numbers == {
        "cashier_source_calls_total": {("acquirer", "first"): 1},
        "cashier_source_answers_total": {("acquirer", "GARBLED", "WRONG_PATH"): 1},
        "cashier_source_duration_seconds": {("acquirer", "local", "failed"): 1},
    }
