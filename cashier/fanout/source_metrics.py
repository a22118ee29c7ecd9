"""What is counted about the calls of one source: the children of its metrics.

A child is found once, when its part is built. Parts of one source that are built again count on.
"""

from __future__ import annotations

from functools import partial

from cashier.metrics.store import Store
from cashier.source_errors import FailureReason


class GuardCounts:
    """The counts of one guard.

    Calls made: `first_calls`, `hedges`, `retries`. Of these, `hedges_won` answered before the first
    call, `late_calls` ran on without a waiter and `late_answers` of them filled the cache.
    Calls not made: `skipped` for lack of time, `breaker_open` and `at_limit`.
    """

    __slots__ = (
        "at_limit", "breaker_open", "first_calls", "hedges", "hedges_won", "late_answers", "late_calls", "retries",
        "skipped",
    )  # fmt: skip

    def __init__(self, metrics: Store, source: str) -> None:
        calls = partial(metrics.counter, "cashier_source_calls_total", source)
        self.first_calls = calls("first")
        self.hedges = calls("hedge")
        self.retries = calls("retry")
        self.late_calls = calls("late")
        self.hedges_won = metrics.counter("cashier_hedges_won_total", source)
        self.late_answers = metrics.counter("cashier_late_answers_total", source)
        not_made = partial(metrics.counter, "cashier_source_calls_not_made_total", source)
        self.skipped = not_made(FailureReason.NO_TIME)
        self.breaker_open = not_made(FailureReason.BREAKER_OPEN)
        self.at_limit = not_made(FailureReason.AT_LIMIT)


class EndpointMetrics:
    """What is counted at one configured URL: all addresses of its name together.

    The histograms take one attempt each. `cancelled`: given up at twice the timeout.
    """

    __slots__ = ("answered", "breaker_state", "cancelled", "failed", "in_flight", "openings")

    def __init__(self, metrics: Store, source: str, url: str) -> None:
        duration = partial(metrics.histogram, "cashier_source_duration_seconds", source, url)
        self.answered = duration("answered")
        self.failed = duration("failed")
        self.cancelled = duration("cancelled")
        self.openings = metrics.counter("cashier_breaker_openings_total", source, url)
        self.in_flight = metrics.gauge("cashier_in_flight", source, url)
        self.breaker_state = metrics.gauge("cashier_breaker_state", source, url)


def configured_url(address: str) -> str:
    """The URL that the address belongs to: behind a name, addresses are `URL (ip)`."""
    return address.partition(" (")[0]
