"""`Cashier.why`: the consultation of now, explained; over the sandbox's sources in this process."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from cashier import Cashier, ConsultRequest, RequiredSourceUnavailable
from cashier.consultation.end import ConsultationEnd
from cashier.domain.explanation.evidence import WhyRequest
from cashier.domain.explanation.schema import Explanation, MethodExplanation, Outcome, Result
from cashier.domain.pay_method import Kind
from cashier.sandbox import CASES, LocalUpstreams, World, weather_named
from cashier.telemetry.records import ConsultationRecord
from cashier.telemetry.replay import replayed, unpacked

# No second passes between two consultations that a test compares.
NOW = datetime(2026, 5, 12, 12, tzinfo=UTC)
# Patient, because a busy machine answers late.
CONFIG = {"consult": {"deadline_ms": 10_000, "max_deadline_ms": 20_000}}


@asynccontextmanager
async def opened(
    sources: Mapping[str, Any] | None = None, config: Mapping[str, Any] = CONFIG
) -> AsyncIterator[Cashier]:
    local = LocalUpstreams(World(clock=lambda: NOW), weather_named("still"))
    async with Cashier(sources={**local, **(sources or {})}, config=config, clock=lambda: NOW) as cashier:
        yield cashier


def question(case: str, **fields: Any) -> WhyRequest:
    given = {key: CASES[case].request.get(key) for key in ("order_id", "user_id", "merchant_id")}
    return msgspec.convert({**given, **fields}, WhyRequest)


def methods(why: Explanation) -> list[MethodExplanation]:
    return [method for kind in why.kinds for method in kind.methods]


@pytest.mark.parametrize("case", [case for case in CASES if case != "order_unknown"])
async def test_each_case_is_explained_as_it_is_consulted(case: str) -> None:
    request = msgspec.convert(CASES[case].request, ConsultRequest)
    given = {key: value for key, value in CASES[case].request.items() if key != "deadline_ms"}
    async with opened() as cashier:
        consultation = await cashier.consult(request)
        why = await cashier.why(msgspec.convert(given, WhyRequest))
    assert why.blocked == (consultation.blocked and consultation.blocked.code)
    assert why.degraded is consultation.degraded
    expected = [(each.method_id, each.availability, each.reason and each.reason.code) for each in consultation.methods]
    found = sorted(methods(why), key=lambda method: method.rank)
    assert [(each.method_id, each.availability, each.code) for each in found] == expected
    assert {kind.kind for kind in why.kinds} == (set(Kind) if why.outcome is Outcome.ANSWERED else set())


async def test_product_and_terminal_are_the_orders_own_by_default() -> None:
    async with opened() as cashier:
        why = await cashier.why(question("chinese_shop"))
        assert (why.outcome, why.request.terminal) == (Outcome.ANSWERED, "APP")
        walk_in = await cashier.why(question("walk_in"))
        assert (walk_in.outcome, walk_in.request.product, walk_in.request.terminal) == (
            Outcome.ANSWERED, "SCAN", "POS",
        )  # fmt: skip


async def test_no_observer_of_consultations_is_told() -> None:
    ended: list[ConsultationEnd] = []
    async with opened() as cashier:
        cashier._parts.observers.add(ended.append)
        await cashier.why(question("chinese_shop"))
        assert ended == []
        await cashier.consult(msgspec.convert(CASES["chinese_shop"].request, ConsultRequest))
        assert len(ended) == 1


async def test_cached_answers_are_used_and_their_age_is_shown_unless_asked_for_fresh_ones() -> None:
    async with opened() as cashier:
        await cashier.why(question("chinese_shop"))
        statuses = {each.name: each.status for each in (await cashier.why(question("chinese_shop"))).sources}
        assert statuses["merchant"] == "CACHED"
        fresh = await cashier.why(question("chinese_shop", fresh=True))
        assert {each.status for each in fresh.sources} == {"FRESH"}


async def test_a_hanging_source_is_explained_by_the_deadline() -> None:
    async def hangs(**_: Any) -> None:
        await asyncio.Event().wait()

    settings = {"consult": {"deadline_ms": 10_000, "max_deadline_ms": 20_000}}
    async with opened({"quota": hangs}, settings) as cashier:
        started = time.monotonic()
        why = await cashier.why(question("chinese_shop", deadline_ms=100))
        assert time.monotonic() - started < 5
    assert why.degraded
    undetermined = [each for each in methods(why) if each.availability == "UNDETERMINED"]
    assert undetermined
    assert {each.refused_by for each in undetermined} == {"QUOTAS_KNOWN"}


async def test_a_failed_required_source_is_explained_with_its_latest_failure() -> None:
    async def fails(**_: Any) -> None:
        raise RuntimeError("the merchants are out")

    async with opened({"merchant": fails}) as cashier:
        why = await cashier.why(question("chinese_shop"))
        assert why.outcome is Outcome.REQUIRED_SOURCE_UNAVAILABLE
        assert why.sentence.startswith("No answer from merchant, which"), "the others were not waited for"
        [merchant] = [each for each in why.sources if each.name == "merchant"]
        assert merchant.failure
        assert "RuntimeError" in merchant.failure
        assert merchant.reason == "ADAPTER"
        assert {check.result for check in why.order_checks if check.rule.startswith("MERCHANT")} == {
            Result.UNDETERMINED
        }
        hidden = await cashier.why(question("chinese_shop"), internals=False)
        assert {(each.reason, each.failure) for each in hidden.sources} == {(None, None)}


async def test_a_caller_of_one_merchant_sees_no_cost_score_or_route() -> None:
    async with opened() as cashier:
        shown = await cashier.why(question("chinese_shop"))
        hidden = await cashier.why(question("chinese_shop"), internals=False)
    assert any(each.route is not None for each in methods(shown))
    assert any(part.term == "cost" and part.score for each in methods(shown) for part in each.parts or ())
    text = msgspec.json.encode(hidden).decode()
    assert {(each.score, each.parts, each.route) for each in methods(hidden)} == {(None, None, None)}
    assert "cost_bps" not in text
    assert "success_bps" not in text


async def test_another_merchants_order_is_not_disclosed() -> None:
    async with opened() as cashier:
        why = await cashier.why(question("chinese_shop", merchant_id="m_2"))
    assert why.blocked == "ORDER_MERCHANT_MISMATCH"
    text = msgspec.json.encode(why).decode()
    order = CASES["chinese_shop"].request
    assert f'"{order["merchant_id"]}"' not in text
    assert not re.search(rf"\b{order['amount']['value']}\b", text)


async def test_an_unknown_order_is_explained() -> None:
    async with opened() as cashier:
        why = await cashier.why(question("order_unknown"))
    assert (why.outcome, why.order_checks, why.kinds) == (Outcome.ORDER_UNKNOWN, (), ())


async def test_the_record_of_a_consultation_replays_to_its_methods() -> None:
    async with opened(config={**CONFIG, "telemetry": {"sample_bps": 10_000}}) as cashier:
        consultation = await cashier.consult(msgspec.convert(CASES["chinese_shop"].request, ConsultRequest))
        [record] = cashier.recorder.records()
        config = cashier.config
    facts = unpacked(msgspec.json.decode(msgspec.json.encode(record), type=ConsultationRecord).facts)
    replay = replayed(facts, config.catalog, config.weights)
    assert (replay.differences, replay.same_configuration) == ((), True)
    found = sorted(methods(replay.explanation), key=lambda why: why.rank)
    assert [(each.kind, each.availability) for each in consultation.methods] == [
        (why.method_id.partition(":")[0], why.availability) for why in found
    ]
    text = msgspec.json.encode(facts).decode()
    payer = CASES["chinese_shop"].request["user_id"]
    assert f'"{payer}"' not in text


async def test_a_blocked_and_a_failed_consultation_replay_too() -> None:
    async def fails(**_: Any) -> None:
        raise RuntimeError("the members are out")

    telemetry = {**CONFIG, "telemetry": {"sample_bps": 10_000}}
    async with opened(config=telemetry) as cashier:
        await cashier.consult(msgspec.convert(CASES["order_paid"].request, ConsultRequest))
        [record] = cashier.recorder.records()
        replay = replayed(unpacked(record.facts), cashier.config.catalog, cashier.config.weights)
    assert (replay.explanation.outcome, replay.explanation.blocked) == (Outcome.BLOCKED, "ORDER_PAID")
    async with opened({"member": fails}, telemetry) as cashier:
        with pytest.raises(RequiredSourceUnavailable):
            await cashier.consult(msgspec.convert(CASES["chinese_shop"].request, ConsultRequest))
        [record] = cashier.recorder.records()
        replay = replayed(unpacked(record.facts), cashier.config.catalog, cashier.config.weights)
    assert replay.explanation.outcome is Outcome.REQUIRED_SOURCE_UNAVAILABLE
