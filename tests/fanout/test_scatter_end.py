"""The end of a scatter, and its reports of asks without an answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import pytest
import uvloop

from cashier.fanout.ask import SourceStatus
from cashier.fanout.scatter import ScatterResult, Timing, scatter
from cashier.source_errors import Garbled, Missing, MissingCause, Overloaded, SourceError, Unreachable, WrongIdentity
from tests.fanout.scripted_sources import NEVER, AnswerMode, consult, enriching, gating, plan_of, required
from tests.support.virtual_time import MS_NS, clock_ns, now_ms, timers_set

pytestmark = pytest.mark.virtual_time


async def test_it_ends_with_the_last_answer() -> None:
    result = await consult(required("order", after_ms=20), gating("card", after_ms=31), enriching("tips", after_ms=12))
    assert now_ms() == 31
    assert result.answers == {"order": "order", "card": "card", "tips": "tips"}
    assert [report.elapsed_ms for report in result.reports] == [20, 31, 12]


async def test_a_slow_coupon_does_not_hold_back_the_cards() -> None:
    result = await consult(
        required("order", after_ms=20), gating("card", after_ms=30), enriching("coupon", after_ms=99), grace_ms=15
    )
    assert now_ms() == 45
    assert result.answers["coupon"] == Missing("coupon", MissingCause.TIMEOUT)
    assert (result.reports[2].status, result.reports[2].elapsed_ms) == (SourceStatus.TIMEOUT, 45)


async def test_a_coupon_within_the_grace_is_used_and_ends_it() -> None:
    result = await consult(required("order", after_ms=20), enriching("coupon", after_ms=33), grace_ms=15)
    assert now_ms() == 33
    assert result.answers["coupon"] == "coupon"


async def test_a_failed_gating_ask_starts_the_grace_too() -> None:
    card = gating("card", after_ms=30, outcome=Unreachable("reset"))
    await consult(required("order", after_ms=20), card, enriching("coupon", after_ms=99), grace_ms=15)
    assert now_ms() == 45


async def test_the_grace_does_not_start_while_a_gating_ask_waits_for_an_enriching_one() -> None:
    tips = enriching("tips", gives={"hint": 1}, after_ms=60)
    card = gating("card", needs=("hint",), after_ms=10)
    result = await consult(required("order", after_ms=5), tips, card, grace_ms=15)
    assert now_ms() == 70
    assert result.answers["card"] == "card"


async def test_without_grace_an_enriching_answer_counts_only_if_it_came_before() -> None:
    ready, late = enriching("ready", mode=AnswerMode.AT_ONCE), enriching("late", after_ms=1)
    result = await consult(required("order", mode=AnswerMode.AT_ONCE), late, ready, grace_ms=0)
    assert now_ms() == 0
    assert result.answers == {"order": "order", "late": Missing("late", MissingCause.TIMEOUT), "ready": "ready"}


async def test_enriching_asks_that_an_answer_unblocks_start_before_the_grace_is_checked() -> None:
    order = required("order", gives={"amount": 1}, after_ms=10)
    coupons = [enriching(f"coupon{i}", needs=("amount",), mode=AnswerMode.AT_ONCE) for i in range(3)]
    result = await consult(order, *coupons, grace_ms=0)
    assert [result.answers[f"coupon{i}"] for i in range(3)] == ["coupon0", "coupon1", "coupon2"]


async def test_a_plan_of_enriching_asks_only_lasts_for_the_grace() -> None:
    result = await consult(enriching("tips", after_ms=NEVER), enriching("coupon", after_ms=14), grace_ms=15)
    assert now_ms() == 15
    assert result.answers == {"tips": Missing("tips", MissingCause.TIMEOUT), "coupon": "coupon"}


async def test_the_grace_does_not_outlast_the_deadline() -> None:
    await consult(
        required("order", after_ms=90),
        enriching("coupon", after_ms=NEVER, timeout_ms=500),
        deadline_ms=105,
        grace_ms=15,
    )
    assert now_ms() == 100


async def test_an_empty_plan_is_answered() -> None:
    assert (await consult()).answers == {}


async def test_it_returns_at_the_deadline_less_the_reserve_with_the_answers_so_far() -> None:
    order, card, quota = (
        required("order", after_ms=20),
        gating("card", after_ms=NEVER, timeout_ms=500),
        gating("quota", after_ms=60),
    )
    result = await consult(order, card, quota, enriching("coupon", after_ms=200), deadline_ms=150, reserve_ms=5)
    assert now_ms() == 145
    assert result.answers == {
        "order": "order",
        "card": Missing("card", MissingCause.TIMEOUT),
        "quota": "quota",
        "coupon": Missing("coupon", MissingCause.TIMEOUT),
    }
    assert result.failed_required == ()


async def test_asks_not_started_by_the_deadline_are_skipped() -> None:
    order = required("order", gives={"currency": "CNY"}, after_ms=NEVER, timeout_ms=500)
    channel, tariff = gating("channel", needs=("currency",), gives={"fee": 1}), required("tariff", needs=("currency",))
    result = await consult(order, channel, tariff, deadline_ms=100, reserve_ms=10)
    assert now_ms() == 90
    assert [result.answers[name] for name in ("order", "tariff", "channel")] == [
        Missing("order", MissingCause.TIMEOUT),
        Missing("tariff", MissingCause.SKIPPED),
        Missing("channel", MissingCause.SKIPPED),
    ]
    assert result.failed_required == ("order", "tariff")


async def test_an_ask_times_out_by_its_own_timeout_while_the_others_continue() -> None:
    card, quota = gating("card", after_ms=NEVER, timeout_ms=30), gating("quota", after_ms=80)
    seen: list[int] = []
    asyncio.get_running_loop().call_at(0.031, lambda: seen.append(card.calls[0].abandons))
    result = await consult(required("order", after_ms=20), card, quota)
    assert seen == [1]
    assert now_ms() == 80
    assert result.answers["card"] == Missing("card", MissingCause.TIMEOUT)
    assert result.reports[1].elapsed_ms == 30


async def test_the_timeout_of_an_ask_counts_from_its_own_start() -> None:
    order = required("order", gives={"currency": "CNY"}, after_ms=40, timeout_ms=50)
    slow = gating("slow", after_ms=NEVER, timeout_ms=90)
    channel = gating("channel", needs=("currency",), after_ms=NEVER, timeout_ms=30)
    result = await consult(order, slow, channel)
    ends = {report.name: report.started_ms + report.elapsed_ms for report in result.reports}
    assert ends == {"order": 40, "slow": 90, "channel": 70}


async def test_an_ask_that_starts_late_with_a_short_timeout_moves_the_timer_forward() -> None:
    order = required("order", gives={"currency": "CNY"}, after_ms=40)
    channel = gating("channel", needs=("currency",), after_ms=NEVER, timeout_ms=5)
    await consult(order, channel, deadline_ms=1000)
    assert now_ms() == 45


@pytest.mark.parametrize("silent", ["order", "merchant"])
async def test_a_required_ask_that_fails_ends_it_at_once(silent: str) -> None:
    order = required("order", after_ms=30, outcome=Unreachable("reset") if silent == "order" else None)
    merchant = required("merchant", after_ms=NEVER, timeout_ms=30 if silent == "merchant" else 100)
    result = await consult(
        order, merchant, gating("quota", after_ms=10), gating("card", after_ms=50), enriching("coupon", after_ms=50)
    )
    assert now_ms() == 30
    assert result.failed_required == (silent,)
    assert result.answers["quota"] == "quota"
    assert result.answers["card"] == Missing("card", MissingCause.SKIPPED)
    assert result.answers["coupon"] == Missing("coupon", MissingCause.SKIPPED)
    cut = {report.name: (report.status, report.started_ms, report.elapsed_ms) for report in result.reports}
    assert cut["card"] == (SourceStatus.SKIPPED, 0, 30)


async def test_a_required_ask_cut_off_by_another_failure_is_not_failed() -> None:
    order, merchant = required("order", after_ms=40), required("merchant", after_ms=30, outcome=Overloaded("429"))
    result = await consult(order, merchant)
    assert result.answers == {
        "order": Missing("order", MissingCause.SKIPPED),
        "merchant": Missing("merchant", MissingCause.OVERLOADED),
    }
    assert result.failed_required == ("merchant",)


async def test_required_asks_that_fail_together_are_listed_in_plan_order() -> None:
    early = required("early", after_ms=NEVER, timeout_ms=50)
    hub = required("hub", after_ms=NEVER, gives={"key": 1}, timeout_ms=50)
    needy = required("needy", needs=("key",))
    result = await consult(needy, early, hub)
    assert result.failed_required == ("needy", "early", "hub")


async def test_a_required_ask_that_fails_during_its_start_prevents_further_starts() -> None:
    order = required("order", mode=AnswerMode.AT_ONCE, outcome=Unreachable("breaker"))
    card = gating("card")
    result = await consult(order, card)
    assert card.calls == []
    assert result.answers == {
        "order": Missing("order", MissingCause.UNREACHABLE),
        "card": Missing("card", MissingCause.SKIPPED),
    }


async def test_a_conclusive_answer_ends_it_and_the_rest_is_skipped() -> None:
    order = required("order", gives={"currency": "CNY"}, after_ms=20, outcome="paid")
    merchant = required("merchant", after_ms=30)
    channel = gating("channel", needs=("currency",))
    result = await consult(order, merchant, channel, conclusive=lambda answers: answers.get("order") == "paid")
    assert now_ms() == 20
    assert channel.calls == []
    assert result.answers == {
        "order": "paid",
        "merchant": Missing("merchant", MissingCause.SKIPPED),
        "channel": Missing("channel", MissingCause.SKIPPED),
    }
    assert result.failed_required == ()
    assert [(report.status, report.started_ms, report.elapsed_ms) for report in result.reports] == [
        (SourceStatus.FRESH, 0, 20),
        (SourceStatus.SKIPPED, 0, 20),
        (SourceStatus.SKIPPED, 20, 0),
    ]


async def test_a_conclusive_answer_during_its_start_prevents_further_starts() -> None:
    order, card = required("order", mode=AnswerMode.AT_ONCE), gating("card")
    result = await consult(order, card, conclusive=lambda answers: True)
    assert card.calls == []
    assert result.answers == {"order": "order", "card": Missing("card", MissingCause.SKIPPED)}


async def test_a_conclusive_answer_is_not_revealed() -> None:
    def unreadable(answer: Any) -> Any:
        raise AssertionError("read")

    order = required("order", gives={"currency": "CNY"}, reveal=unreadable)
    result = await consult(order, required("channel", needs=("currency",)), conclusive=lambda answers: True)
    assert result.failed_required == ()


async def test_after_a_conclusive_answer_no_ask_times_out_in_the_same_loop_turn() -> None:
    order, merchant = required("order", after_ms=20), required("merchant", after_ms=NEVER, timeout_ms=20)
    result = await consult(order, merchant, conclusive=lambda answers: True)
    assert result.answers["merchant"] == Missing("merchant", MissingCause.SKIPPED)
    assert result.failed_required == ()


async def test_conclusive_is_called_after_each_required_answer_with_the_answers_so_far() -> None:
    answers_so_far: list[dict[str, Any]] = []

    def conclusive(answers: Mapping[str, Any]) -> bool:
        answers_so_far.append(dict(answers))
        return False

    order, member = required("order", after_ms=20), required("member", after_ms=40)
    card = gating("card", after_ms=10, outcome=Unreachable("reset"))
    await consult(order, member, card, gating("quota", after_ms=30), conclusive=conclusive)
    missing = Missing("card", MissingCause.UNREACHABLE)
    assert answers_so_far == [
        {"card": missing, "order": "order"},
        {"card": missing, "order": "order", "quota": "quota", "member": "member"},
    ]


@pytest.mark.parametrize(
    ("error", "why", "status"),
    [
        (Unreachable("no route"), MissingCause.UNREACHABLE, SourceStatus.ERROR),
        (Overloaded("503"), MissingCause.OVERLOADED, SourceStatus.ERROR),
        (Garbled("not JSON"), MissingCause.GARBLED, SourceStatus.GARBLED),
        (WrongIdentity("u_2"), MissingCause.WRONG_IDENTITY, SourceStatus.WRONG_IDENTITY),
    ],
)
@pytest.mark.parametrize("mode", AnswerMode)
async def test_an_error_becomes_a_missing_with_its_status(
    error: SourceError, why: MissingCause, status: SourceStatus, mode: AnswerMode
) -> None:
    result = await consult(required("order"), gating("card", outcome=error, status=SourceStatus.FRESH, mode=mode))
    assert result.answers["card"] == Missing("card", why)
    assert result.reports[1].status is status


@pytest.mark.parametrize(
    "why", [MissingCause.SHED, MissingCause.BREAKER_OPEN, MissingCause.SKIPPED, MissingCause.TIMEOUT]
)
async def test_a_guards_refusal_keeps_its_name_as_status(why: MissingCause) -> None:
    refusal = type("Refusal", (SourceError,), {"cause": why})("not called")
    result = await consult(required("order"), gating("card", outcome=refusal, mode=AnswerMode.AT_ONCE))
    assert result.answers["card"] == Missing("card", why)
    assert result.reports[1].status.value == why.value


async def test_a_report_has_status_age_and_times_to_a_hundredth_of_a_ms() -> None:
    order = required("order", gives={"currency": "CNY"}, after_ms=7.126)
    channel = gating("channel", needs=("currency",), after_ms=3.333, status=SourceStatus.STALE, age_ms=61_000)
    first, second = (await consult(order, channel)).reports
    assert (first.started_ms, first.elapsed_ms, first.status, first.age_ms) == (0.0, 7.13, SourceStatus.FRESH, 0)
    assert (second.started_ms, second.elapsed_ms, second.status, second.age_ms) == (
        7.13,
        3.33,
        SourceStatus.STALE,
        61_000,
    )


async def test_there_is_one_timer_at_a_time_and_none_if_all_asks_end_during_their_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    set_by_scatter: list[asyncio.TimerHandle] = []
    most = 0

    def counted(delay: float, callback: Any, *args: Any) -> asyncio.TimerHandle:
        nonlocal most
        timer = loop.call_at(loop.time() + delay, callback, *args)
        set_by_scatter.append(timer)
        alive = timers_set()
        most = max(most, sum(any(each is mine for each in alive) for mine in set_by_scatter))
        return timer

    monkeypatch.setattr(loop, "call_later", counted)
    await consult(required("order", mode=AnswerMode.AT_ONCE), gating("card", mode=AnswerMode.AT_ONCE))
    assert set_by_scatter == []
    order = required("order", gives={"currency": "CNY"}, after_ms=40)
    channel = gating("channel", needs=("currency",), after_ms=NEVER, timeout_ms=5)
    await consult(order, channel, gating("card", after_ms=NEVER, timeout_ms=20), enriching("coupon", after_ms=NEVER))
    assert now_ms() == 60
    assert most == 1
    assert len(set_by_scatter) <= 5


async def test_a_timer_that_fires_early_times_no_ask_out() -> None:
    """The clock is 3 % slower than the timers: each timer fires early."""

    def slow_clock() -> int:
        return clock_ns() * 97 // 100

    card = gating("card", after_ms=40, timeout_ms=40)
    result = await consult(
        required("order", after_ms=20), card, gating("quota", after_ms=NEVER, timeout_ms=60), clock=slow_clock
    )
    assert result.answers["card"] == "card"
    assert 60 <= result.reports[2].elapsed_ms < 62


@pytest.mark.looptime(False)
def test_on_uvloop_with_the_real_clock_it_does_not_end_early() -> None:
    """uvloop rounds its timers, and libuv may fire them a millisecond early.

    Asserts no upper bounds: a busy machine may be late."""
    card = gating("card", after_ms=NEVER, timeout_ms=7)
    order = required("order", mode=AnswerMode.AT_ONCE)
    plan = plan_of([order, card, gating("quota", after_ms=NEVER, timeout_ms=500)])

    async def ask() -> tuple[ScatterResult, int]:
        began_ns = time.perf_counter_ns()  # creating a loop may take as long as the card's timeout
        timing = Timing(grace_ns=0, reserve_ns=2 * MS_NS)
        result = await scatter(plan, {}, None, deadline_ns=began_ns + 150 * MS_NS, timing=timing)
        return result, time.perf_counter_ns() - began_ns

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result, took_ns = runner.run(ask())
    assert result.answers["card"] == Missing("card", MissingCause.TIMEOUT)
    assert 7 <= result.reports[1].elapsed_ms <= result.reports[2].elapsed_ms
    assert took_ns > 147 * MS_NS  # the last millisecond counts as the end


async def test_after_a_loop_stall_past_the_deadline_arrived_answers_are_used_and_no_ask_starts() -> None:
    """The clock jumps by a second at 30 ms, as in a blocked loop.

    Timers then fire after callbacks.
    """

    def jumping_clock() -> int:
        now_ns = clock_ns()
        return now_ns if now_ns < 30 * MS_NS else now_ns + 1_000 * MS_NS

    order, card = required("order", gives={"currency": "CNY"}, after_ms=20), gating("card", after_ms=NEVER)
    channel = gating("channel", needs=("currency",), gives={"fee": 1}, after_ms=15)
    fees = gating("fees", needs=("fee",))
    result = await consult(order, card, channel, fees, clock=jumping_clock)
    assert result.answers["order"] == "order"
    assert result.answers["channel"] == "channel"
    assert result.answers["fees"] == Missing("fees", MissingCause.SKIPPED)
    assert result.answers["card"] == Missing("card", MissingCause.TIMEOUT)
