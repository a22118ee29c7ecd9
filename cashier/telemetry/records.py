"""Records of consultations, as workers hand them to operators.

JSON by `msgspec.json`. No personal data: no user or merchant ids but pseudonyms, and no amounts
outside `facts`. Times `_ms` count from the consultation's start, from which its deadline counts
too; they have two decimals.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from cashier.consultation.end import ConsultationOutcome
from cashier.domain.pay_method import Availability, Kind, ReasonCode
from cashier.fanout.ask import Importance, SourceStatus
from cashier.fanout.timeline import CallKind, CallOutcome, Flag


class Verdict(StrEnum):
    """Why a consultation has a record. All but SAMPLED mean that something is wrong.

    FAILED: no answer by our fault or a source's. DEGRADED: an answer of a source is missing.
    UNDETERMINED: of at least one method. LATE: past the deadline. SLOW: it took most of the
    deadline (`[telemetry] slow_bps`).
    """

    FAILED = "FAILED"
    DEGRADED = "DEGRADED"
    UNDETERMINED = "UNDETERMINED"
    LATE = "LATE"
    SLOW = "SLOW"
    SAMPLED = "SAMPLED"


class CallRecord(Struct, frozen=True, omit_defaults=True):
    """One upstream call. `endpoint`: its single address.

    `started_ms` may be negative: a call that another consultation started (`SF`). `ended_ms`: None
    if it had not ended with the consultation. `reason` and `detail`: of a failure.
    """

    endpoint: str
    kind: CallKind
    started_ms: float
    ended_ms: float | None
    outcome: CallOutcome
    reason: str | None = None
    detail: str | None = None


class SourceRecord(Struct, frozen=True, omit_defaults=True):
    """What the ask of one source did. `reason` and `detail`: why there is no answer of its own.

    `timeout_ms`: how long it would have been waited for; None: it never started. `age_ms`: of the
    answer.
    """

    name: str
    importance: Importance
    status: SourceStatus
    started_ms: float
    elapsed_ms: float
    timeout_ms: float | None = None
    age_ms: int = 0
    reason: str | None = None
    detail: str | None = None
    flags: tuple[Flag, ...] = ()
    calls: tuple[CallRecord, ...] = ()


class MethodRecord(Struct, frozen=True, omit_defaults=True):
    """One offered method. `source`: the source that refused, or was silent."""

    kind: Kind
    availability: Availability
    rank: int | None = None
    reason: ReasonCode | None = None
    source: str | None = None


class ConsultationRecord(Struct, frozen=True, omit_defaults=True, tag="consultation", tag_field="type"):
    """One sampled or bad consultation.

    `worker`: the process id. `waited_ms`: in the queue, before the first source was asked.
    `recheck`: it was the check of a payment before its submit. `blocked`: the code of an order that
    cannot be paid. `problem`: the code of an error response. `facts`: what a replay takes, with
    pseudonyms for ids; see `replay.unpacked`.
    """

    started_at: datetime
    request_id: str
    worker: int
    order_id: str
    product: str
    terminal: str
    deadline_ms: float
    elapsed_ms: float
    outcome: ConsultationOutcome
    verdicts: tuple[Verdict, ...]
    trace_id: str | None = None
    currency: str | None = None
    country: str | None = None
    waited_ms: float = 0.0
    streamed: bool = False
    recheck: bool = False
    sources: tuple[SourceRecord, ...] = ()
    methods: tuple[MethodRecord, ...] = ()
    blocked: str | None = None
    problem: str | None = None
    facts: bytes | None = None
