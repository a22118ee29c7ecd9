"""`GET /api/overview`: everything that the first pages of the console and `cashier top` show.

Made from the last minutes of the metrics, which are those of all workers, and from the last state
of each worker. Rates are per second, over `window_s` seconds. A value of which nothing is known is
null: no traffic, no worker that reports, or a start just now.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from cashier.fanout.breaker import BreakerState
from cashier.ops.history import Quantiles, TrendPoint
from cashier.telemetry.worker_state import (
    ConfigurationState,
    FailureState,
    LivePayment,
    LoopState,
    SharedCacheState,
)


class Health(StrEnum):
    """The worst comes first in every list. IDLE: no traffic, so nothing is known."""

    BAD = "BAD"
    WARN = "WARN"
    GOOD = "GOOD"
    IDLE = "IDLE"


class Attention(Struct, frozen=True):
    """One thing that is not as it should be. `action`: what to do about it.

    `page`: of the console, such as `/payments`.
    """

    health: Health
    subject: str
    finding: str
    action: str
    page: str


class EndpointOverview(Struct, frozen=True):
    """One single address of a source, over all workers.

    `breaker`: the worst of all workers; open in `open_in` of `workers`. `in_flight`, `limit`: sums;
    `limit` is null without limiter. `latency_ms`: the mean of the workers' smoothed ones.
    `probe_in_s`: the soonest.
    """

    address: str
    health: Health
    breaker: BreakerState
    open_in: int
    workers: int
    in_flight: int
    limit: int | None
    latency_ms: float | None
    probe_in_s: float = 0.0


class DiscoveryOverview(Struct, frozen=True):
    """Where the addresses come from, over all workers.

    `age_s`: of the oldest list; null if a worker has none since its start. `changes`: the most of a
    worker. `failing`: of `workers`, those whose last lookup found nothing; `failure`: why.
    """

    way: str
    age_s: float | None
    changes: int
    failing: int
    workers: int
    failure: str


class UrlOverview(Struct, frozen=True):
    """The calls to one configured url."""

    url: str
    rate: float
    quantiles: Quantiles


class AnswerCount(Struct, frozen=True):
    """Asks that ended alike. `rate`: per second; `share`: of all asks of this source."""

    status: str
    reason: str
    rate: float
    share: float


class SourceOverview(Struct, frozen=True):
    """One source of a consultation.

    `finding`, `action`: why it is not GOOD, and what to do; else empty. `rate`: asks, also those
    that the cache answers. `bad`: of the asks that needed an answer, the share without one.
    `quantiles`: of calls. `calls`: per second by kind. `hedges_won`: per second. `cache_hit_ratio`:
    of look-ups. `extra_calls` of `extra_calls_allowed`: hedges and retries of ten seconds, over all
    workers. `timeout_ms`: the longest in effect. `discovery`: null without.
    """

    name: str
    importance: str
    health: Health
    finding: str
    action: str
    rate: float
    bad: float
    quantiles: Quantiles
    answers: tuple[AnswerCount, ...]
    calls: dict[str, float]
    hedges_won: float
    cache_hit_ratio: float | None
    breaker: BreakerState
    in_flight: int
    limit: int | None
    extra_calls: int
    extra_calls_allowed: float
    timeout_ms: int
    ceiling_ms: int
    hedge_after_ms: float | None
    urls: tuple[UrlOverview, ...]
    endpoints: tuple[EndpointOverview, ...]
    failures: tuple[FailureState, ...]
    trend: tuple[TrendPoint, ...]
    discovery: DiscoveryOverview | None = None


class ConsultationsOverview(Struct, frozen=True):
    """`outcomes`: per second. `answered`: the share that did not end as unavailable or error.

    `within_deadline`: the share that did not end late. Both are of all consultations, as in the
    alerts. `degraded`: per second and source, answers without its data.
    """

    rate: float
    quantiles: Quantiles
    outcomes: dict[str, float]
    answered: float | None
    within_deadline: float | None
    degraded: dict[str, float]
    trend: tuple[TrendPoint, ...]


class MethodCount(Struct, frozen=True):
    """Offered methods of one kind. `reason`: empty for available ones. `total`: since the start."""

    kind: str
    availability: str
    reason: str
    rate: float
    total: int


class PaymentCount(Struct, frozen=True):
    kind: str
    status: str
    rate: float
    total: int


class ListedPayment(Struct, frozen=True):
    """`age_s`: since the submit. `action`: what to do about one that is unknown."""

    payment: LivePayment
    worker: int
    age_s: float
    action: str


class PaymentsOverview(Struct, frozen=True):
    """`unknown`: payments of which neither engine nor acquirer says what became of the submit.

    `listed`: those first, then the oldest. `configured`: false where the service only consults.
    `left`: those whose worker has gone: nothing looks after them until their next caller.
    """

    configured: bool
    live: int
    unknown: int
    unknown_oldest_s: float | None
    listed: tuple[ListedPayment, ...]
    counts: tuple[PaymentCount, ...]
    left: tuple[ListedPayment, ...] = ()


class WorkerOverview(Struct, frozen=True):
    """`silent_s`: since its last report. `reports`: it reported within the last seconds."""

    pid: int
    age_s: float
    silent_s: float
    reports: bool
    loop: LoopState | None
    shared_cache: SharedCacheState | None


class RefusedCount(Struct, frozen=True):
    """Requests that were refused for overload."""

    priority: str
    step: str
    rate: float
    total: int


class RuntimeOverview(Struct, frozen=True):
    """`loop_lag`: of all workers. `step`: the worst of all workers. `queue_wait`: of consultations.

    `restarts`: of workers, since the start of the service. `trace_exports`: operations since the
    start by result; without an exporter empty. `traces_lost`: of these, within the window, those
    that the collector did not get.
    """

    workers: tuple[WorkerOverview, ...]
    restarts: int
    loop_lag: Quantiles
    step: str
    queue_wait: Quantiles
    refused: tuple[RefusedCount, ...]
    trace_exports: dict[str, int]
    traces_lost: int
    version: str


class ConfigurationOverview(Struct, frozen=True):
    """The configuration of the worker that loaded last.

    `differs`: pids of workers with another one.
    """

    state: ConfigurationState
    differs: tuple[int, ...]


class Overview(Struct, frozen=True):
    """`at`: seconds since 1970. `attention`: what is wrong, the worst first; empty is good."""

    at: float
    window_s: float
    attention: tuple[Attention, ...]
    consultations: ConsultationsOverview
    sources: tuple[SourceOverview, ...]
    methods: tuple[MethodCount, ...]
    payments: PaymentsOverview
    runtime: RuntimeOverview
    configuration: ConfigurationOverview | None
