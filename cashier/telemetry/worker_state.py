"""The state of one worker: a message to the operations port's process, once a second.

It holds what a counter cannot say: states, limits, texts, ages. Rates and quantiles come from the
metrics. No secret and no personal data: payments by their ids, settings by an allow-list.

Times are seconds since 1970, unless a unit is in the name.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from cashier.fanout.breaker import BreakerState
from cashier.fanout.load_shedding import SheddingStep


class EndpointState(Struct, frozen=True):
    """One single address of a source, after the look-up of its name.

    `limit`: of concurrent calls; None without a limiter. `latency_ms`: smoothed over the last
    calls; None before the first answer. `probe_in_s`: until a call may probe; 0 unless open.
    """

    address: str
    breaker: BreakerState
    in_flight: int
    limit: int | None
    latency_ms: float | None
    probe_in_s: float = 0.0


class FailureState(Struct, frozen=True):
    """One reason why calls to an address brought no answer. `times`: since the worker's start.

    `reason`: a code; `detail`: its particulars, partly in the upstream's words.
    """

    address: str
    reason: str
    detail: str
    times: int
    age_s: float


class DiscoveryState(Struct, frozen=True):
    """What discovery by `way` found last, `age_s` ago; None: nothing since the worker's start.

    `changes`: how often the addresses became others. `failure`: of the last lookup; else empty.
    """

    way: str
    age_s: float | None
    changes: int
    failure: str


class SourceState(Struct, frozen=True):
    """One source of a consultation with its mechanisms.

    `timeout_ms`: in effect now; `ceiling_ms`: configured. `hedge_after_ms`: None while no hedge is
    sent. `extra_calls` of `extra_calls_allowed` hedges and retries were sent in the last ten
    seconds. `endpoints`: the worst first. `failures`: the latest first, at most `MOST_FAILURES`.
    `discovery`: None without.
    """

    name: str
    importance: str
    urls: tuple[str, ...]
    timeout_ms: int
    ceiling_ms: int
    hedge_after_ms: float | None
    extra_calls: int
    extra_calls_allowed: float
    endpoints: tuple[EndpointState, ...]
    failures: tuple[FailureState, ...] = ()
    discovery: DiscoveryState | None = None


class LoopState(Struct, frozen=True):
    """The event loop and what it leaves undone: see `DegradationLadder`.

    `refused`: callers since the start, from the lowest priority to the highest.
    """

    lag_ms: float
    withheld_ms: float
    queued_ms: float
    step: SheddingStep
    dim_share: float
    refused: tuple[int, ...]


class LivePayment(Struct, frozen=True):
    """A payment that this worker sent and that has not ended.

    `event`: the fact that decided its status, a `PaymentEvent`; empty before the first query.
    `unknown`: neither engine nor acquirer has said what became of the submit.
    """

    payment_id: str
    order_id: str
    kind: str
    status: str
    event: str
    unknown: bool
    sent_at: float


class PaymentsState(Struct, frozen=True):
    """`live`, `unknown`: how many. `listed`: the unknown first, then the oldest, at most
    `MOST_PAYMENTS`."""

    live: int
    unknown: int
    listed: tuple[LivePayment, ...] = ()


class SharedCacheState(Struct, frozen=True):
    """The Valkey that workers share. `coherent`: invalidations of other workers arrive."""

    address: str
    reachable: bool
    coherent: bool
    hits: int
    misses: int
    errors: int
    losses: int


class ReloadResult(StrEnum):
    """REFUSED: the files have faults. CRASHED: a bug; the log has it. Both changed nothing."""

    APPLIED = "APPLIED"
    REFUSED = "REFUSED"
    CRASHED = "CRASHED"


class Reload(Struct, frozen=True):
    """One reading of the configuration; the first is the start.

    `digest`: of the file as it was read: the first 12 hexadecimal digits of its SHA-256.
    `takes_a_restart`: one sentence for each change that was not applied.
    """

    at: float
    result: ReloadResult
    digest: str
    faults: tuple[str, ...] = ()
    takes_a_restart: tuple[str, ...] = ()


class ConfigurationState(Struct, frozen=True):
    """`settings`: those in effect, by `section.key`, secrets hidden. `previous`: those before the
    last applied reload. `reloads`: the latest first, at most `MOST_RELOADS`."""

    file: str
    digest: str
    loaded_at: float
    settings: dict[str, str]
    previous: dict[str, str] = {}
    warnings: tuple[str, ...] = ()
    reloads: tuple[Reload, ...] = ()


class WorkerState(Struct, frozen=True, tag="worker_state", tag_field="type"):
    """`payments`: None without payment services. `shared_cache`: None without one."""

    pid: int
    started_at: float
    at: float
    sources: tuple[SourceState, ...]
    loop: LoopState | None
    configuration: ConfigurationState
    payments: PaymentsState | None = None
    shared_cache: SharedCacheState | None = None


# Bounds of one message: about 50 kB with every list full.
MOST_FAILURES = 8
MOST_PAYMENTS = 50
MOST_RELOADS = 20
