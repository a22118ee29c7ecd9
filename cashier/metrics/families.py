"""The table of all metrics, one row each. The table in `ops/README.md` is made from it."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

NS_PER_S = 1_000_000_000
# Upper bounds of a histogram's buckets in ns. The last bucket has no bound.
BUCKET_BOUNDS_NS = tuple(ms * 1_000_000 for ms in (1, 2, 5, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1000))


class MetricKind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Merge(StrEnum):
    """What the value of a gauge is for several workers."""

    SUM = "sum"
    MAX = "max"


class Family(Struct, frozen=True):
    """One metric. `help`: what it says; `advice`: what to do when it moves.

    `scale`: of a gauge, the parts of its unit that one cell counts, such as 1,000,000 for a ratio;
    its values are rounded to them. Cells of a histogram are ns, its values are seconds.
    `most_children`: sets of label values per worker; beyond them every label is `other`.
    """

    name: str
    kind: MetricKind
    help: str
    advice: str
    labels: tuple[str, ...] = ()
    scale: int = 1
    merge: Merge = Merge.SUM
    most_children: int = 64

    @property
    def cells(self) -> int:
        """The int64 cells of one child. A histogram has its buckets, then the sum in ns."""
        return len(BUCKET_BOUNDS_NS) + 2 if self.kind is MetricKind.HISTOGRAM else 1


_COUNTER, _GAUGE, _HISTOGRAM = MetricKind
_MILLIONTHS = 1_000_000

_ROWS = (
    Family(
        "cashier_consultation_duration_seconds",
        _HISTOGRAM,
        "Time from a consultation's start to its answer.",
        "Compare with the deadline; look at the console's waterfalls for the source that takes the time.",
        ("product", "outcome"),
    ),
    Family(
        "cashier_shed_total",
        _COUNTER,
        "Requests refused because the service was overloaded, by priority and step of the ladder.",
        "Add workers or machines; look at loop lag and queue wait.",
        ("priority", "step"),
    ),
    Family(
        "cashier_queue_wait_seconds",
        _HISTOGRAM,
        "Time that a request waited before its consultation began.",
        "Add workers: requests come faster than they are answered.",
    ),
    Family(
        "cashier_degraded_total",
        _COUNTER,
        "Answers without the fresh data of a source.",
        "Look at the source's failures by reason.",
        ("source",),
    ),
    Family(
        "cashier_source_duration_seconds",
        _HISTOGRAM,
        "Time of one attempt at a source.",
        "Ask the team of the source; compare its endpoints.",
        ("source", "endpoint", "outcome"),
        most_children=512,
    ),
    Family(
        "cashier_source_answers_total",
        _COUNTER,
        "What consultations got from a source, by status and reason.",
        "The reason says what failed; the log has one line a minute with the details.",
        ("source", "status", "reason"),
        most_children=1024,
    ),
    Family(
        "cashier_source_calls_total",
        _COUNTER,
        "Attempts sent to a source: first, hedge, retry, late, batch.",
        "Many hedges and retries: the source is slow or fails.",
        ("source", "kind"),
        most_children=128,
    ),
    Family(
        "cashier_hedges_won_total",
        _COUNTER,
        "Hedges that answered before the first attempt.",
        "Compare with the hedges sent: if few win, raise the hedge delay.",
        ("source",),
    ),
    Family(
        "cashier_extra_call_budget_ratio",
        _GAUGE,
        "Share of the budget for hedges and retries that is left.",
        "Near 0: the source fails for longer than retries can bridge.",
        ("source",),
        scale=_MILLIONTHS,
        merge=Merge.MAX,
    ),
    Family(
        "cashier_breaker_state",
        _GAUGE,
        "Breaker of an endpoint: 0 closed, 1 half open, 2 open.",
        "Open for more than five minutes: the source is down; ask its team.",
        ("source", "endpoint"),
        merge=Merge.MAX,
        most_children=256,
    ),
    Family(
        "cashier_in_flight",
        _GAUGE,
        "Attempts at an endpoint that have no answer yet.",
        "A rising number with a flat rate: the source hangs.",
        ("source", "endpoint"),
        most_children=256,
    ),
    Family(
        "cashier_cache_requests_total",
        _COUNTER,
        "Look-ups in the cache of a source: hit, miss, stale, shared.",
        "A falling share of hits: look at invalidations and at the number of entries.",
        ("source", "result"),
        most_children=128,
    ),
    Family(
        "cashier_methods_total",
        _COUNTER,
        "Payment methods in answers, by availability and reason.",
        "A sudden drop of AVAILABLE of one kind: a channel, contract or source has changed.",
        ("kind", "availability", "reason"),
        most_children=1024,
    ),
    Family(
        "cashier_payments_total",
        _COUNTER,
        "Payments that reached a status.",
        "Compare failures with the acquirer's.",
        ("kind", "status"),
        most_children=512,
    ),
    Family(
        "cashier_payments_unknown",
        _GAUGE,
        "Payments whose outcome is not known yet.",
        "Look at engine and acquirer: money may have moved.",
    ),
    Family(
        "cashier_payment_unknown_oldest_seconds",
        _GAUGE,
        "Age of the oldest payment whose outcome is not known.",
        "Ask the engine's team for this payment.",
        scale=NS_PER_S,
        merge=Merge.MAX,
    ),
    Family(
        "cashier_route_total",
        _COUNTER,
        "Payments sent by routing rule and channel.",
        "A shift: a channel is unhealthy, or the rules have changed.",
        ("rule", "channel"),
        most_children=1024,
    ),
    Family(
        "cashier_loop_lag_seconds",
        _GAUGE,
        "How late the event loop runs its timers.",
        "Add workers, or find what blocks the loop.",
        scale=NS_PER_S,
        merge=Merge.MAX,
    ),
    Family(
        "cashier_config_reload_total",
        _COUNTER,
        "Reloads of the configuration by result.",
        "Failed: the log has the faults; the last good configuration is in use.",
        ("result",),
    ),
    Family(
        "cashier_workers",
        _GAUGE,
        "Worker processes that run.",
        "Fewer than [server] workers for longer than a start takes: the log says why a worker ends.",
    ),
    Family(
        "cashier_worker_ends_total",
        _COUNTER,
        "Worker processes that have ended; their counters stay in the totals.",
        "Any increase without a restart: the log says why; look for memory limits and hangs.",
    ),
    Family(
        "cashier_consultation_records_total",
        _COUNTER,
        "Records of sampled or bad consultations: made, refused (too many in a second), unsent (the operations port's"
        " process did not take them).",
        "Refused: look for the cause of so many bad answers; `[telemetry] records_per_second` bounds the records."
        " Unsent: that process is starved.",
        ("result",),
    ),
    Family(
        "cashier_trace_exports_total",
        _COUNTER,
        "Traced operations by what became of their spans: exported, refused, overflowed.",
        "Refused: look at the collector; the log has the reason. Overflowed: it is slower than what comes.",
        ("result",),
    ),
    Family(
        "cashier_build_info",
        _GAUGE,
        "Always 1; the labels say what runs.",
        "Several versions at once: a roll-out is under way.",
        ("version",),
        merge=Merge.MAX,
    ),
)

FAMILIES: dict[str, Family] = {row.name: row for row in _ROWS}
