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
    MIN = "min"


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
    # Consultations
    Family(
        "cashier_consultation_duration_seconds",
        _HISTOGRAM,
        "Time from a consultation's start to its answer. Outcomes: complete, degraded (an answer of a source is"
        " missing), blocked (the order cannot be paid), order_unknown, unavailable (a required source is silent),"
        " abandoned (the caller left), error (a bug). Of a stream, the time to its last answer.",
        "Compare with the deadline. The console's waterfalls show the source that takes the time; unavailable: see"
        " source_answers of order, merchant and member; error: the log has the traceback.",
        ("product", "outcome"),
    ),
    Family(
        "cashier_consultations_late_total",
        _COUNTER,
        "Answers after the caller's deadline.",
        "Look at loop lag and queue wait: a late answer means that this process was late, not a source. Add workers.",
    ),
    Family(
        "cashier_degraded_total",
        _COUNTER,
        "Degraded answers, by the source whose answer is missing.",
        "source_answers has the reason. Payers miss discounts (enriching sources) or methods (gating ones).",
        ("source",),
    ),
    Family(
        "cashier_methods_total",
        _COUNTER,
        "Payment methods in answers, by kind, availability and reason of the refusal.",
        "A sudden drop of AVAILABLE of one kind: a channel, contract or source has changed; the reason says which"
        " check refuses. UNDETERMINED: a source that could refuse is silent.",
        ("kind", "availability", "reason"),
        most_children=2048,
    ),
    # Sources. `risk`, `engine` and `acquirer` are counted as well.
    Family(
        "cashier_source_answers_total",
        _COUNTER,
        "What consultations and payments got from a source, one per ask: status, and the reason of a failure.",
        "DNS, REFUSED, CONNECT_TIMEOUT: host or network; TLS: certificate, or a port without TLS; WRONG_PATH,"
        " STATUS_4XX: url; UNAUTHORIZED, NO_CREDENTIAL, SIGNATURE: auth of the source; FIELD, NOT_JSON: the answer's"
        " shape, and the log names the field; TIMEOUT: the source is slow.",
        ("source", "status", "reason"),
        most_children=1024,
    ),
    Family(
        "cashier_source_duration_seconds",
        _HISTOGRAM,
        "Time of one attempt at a source's URL. Outcomes: answered, failed, cancelled (given up at twice the timeout).",
        "Ask the source's team; compare its URLs, and the timeout in `cashier plan`.",
        ("source", "endpoint", "outcome"),
        most_children=512,
    ),
    Family(
        "cashier_source_calls_total",
        _COUNTER,
        "Attempts: first; hedge, beside a slow first one; retry, after a failed one; late, went on without a waiter;"
        " batch, calls on the wire that carry several asks.",
        "Many hedges: the source has become slow. Many retries: it fails. Many late ones: its timeout is too short.",
        ("source", "kind"),
        most_children=128,
    ),
    Family(
        "cashier_source_calls_not_made_total",
        _COUNTER,
        "Calls that were left out: NO_TIME before the deadline, BREAKER_OPEN, AT_LIMIT of concurrent calls.",
        "BREAKER_OPEN: see breaker_state. AT_LIMIT: the source is too slow for its load. NO_TIME: it takes longer than"
        " the callers' deadlines leave.",
        ("source", "reason"),
        most_children=128,
    ),
    Family(
        "cashier_hedges_won_total",
        _COUNTER,
        "Hedges that answered before the first attempt.",
        "Compare with the hedges sent. If few win, hedging does not help: raise its quantile or turn it off.",
        ("source",),
    ),
    Family(
        "cashier_late_answers_total",
        _COUNTER,
        "Answers of late calls that came in time for the cache.",
        "Nothing to do. Few of many late calls: the source is far slower than its timeout.",
        ("source",),
    ),
    Family(
        "cashier_batched_asks_total",
        _COUNTER,
        "Asks that the calls of kind batch carried.",
        "Divide by these calls for the size of a batch. Near 1: batching costs waiting time and gains nothing.",
        ("source",),
    ),
    Family(
        "cashier_extra_call_budget_ratio",
        _GAUGE,
        "Share of the budget for hedges and retries that is left.",
        "Near 0: the source fails or is slow for longer than extra calls can bridge.",
        ("source",),
        scale=_MILLIONTHS,
        merge=Merge.MIN,
    ),
    Family(
        "cashier_breaker_state",
        _GAUGE,
        "Worst breaker of a URL's addresses: 0 closed, 1 half open (a probe decides), 2 open (no calls).",
        "2 for more than five minutes: the source is down. source_answers has the reason; where a cache still answers,"
        " source_duration says failed or, of a slow source, cancelled, and the log has the reason.",
        ("source", "endpoint"),
        merge=Merge.MAX,
        most_children=256,
    ),
    Family(
        "cashier_breaker_openings_total",
        _COUNTER,
        "How often a breaker of a URL's addresses opened.",
        "Again and again: the source recovers and fails under load; its limiter or its capacity is wrong.",
        ("source", "endpoint"),
        most_children=256,
    ),
    Family(
        "cashier_source_endpoints",
        _GAUGE,
        "Addresses of a source that a worker knows; of all workers the fewest.",
        "0: its name does not resolve, or discovery has found nothing since the start. Fewer than the source has: see"
        " what discovery leaves out.",
        ("source",),
        merge=Merge.MIN,
    ),
    Family(
        "cashier_discovery_age_seconds",
        _GAUGE,
        "Time since discovery last found addresses of a source, in whole seconds; of all workers the longest.",
        "More than some intervals: the name service, registry or file fails, and the log has the reason. The last"
        " addresses are used; instances that have moved since are missed.",
        ("source",),
        merge=Merge.MAX,
    ),
    Family(
        "cashier_discovery_changes_total",
        _COUNTER,
        "How often discovery found other addresses of a source than before.",
        "Again and again without deployments: instances fail their health checks, or the list depends on which server"
        " answers.",
        ("source",),
    ),
    Family(
        "cashier_in_flight",
        _GAUGE,
        "Attempts at a URL that have not ended.",
        "A rising number at a flat rate: the source hangs.",
        ("source", "endpoint"),
        most_children=256,
    ),
    # Caches
    Family(
        "cashier_cache_requests_total",
        _COUNTER,
        "Asks of a source's cache. Each is one of hit, stale (and refreshed), shared (found in Valkey), joined (waits"
        " for the call of another ask) or miss; fallback counts besides: an old answer in the place of a failure.",
        "A falling share of hits: look at invalidations and evictions. A rising one of fallback: the source fails.",
        ("source", "result"),
        most_children=128,
    ),
    Family(
        "cashier_cache_evictions_total",
        _COUNTER,
        "Answers that left the cache of a worker for lack of room.",
        "If hits fall as well, raise [cache] l1_entries.",
    ),
    Family(
        "cashier_cache_entries",
        _GAUGE,
        "Answers in the caches of the workers.",
        "Nothing to do. At [cache] l1_entries times the workers, the caches are full.",
    ),
    Family(
        "cashier_valkey_reads_total",
        _COUNTER,
        "Look-ups in Valkey: hit, or miss, also for lack of an answer in time.",
        "Few hits: see valkey_errors and valkey_up. A lost Valkey costs calls of sources, never correctness.",
        ("result",),
    ),
    Family(
        "cashier_valkey_writes_total",
        _COUNTER,
        "Answers for Valkey: stored, or dropped because it is slow, lost or the answer was invalidated meanwhile.",
        "Many dropped: Valkey cannot keep up, or is lost.",
        ("result",),
    ),
    Family(
        "cashier_valkey_errors_total",
        _COUNTER,
        "Commands that Valkey did not answer, or answered with an error.",
        "The log has the reason.",
    ),
    Family(
        "cashier_valkey_losses_total",
        _COUNTER,
        "How often a worker lost Valkey.",
        "Look at Valkey and the network. Meanwhile caches keep answers for 2 s only, so sources get more calls.",
    ),
    Family(
        "cashier_valkey_up",
        _GAUGE,
        "1 if every worker with a shared cache receives invalidations, else 0.",
        "0: invalidations may be missed. Look at Valkey and the network.",
        merge=Merge.MIN,
    ),
    # Load
    Family(
        "cashier_shed_total",
        _COUNTER,
        "What was left out under overload. Of any priority: dimmed (a call to an enriching source), stale (an old"
        " answer served without a refresh). Callers: refused (by the admission rate), queue (the wait is too long).",
        "Add workers or machines. Look at loop lag: if the machine is busy with other work, give it less.",
        ("priority", "step"),
    ),
    Family(
        "cashier_queue_wait_seconds",
        _HISTOGRAM,
        "Time that a consultation waited for its turn in the admission queue. Counts those that had to wait.",
        "Add workers: consultations arrive in bursts that take longer than a loop turn.",
    ),
    Family(
        "cashier_loop_lag_seconds",
        _HISTOGRAM,
        "How late the event loop ran its timer: every 5 ms, 20 ms while idle, 500 ms where nothing is shed by lag.",
        "Above 20 ms callers are refused. Add workers, or find what blocks the loop or takes the core.",
    ),
    # The HTTP server
    Family(
        "cashier_http_requests_total",
        _COUNTER,
        "Requests to cashier's own server by the path of their endpoint and the class of the status, 2xx to 5xx; none"
        " if the caller left before an answer. Path other: nothing is there, or it was no HTTP.",
        "5xx: see http_problems for the code. 4xx of one path: a caller has changed, or an endpoint is used wrongly."
        " none: callers do not wait; compare their timeouts with the durations.",
        ("path", "status"),
        most_children=384,
    ),
    Family(
        "cashier_http_problems_total",
        _COUNTER,
        "Problems in answers and event streams, by code. Of pages only INTERNAL, by their status 500.",
        "INTERNAL: a bug, and the log has it. OVERLOADED: see shed. UNAUTHENTICATED, TOKEN_EXPIRED: keys or clocks."
        " The README of the API explains each code.",
        ("code",),
    ),
    Family(
        "cashier_http_connections",
        _GAUGE,
        "Open connections of clients.",
        "Near [server] max_connections times the workers: idle ones are closed, then new ones refused. Far more than"
        " requests under way: callers do not reuse connections.",
    ),
    # Payments
    Family(
        "cashier_payments_total",
        _COUNTER,
        "Payments by the status that a worker saw them reach, once per worker and status.",
        "FAILED: compare kinds and routes with the acquirer's. CLOSED_REFUNDING: money came after the end.",
        ("kind", "status"),
        most_children=512,
    ),
    Family(
        "cashier_payments_unknown",
        _GAUGE,
        "Payments that were submitted and whose outcome a worker does not know and still looks up.",
        "Look at engine and acquirer: money may have moved.",
    ),
    Family(
        "cashier_payment_unknown_oldest_seconds",
        _GAUGE,
        "Time since the submit of the oldest of these payments.",
        "Over some minutes: ask the engine's team. The console and the log name the payment.",
        scale=NS_PER_S,
        merge=Merge.MAX,
    ),
    Family(
        "cashier_payment_queries_total",
        _COUNTER,
        "Payments that a worker looked up in the background: settled, or refused because too many are under way.",
        "refused: payments are settled only when their payer asks. Raise [accept] most_under_way.",
        ("result",),
    ),
    Family(
        "cashier_payment_corrections_total",
        _COUNTER,
        "Results of the acquirer that contradict a final status already reported.",
        "Every one is worth a look: goods may have been delivered or withheld wrongly. The log names the payment.",
    ),
    Family(
        "cashier_engine_breaches_total",
        _COUNTER,
        "Answers of the engine that break an obligation of its contract.",
        "Tell the engine's team: idempotency is what keeps a payer from paying twice.",
        ("obligation",),
    ),
    Family(
        "cashier_payment_lessons_total",
        _COUNTER,
        "How often a payment made cached facts obsolete, which were then forgotten.",
        "Nothing to do.",
    ),
    Family(
        "cashier_challenges_refused_total",
        _COUNTER,
        "Decisions that were not asked for because the order had too many challenges.",
        "Somebody may try out cards: tell risk.",
    ),
    Family(
        "cashier_route_total",
        _COUNTER,
        "Payments sent, by routing rule and channel.",
        "A shift: a channel is unhealthy or closed, or the rules have changed.",
        ("rule", "channel"),
        most_children=512,
    ),
    # The process
    Family(
        "cashier_config_reload_total",
        _COUNTER,
        "Reloads of the configuration: applied, partial (some changes take a restart), refused (it has faults), error.",
        "refused, error: the log has the faults, and the last good configuration is in use. partial: restart.",
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
        "Records of sampled or bad consultations. made: kept for the operations port. refused: above"
        " `[telemetry] records_per_second`. unsent: lost because the operations port read too slowly; steps of"
        " payments included.",
        "refused: the log has the cause of the bad consultations. unsent: give the process of the operations port"
        " more CPU.",
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
        ("version", "python"),
        merge=Merge.MAX,
    ),
)

FAMILIES: dict[str, Family] = {row.name: row for row in _ROWS}
