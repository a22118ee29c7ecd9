"""The start of asks: when, with what, and which never start."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from cashier.fanout.ask import Ask, Importance, Known, OnOutcome, SourceStatus, Unasked
from cashier.fanout.plan import Plan
from cashier.fanout.scatter import Timing, scatter
from cashier.source_errors import Missing, MissingCause, Unreachable
from tests.fanout.scripted_sources import NEVER, AnswerMode, ScriptedSource, consult, enriching, gating, required

pytestmark = pytest.mark.virtual_time


def began_ms(source: ScriptedSource) -> float:
    [call] = source.calls
    return call.started_ms


async def test_all_asks_with_known_needs_start_in_one_loop_turn_required_first() -> None:
    log: list[str] = []

    class Logged(ScriptedSource):
        def start(self, *args: Any) -> Any:
            log.append(self.name)
            return super().start(*args)

    tips, card, order, member = (
        Logged(source.name, source.importance, needs=("user",), mode=AnswerMode.TASK)
        for source in (enriching("tips"), gating("card"), required("order"), required("member"))
    )
    asyncio.get_running_loop().call_soon(log.append, "the next turn")
    await consult(tips, card, order, member, known={"user": "u_1"})
    assert log == ["order", "member", "card", "tips", "the next turn"]


async def test_a_start_receives_the_known_values_the_headers_and_its_budget() -> None:
    card = gating("card", needs=("user",), timeout_ms=40)
    await consult(card, known={"user": "u_1"})
    [call] = card.calls
    assert (call.known, call.call_headers, call.budget_ms) == ({"user": "u_1"}, "headers", 40)


async def test_an_answer_starts_the_asks_that_need_it_at_once() -> None:
    order = required("order", gives={"currency": "CNY"}, after_ms=20)
    channel = gating("channel", needs=("currency",), after_ms=7)
    result = await consult(order, channel)
    assert began_ms(channel) == 20
    assert channel.calls[0].known == {"currency": "CNY"}
    assert result.answers == {"order": "order", "channel": "channel"}
    assert [(report.started_ms, report.elapsed_ms) for report in result.reports] == [(0, 20), (20, 7)]


async def test_an_ask_waits_for_the_last_of_the_names_it_needs() -> None:
    order = required("order", gives={"currency": "CNY", "title": "Tea"}, after_ms=20)
    member = required("member", gives={"country": "CN"}, after_ms=30)
    channel = gating("channel", needs=("currency", "title", "country"))
    await consult(order, member, channel)
    assert began_ms(channel) == 30


async def test_a_claim_is_used_at_once_and_not_replaced_by_an_answer() -> None:
    order = required("order", gives={"currency": "USD", "country": "US"}, after_ms=20)
    quota = gating("quota", needs=("currency",), after_ms=50)
    channel = gating("channel", needs=("currency", "country"))
    await consult(order, quota, channel, known={"currency": "CNY"})
    assert began_ms(quota) == 0
    assert channel.calls[0].known == {"currency": "CNY", "country": "US"}


async def test_the_mappings_of_a_started_ask_and_of_the_caller_do_not_change() -> None:
    received: list[Any] = []

    class Keeping(ScriptedSource):
        def start(self, known: Any, *args: Any) -> Any:
            received.append(known)
            return super().start(known, *args)

    given = {"user": "u_1"}
    order = required("order", gives={"currency": "CNY"}, after_ms=5)
    await consult(Keeping("card", order.importance, needs=("user",), after_ms=9), order, known=given)
    assert (received, given) == ([{"user": "u_1"}], {"user": "u_1"})


async def test_a_name_that_only_the_caller_could_give_is_not_waited_for() -> None:
    coupons = enriching("coupons", needs=("wallet",), gives={"discount": 1})
    cards = gating("cards", needs=("wallet", "discount"))
    order = required("order", after_ms=10)
    result = await consult(coupons, cards, order, inputs=["wallet"])
    assert result.answers == {
        "order": "order",
        "cards": Missing("cards", MissingCause.SKIPPED),
        "coupons": Missing("coupons", MissingCause.SKIPPED),
    }
    assert [(report.started_ms, report.elapsed_ms) for report in result.reports] == [(0, 10), (0, 0), (0, 0)]
    assert coupons.calls == cards.calls == []


@pytest.mark.parametrize("importance", Importance)
async def test_an_ask_that_lacks_a_need_ends_at_once_with_the_answer_that_needs_no_asking(
    importance: Importance,
) -> None:
    for needs in (("user",), ("user", "currency"), ("user", "wallet")):
        order = required("order", gives={"currency": "CNY"}, after_ms=10)
        member = ScriptedSource("member", importance, needs=needs, unasked=Unasked(None))
        result = await consult(member, order, inputs=["user", "wallet"])
        assert result.answers == {"order": "order", "member": None}
        assert result.failed_required == ()
        [report] = [report for report in result.reports if report.name == "member"]
        assert (report.status, report.started_ms, report.elapsed_ms) == (SourceStatus.SKIPPED, 0, 0)
        assert member.calls == []


async def test_an_ask_that_has_its_needs_is_not_spared_by_the_answer_that_needs_no_asking() -> None:
    silent = ScriptedSource(
        "member", Importance.REQUIRED, needs=("user",), after_ms=10, outcome=Unreachable("reset"), unasked=Unasked(None)
    )
    result = await consult(silent, known={"user": "u_1"}, inputs=["user"])
    assert result.failed_required == ("member",)
    assert result.answers == {"member": Missing("member", MissingCause.UNREACHABLE)}


async def test_a_need_whose_giver_fails_is_no_reason_to_leave_an_ask_unasked() -> None:
    order = gating("order", gives={"user": "u_1"}, after_ms=10, outcome=Unreachable("reset"))
    cards = ScriptedSource("cards", Importance.GATING, needs=("user",), unasked=Unasked("none"))
    result = await consult(order, cards)
    assert result.answers["cards"] == Missing("cards", MissingCause.SKIPPED)


async def test_a_failed_ask_skips_its_dependents_at_once_transitively() -> None:
    vault = gating("vault", gives={"bank": "CMB"}, after_ms=10, outcome=Unreachable("reset"))
    limits = gating("limits", needs=("bank",), gives={"cap": 1})
    advice = gating("advice", needs=("cap",))
    order = required("order", after_ms=30)
    result = await consult(vault, limits, advice, order)
    skipped = {report.name: (report.status, report.started_ms, report.elapsed_ms) for report in result.reports}
    assert [skipped["limits"], skipped["advice"]] == [(SourceStatus.SKIPPED, 10, 0)] * 2
    assert result.answers["advice"] == Missing("advice", MissingCause.SKIPPED)
    assert result.failed_required == ()


async def test_a_failed_ask_whose_names_are_claimed_skips_no_ask() -> None:
    vault = gating("vault", gives={"bank": "CMB"}, after_ms=10, outcome=Unreachable("reset"))
    limits = gating("limits", needs=("bank",), after_ms=20)
    result = await consult(vault, limits, known={"bank": "ICBC"})
    assert result.answers == {"vault": Missing("vault", MissingCause.UNREACHABLE), "limits": "limits"}


async def test_an_answer_that_reveals_less_skips_the_asks_that_need_the_rest() -> None:
    order = required(
        "order", gives={"currency": "CNY", "country": "CN"}, reveal=lambda answer: {"currency": "CNY"}, after_ms=10
    )
    channel = gating("channel", needs=("currency", "country"))
    mirror = gating("mirror", needs=("country", "currency"))
    quota = gating("quota", needs=("currency",), after_ms=10)
    result = await consult(order, channel, mirror, quota)
    assert result.answers["channel"] == Missing("channel", MissingCause.SKIPPED)
    assert result.answers["mirror"] == Missing("mirror", MissingCause.SKIPPED)
    assert result.answers["quota"] == "quota"


async def test_the_budget_is_the_rest_of_the_deadline_less_the_reserve_in_whole_ms() -> None:
    order = required("order", gives={"currency": "CNY"}, after_ms=20.4, timeout_ms=500)
    channel = gating("channel", needs=("currency",), timeout_ms=500)
    await consult(order, channel, deadline_ms=150, reserve_ms=5)
    assert (order.calls[0].budget_ms, channel.calls[0].budget_ms) == (145, 124)


@pytest.mark.parametrize(("left_ms", "starts"), [(1.5, True), (1, True), (0.99, False)])
async def test_an_ask_with_less_than_one_ms_left_does_not_start(left_ms: float, starts: bool) -> None:
    order = required("order", gives={"currency": "CNY"}, after_ms=20)
    channel = gating("channel", needs=("currency",), after_ms=0.25)
    result = await consult(order, channel, deadline_ms=20 + left_ms, reserve_ms=0)
    assert [call.budget_ms for call in channel.calls] == ([1] if starts else [])
    assert result.answers["channel"] == ("channel" if starts else Missing("channel", MissingCause.SKIPPED))


async def test_an_ask_that_starts_in_the_grace_has_the_grace_as_its_budget() -> None:
    order = required("order", after_ms=10)
    tips = enriching("tips", gives={"hint": 1}, after_ms=14.5)
    coupons = enriching("coupons", needs=("hint",), after_ms=NEVER)
    result = await consult(order, tips, coupons, grace_ms=15)
    assert coupons.calls[0].budget_ms == 10
    assert result.answers["coupons"] == Missing("coupons", MissingCause.TIMEOUT)
    assert result.reports[2].elapsed_ms == 10.5


async def test_after_the_deadline_no_ask_starts() -> None:
    order, card = required("order", mode=AnswerMode.AT_ONCE), gating("card")
    result = await consult(order, card, deadline_ms=3, reserve_ms=5)
    assert order.calls == card.calls == []
    assert result.answers == {
        "order": Missing("order", MissingCause.SKIPPED),
        "card": Missing("card", MissingCause.SKIPPED),
    }
    assert result.failed_required == ("order",)


async def test_answers_during_a_start_unblock_asks_in_the_same_loop_turn() -> None:
    chain = [required("s0", gives={"n0": 0}, mode=AnswerMode.AT_ONCE)]
    chain += [gating(f"s{i}", needs=(f"n{i - 1}",), gives={f"n{i}": i}, mode=AnswerMode.AT_ONCE) for i in range(1, 400)]
    result = await consult(*reversed(chain))
    assert list(result.answers.values()) == ["s0", *(f"s{i}" for i in range(399, 0, -1))]


def test_if_all_asks_end_during_their_start_it_neither_suspends_nor_needs_a_loop() -> None:
    def at_once(known: Known, call_headers: Any, budget_ms: int, done: OnOutcome) -> None:
        done(known["user"], SourceStatus.CACHED, 250)

    plan = Plan([Ask(importance.value, importance, ("user",), 100, at_once) for importance in Importance], ["user"])
    coroutine = scatter(plan, {"user": "u_1"}, None, deadline_ns=time.perf_counter_ns() + 10**12, timing=Timing(0, 0))
    with pytest.raises(StopIteration) as returned:
        coroutine.send(None)
    result = returned.value.value
    assert result.answers == {"REQUIRED": "u_1", "GATING": "u_1", "ENRICHING": "u_1"}
    assert {(report.status, report.age_ms) for report in result.reports} == {(SourceStatus.CACHED, 250)}
