"""`GET /api/records` and `/api/records/{key}`: recorded consultations, to find and to download.

`GET /api/payments`: the payments of the last hour that had no final status when last seen, and
`/api/payments/{payment_id}/steps` what was done for one, also after its end.

`cashier why --from` replays a downloaded one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice

import msgspec
from msgspec import Struct
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cashier.domain.pay_method import Availability, Kind
from cashier.fanout.ask import SourceStatus
from cashier.ops.record_store import RecordStore, record_key
from cashier.payments.step_feed import PaymentStep
from cashier.telemetry.records import ConsultationRecord, Verdict

# Decoding a record takes some 30 µs, and the port may share a process with a worker.
MOST_SEARCHED = 1_000
MOST_LISTED = 100
_QUIET = frozenset({SourceStatus.FRESH, SourceStatus.CACHED})


class RecordSummary(Struct, frozen=True):
    """`key`: of the record, for its address. `sources`: those without a fresh or cached answer.

    `replays`: the record has the facts that a replay takes.
    """

    key: str
    started_at: datetime
    order_id: str
    request_id: str
    trace_id: str | None
    outcome: str
    verdicts: tuple[Verdict, ...]
    elapsed_ms: float
    deadline_ms: float
    sources: tuple[str, ...]
    recheck: bool
    replays: bool


class RecordList(Struct, frozen=True):
    """The latest first. `complete`: older records were not left out."""

    records: tuple[RecordSummary, ...]
    complete: bool


class StepList(Struct, frozen=True):
    """In the order in which they ended. Empty for a payment without a step in the last hour."""

    steps: tuple[PaymentStep, ...]


Matches = Callable[[ConsultationRecord], bool]


def records_routes(store: RecordStore) -> Sequence[BaseRoute]:
    async def listing(request: Request) -> Response:
        query = request.query_params
        matches = _filter(query)
        # Good ones have no other verdict, and there may be far more of them.
        bad = True if query.get("verdict", Verdict.SAMPLED) != Verdict.SAMPLED else None
        found = store.records(order_id=query.get("order_id"), request_id=query.get("request_id"), bad=bad)
        matching = (record for record in islice(found, MOST_SEARCHED) if matches(record))
        listed = tuple(map(_summary, islice(matching, MOST_LISTED)))
        complete = next(matching, None) is None and next(found, None) is None
        return _json(msgspec.json.encode(RecordList(listed, complete)))

    async def record(request: Request) -> Response:
        """`request_id` in the query spares reading all records."""
        key, request_id = request.path_params["key"], request.query_params.get("request_id")
        found = next((each for each in store.records(request_id=request_id) if record_key(each) == key), None)
        if found is None:
            raise HTTPException(404, "This record is no longer kept.")
        return _json(msgspec.json.encode(found))

    async def payments(_request: Request) -> Response:
        return _json(msgspec.json.encode({"payments": store.payments()[:MOST_LISTED]}))

    async def steps(request: Request) -> Response:
        found = store.steps.steps(request.path_params["payment_id"])
        return _json(msgspec.json.encode(StepList(found)))

    return (
        Route("/api/records", listing),
        Route("/api/records/{key}", record),
        Route("/api/payments", payments),
        Route("/api/payments/{payment_id}/steps", steps),
    )


def _filter(query: Mapping[str, str]) -> Matches:
    """`verdict`; `kind`: with a method that is not available; `source`: not fresh and not cached.

    Raises `HTTPException` for a verdict or kind that there is not.
    """
    tests = list(_tests(query))
    return lambda record: all(test(record) for test in tests)


def _tests(query: Mapping[str, str]) -> Iterator[Matches]:
    if (verdict := query.get("verdict")) is not None:
        _require(verdict, Verdict)
        yield lambda record: verdict in record.verdicts
    if (kind := query.get("kind")) is not None:
        _require(kind, Kind)
        yield lambda record: any(
            method.kind == kind and method.availability is not Availability.AVAILABLE for method in record.methods
        )
    if (source := query.get("source")) is not None:
        yield lambda record: source in _silent(record)


def _require(name: str, known: type[Verdict | Kind]) -> None:
    if name not in set(known):
        raise HTTPException(400, f"Known are {', '.join(known)}.")


def _silent(record: ConsultationRecord) -> tuple[str, ...]:
    return tuple(source.name for source in record.sources if source.status not in _QUIET)


def _summary(record: ConsultationRecord) -> RecordSummary:
    return RecordSummary(
        key=record_key(record),
        started_at=record.started_at,
        order_id=record.order_id,
        request_id=record.request_id,
        trace_id=record.trace_id,
        outcome=record.outcome,
        verdicts=record.verdicts,
        elapsed_ms=record.elapsed_ms,
        deadline_ms=record.deadline_ms,
        sources=_silent(record),
        recheck=record.recheck,
        replays=record.facts is not None,
    )


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json", headers={"cache-control": "no-store"})
