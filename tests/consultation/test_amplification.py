"""Worst amplification: what `cashier plan` names is never passed, and `check` holds its bound."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import cache
from random import Random
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cashier.consultation.amplification import Amplification, service_amplification, source_amplification
from cashier.consultation.plan_report import MOST_EXTRA_BPS, plan_report
from cashier.consultation.source_pipeline import mechanisms, source_settings
from cashier.consultation.source_table import SOURCE_NAMES
from cashier.core import Cashier
from cashier.domain.engine_contract import NeverArrived, Sealed
from cashier.domain.order_result import NoOrder
from cashier.fanout.guarded_source import Mechanisms
from cashier.fanout.timeline import CallKind
from cashier.payments.budgets import LOOK_UPS
from cashier.payments.policy import Operation, PaymentPolicy
from cashier.payments.ports import PaymentPorts
from cashier.payments.settings import AcceptSettings
from cashier.payments.status_query import StatusQuery
from cashier.settings.loader import configuration
from cashier.settings.schema import Configuration, ConfigurationError
from cashier.source_errors import Overloaded, TimedOut, Unanswered, Unreachable
from cashier.sources.idempotent_retry import (
    FURTHER_BPS,
    FURTHER_PER_S,
    MOST_ATTEMPTS,
    RetrySettings,
    further_attempts,
    retry_until_answered,
)
from tests.fanout.scripted_upstream import Reply, ScriptedCall, ScriptedUpstream, ask, guarded, pass_ms, set_hedge_delay
from tests.support.virtual_time import run_in_virtual_time

URL = "http://127.0.0.1:9100"
SECRETS = {"secrets": ["s" * 32]}


@cache
def in_trouble(extra_bps: int, retry: bool, hedge: bool) -> tuple[Mechanisms, Amplification]:
    """The mechanisms of a source, and its worst amplification in the plan."""
    config = configured(extra_bps, retry=retry, hedge=hedge)
    worst = source_amplification(plan_report(Cashier(config=config).plan, config.settings))
    return mechanisms(source_settings(config.settings, "card"), config.settings), next(
        each for each in worst if each.service == "card"
    )


def configured(extra_bps: int = 500, tries: dict[str, int] | None = None, **card: Any) -> Configuration:
    sources: dict[str, Any] = {name: {"url": URL} for name in (*SOURCE_NAMES, "risk", "engine", "acquirer")}
    sources["card"] |= card
    sources["engine"]["tries"] = tries or {}
    table = {"tokens": SECRETS, "consult": {"extra_calls_bps": extra_bps}, "accept": {"look_ms": 60_000}}
    return configuration({**table, "sources": sources}, "cashier.toml")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            configured(MOST_EXTRA_BPS + 1),
            ("[consult] extra_calls_bps = 2001", "worst amplification × 1.2001", "the bound is × 1.2", "lower it"),
        ),
        (
            configured(tries={"attempts": MOST_ATTEMPTS + 1}),
            ("[sources.engine.tries] attempts = 6", "worst amplification", "× 6", "the bound is × 5", "lower attempts"),
        ),
    ],
)
def test_a_configuration_beyond_the_bound_is_refused(config: Configuration, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Cashier(config=config)
    [fault] = refused.value.faults
    assert all(word in fault for word in words), fault


def test_a_configuration_at_the_bound_is_taken() -> None:
    cashier = Cashier(config=configured(MOST_EXTRA_BPS, {"attempts": MOST_ATTEMPTS}))
    worst = {each.service: each for each in source_amplification(plan_report(cashier.plan, cashier.config.settings))}
    assert (worst["card"].at_once, worst["card"].sustained) == (2, 1.2)
    engine, acquirer = service_amplification(cashier.config.settings)
    assert (engine.at_once, engine.sustained, acquirer.at_once) == (5, 1.2, 3)


OUTCOMES: list[Any] = ["an answer", Unreachable("reset"), Overloaded("503", None), TimedOut("late")]
REPLIES = st.builds(Reply, st.none() | st.integers(1, 150), st.sampled_from(OUTCOMES))


@settings(max_examples=30)
@given(
    retry=st.booleans(),
    hedge=st.booleans(),
    extra_bps=st.sampled_from((0, 500, MOST_EXTRA_BPS)),
    places=st.integers(1, 3),
    script=st.lists(REPLIES, min_size=1, max_size=8),
    gaps_ms=st.lists(st.integers(0, 60), min_size=1, max_size=120),
)
def test_no_source_gets_more_calls_than_the_plan_says(
    retry: bool, hedge: bool, extra_bps: int, places: int, script: list[Reply], gaps_ms: list[int]
) -> None:
    given, worst = in_trouble(extra_bps, retry, hedge)

    async def asked() -> list[ScriptedCall]:
        random = Random(1)
        upstream = ScriptedUpstream(lambda _: random.choice(script), places)
        guard = guarded(upstream, given)
        for number, gap_ms in enumerate(gaps_ms):
            if hedge and extra_bps:
                set_hedge_delay(guard)
            ask(guard.start, {"number": str(number)})
            await pass_ms(gap_ms)
        await pass_ms(300)
        guard.close()
        return upstream.calls

    calls = run_in_virtual_time(asked())
    by_ask = [[call for call in calls if call.known["number"] == str(n)] for n in range(len(gaps_ms))]
    assert max(map(len, by_ask)) <= worst.at_once
    firsts = sum(bool(each) for each in by_ask)
    # No more than ten seconds pass.
    assert len(calls) - firsts <= max(10 * worst.least_per_s, firsts * worst.sustained_bps / 10_000)


WORST_BY_ATTEMPTS = {
    attempts: service_amplification(configured(tries={"attempts": attempts}).settings)[0]
    for attempts in range(1, MOST_ATTEMPTS + 1)
}
FATES = st.sampled_from(("answer", "failure", "silence"))


@settings(max_examples=20)
@given(
    attempts=st.integers(1, MOST_ATTEMPTS),
    fates=st.lists(FATES, min_size=1, max_size=6),
    looks_ms=st.lists(st.integers(0, 20), min_size=1, max_size=100),
)
def test_no_service_gets_more_calls_of_look_ups_than_the_plan_says(
    attempts: int, fates: list[str], looks_ms: list[int]
) -> None:
    worst = WORST_BY_ATTEMPTS[attempts]
    random, calls = Random(1), dict.fromkeys(range(len(looks_ms)), 0)

    async def attempted(number: int, budget_ms: int) -> str | Unanswered:
        calls[number] += 1
        fate = random.choice(fates)
        await asyncio.sleep(budget_ms / 1_000 if fate == "silence" else 0.005)
        return "answer" if fate == "answer" else Unanswered(TimedOut(fate))

    async def look() -> None:
        further, retry = further_attempts(), RetrySettings(attempts=attempts)

        async def look_up(number: int) -> object:
            def attempt(budget_ms: int, _: CallKind) -> Any:
                return attempted(number, budget_ms)

            return await retry_until_answered(attempt, 2_000, retry, further)

        async with asyncio.TaskGroup() as group:
            for number, gap_ms in enumerate(looks_ms):
                group.create_task(look_up(number))
                await asyncio.sleep(gap_ms / 1_000)

    run_in_virtual_time(look())
    assert max(calls.values()) <= worst.at_once
    extra = sum(calls.values()) - len(calls)
    assert extra <= max(10 * worst.least_per_s, len(calls) * worst.sustained_bps / 10_000)


def test_a_service_in_trouble_gets_its_share_of_further_attempts_only() -> None:
    """At a rate at which the share counts: 1,000 look-ups that all fail."""

    async def look() -> int:
        calls, further = 0, further_attempts()

        async def attempt(_: int, __: CallKind) -> str | Unanswered:
            nonlocal calls
            calls += 1
            return Unanswered(Unreachable("refused"))

        async with asyncio.TaskGroup() as group:
            for _ in range(1_000):
                group.create_task(retry_until_answered(attempt, 2_000, RetrySettings(), further))
        return calls

    assert run_in_virtual_time(look()) == 1_000 + 1_000 * FURTHER_BPS // 10_000
    assert 10 * FURTHER_PER_S < 1_000 * FURTHER_BPS / 10_000


class CountedService:
    """Engine and acquirer that know no payment, with the number of calls."""

    def __init__(self) -> None:
        self.calls = {"engine": 0, "acquirer": 0}

    async def look_up(self, *_: Any) -> NeverArrived:
        self.calls["engine"] += 1
        return NeverArrived()

    async def reverse(self, *_: Any, **__: Any) -> Sealed:
        self.calls["engine"] += 1
        return Sealed()

    async def result(self, *_: Any) -> NoOrder:
        self.calls["acquirer"] += 1
        return NoOrder()


async def test_a_look_that_reverses_makes_as_many_look_ups_as_the_plan_says() -> None:
    service = CountedService()
    ports = PaymentPorts(risk=cast(Any, service), engine=cast(Any, service), acquirer=cast(Any, service))
    policy = PaymentPolicy(AcceptSettings(), cast(Any, None), cast(Any, None), cast(Any, None))
    query, operation = StatusQuery(ports, 10, lambda: datetime.now(UTC)), Operation(policy, None)
    await query.query("pay_1", "o_1", operation)
    await query.reverse("pay_1", "o_1", None, operation)
    assert service.calls == LOOK_UPS
