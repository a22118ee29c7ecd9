"""Metrics move when their thing happens and only then: whole snapshots before and after."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from cashier.consultation.answer import ConsultError
from cashier.consultation.source_table import SOURCE_NAMES
from cashier.core import Cashier
from cashier.metrics.families import FAMILIES, MetricKind
from cashier.metrics.snapshot import HistogramValue, Snapshot
from cashier.sandbox import LocalUpstreams, weather_named
from tests.support.virtual_consultation import NOW, WORLD, Behaviour, request, with_behaviours

pytestmark = pytest.mark.virtual_time
CASE = "balance_is_enough"
PRODUCT = request(CASE).product
ANSWERS, CALLS, TIMES = "cashier_source_answers_total", "cashier_source_calls_total", "cashier_source_duration_seconds"
CONSULTATIONS, METHODS = "cashier_consultation_duration_seconds", "cashier_methods_total"
DEGRADED, LATE, CACHE = "cashier_degraded_total", "cashier_consultations_late_total", "cashier_cache_requests_total"
FUNCTION = "in this process"
Moves = dict[str, dict[tuple[str, ...], int]]


@asynccontextmanager
async def open_cashier(behaviours: dict[str, Behaviour]) -> AsyncIterator[Cashier]:
    upstreams = LocalUpstreams(WORLD, weather_named("still"))
    functions = {name: with_behaviours(name, upstreams[name], behaviours, {}) for name in SOURCE_NAMES}
    async with Cashier(sources=functions, clock=lambda: NOW) as cashier:
        yield cashier


def moves(before: Snapshot, after: Snapshot) -> Moves:
    """By how much each counter and histogram has grown. The lag of the loop is no one's doing."""
    found: Moves = {}
    for name, children in after.items():
        if FAMILIES[name].kind is MetricKind.GAUGE or name == "cashier_loop_lag_seconds":
            continue
        for labels, value in children.items():
            grown = _number(value) - _number(before.get(name, {}).get(labels, 0))
            if grown:
                found.setdefault(name, {})[labels] = grown
    return found


def _number(value: Any) -> int:
    return value.count if isinstance(value, HistogramValue) else int(value)


async def moved_by(cashier: Cashier, **fields: Any) -> Moves:
    since_ns = fields.pop("since_ns", None)
    before = cashier.metrics.snapshot()
    with suppress(ConsultError):
        await cashier.consult(request(CASE, **{"deadline_ms": 1000, **fields}), since_ns=since_ns)
    return moves(before, cashier.metrics.snapshot())


@pytest.mark.moves(
    "cashier_consultation_duration_seconds",
    "cashier_source_answers_total",
    "cashier_source_calls_total",
    "cashier_source_duration_seconds",
    "cashier_methods_total",
)
async def test_a_good_consultation_counts_itself_its_calls_and_its_methods() -> None:
    async with open_cashier({}) as cashier:
        moved = await moved_by(cashier)
        methods = moved.pop(METHODS)
        assert moved.pop(CACHE).keys() <= {(name, "miss") for name in SOURCE_NAMES}
        assert moved == {
            CONSULTATIONS: {(PRODUCT, "complete"): 1},
            ANSWERS: {(name, "FRESH", ""): 1 for name in SOURCE_NAMES},
            CALLS: {(name, "first"): 1 for name in SOURCE_NAMES},
            TIMES: {(name, FUNCTION, "answered"): 1 for name in SOURCE_NAMES},
        }
        consultation = await cashier.consult(request(CASE, deadline_ms=1000))
        assert sum(methods.values()) == len(consultation.methods)
        for method in consultation.methods:
            reason = "" if method.reason is None else method.reason.code.value
            assert (method.kind, method.availability.value, reason) in methods


@pytest.mark.moves("cashier_cache_requests_total")
async def test_a_cached_answer_counts_as_a_hit_and_as_no_call() -> None:
    async with open_cashier({}) as cashier:
        await moved_by(cashier)
        moved = await moved_by(cashier)
    assert moved[CACHE][("member", "hit")] == moved[ANSWERS][("member", "CACHED", "")] == 1
    assert ("member", "first") not in moved[CALLS]


@pytest.mark.moves("cashier_degraded_total")
async def test_a_failed_source_counts_its_reason_and_degrades() -> None:
    async with open_cashier({"marketing": Behaviour(fault="garbled")}) as cashier:
        moved = await moved_by(cashier)
    assert moved[DEGRADED] == {("marketing",): 1}
    assert moved[CONSULTATIONS] == {(PRODUCT, "degraded"): 1}
    assert moved[ANSWERS][("marketing", "GARBLED", "PROTOCOL")] == 1
    assert moved[TIMES][("marketing", FUNCTION, "failed")] == 1
    assert LATE not in moved


async def test_an_unreachable_source_is_retried_and_both_attempts_count() -> None:
    async with open_cashier({"marketing": Behaviour(fault="unreachable")}) as cashier:
        moved = await moved_by(cashier)
    assert (moved[CALLS][("marketing", "first")], moved[CALLS][("marketing", "retry")]) == (1, 1)
    assert moved[TIMES][("marketing", FUNCTION, "failed")] == 2
    assert moved[ANSWERS][("marketing", "ERROR", "UNREACHABLE")] == 1


@pytest.mark.parametrize(
    ("behaviours", "fields", "outcome"),
    [
        ({}, {"order_id": "o_nobody_knows"}, "order_unknown"),
        ({"order": Behaviour(fault="garbled")}, {}, "unavailable"),
    ],
)
async def test_a_consultation_without_an_answer_counts_its_outcome_and_no_method(
    behaviours: dict[str, Behaviour], fields: dict[str, Any], outcome: str
) -> None:
    async with open_cashier(behaviours) as cashier:
        moved = await moved_by(cashier, **fields)
    assert moved[CONSULTATIONS] == {(PRODUCT, outcome): 1}
    assert METHODS not in moved
    assert DEGRADED not in moved, "there is no answer that could lack something"


@pytest.mark.moves("cashier_consultations_late_total")
async def test_an_answer_after_the_deadline_is_late() -> None:
    async with open_cashier({}) as cashier:
        moved = await moved_by(cashier, since_ns=time.perf_counter_ns() - 2_000_000_000)
    assert moved[LATE] == {(): 1}


@pytest.mark.moves("cashier_in_flight")
async def test_a_call_in_progress_shows_in_the_gauge_until_it_ends() -> None:
    async with open_cashier({"marketing": Behaviour(after_ms=10**9)}) as cashier:
        guard = cashier.pipelines["marketing"].guard
        consulting = asyncio.create_task(cashier.consult(request(CASE, deadline_ms=1000)))
        while not guard.endpoints[0].in_flight:  # noqa: ASYNC110 - a call sets no event
            await asyncio.sleep(0)
        guard.sample()
        gauge = cashier.metrics.gauge("cashier_in_flight", "marketing", FUNCTION)
        state = cashier.metrics.gauge("cashier_breaker_state", "marketing", FUNCTION)
        assert (gauge.value, state.value) == (1, 0)
        await consulting
    assert gauge.value == 0
