"""The plan: rejected plans, start order, and bounds on time and calls."""

from __future__ import annotations

import re
from typing import Any

import pytest
from msgspec import structs

from cashier.fanout.ask import Ask, AskCall, Importance, Known, OnOutcome, Unasked
from cashier.fanout.plan import Plan, latest_ends_ms, worst_calls, worst_time_ms

REQUIRED, GATING, ENRICHING = Importance.REQUIRED, Importance.GATING, Importance.ENRICHING


def never_started(known: Known, call_headers: Any, budget_ms: int, done: OnOutcome) -> AskCall | None:
    raise AssertionError("a plan starts nothing")


def ask(name: str, importance: Importance, needs: str = "", gives: str = "", timeout_ms: int = 100) -> Ask:
    given = tuple(gives.split())
    return Ask(name, importance, tuple(needs.split()), timeout_ms, never_started, given, dict if given else None)


def cashiers() -> list[Ask]:
    return [
        ask("marketing", ENRICHING, "user amount", timeout_ms=60),
        ask("order", REQUIRED, "order_id", "amount currency", timeout_ms=120),
        ask("channel", GATING, "currency", "fees", timeout_ms=40),
        ask("member", REQUIRED, "user", timeout_ms=80),
        ask("tariff", GATING, "fees", timeout_ms=30),
    ]


INPUTS = ("order_id", "user", "currency")


def test_the_start_order_is_required_gating_enriching_and_stable_within() -> None:
    assert [each.name for each in Plan(cashiers(), INPUTS).asks] == [
        "order",
        "member",
        "channel",
        "tariff",
        "marketing",
    ]


def test_the_plan_knows_which_ask_needs_which_name() -> None:
    plan = Plan(cashiers(), INPUTS)
    assert {name: [plan.asks[index].name for index in waiting] for name, waiting in plan.needed_by.items()} == {
        "amount": ["marketing"],
        "currency": ["channel"],
        "fees": ["tariff"],
    }
    assert {name: giver.name for name, giver in plan.giver_of.items()} == {
        "amount": "order",
        "currency": "order",
        "fees": "channel",
    }
    assert plan.essential_count == 4


def test_the_leading_asks_are_the_required_and_the_marked_ones() -> None:
    asks = [structs.replace(each, leading=each.name == "channel") for each in cashiers()]
    assert Plan(asks, INPUTS).leading == {"order", "member", "channel"}


def test_the_repr_of_a_plan_describes_its_asks() -> None:
    plan = Plan([ask("order", REQUIRED, "order_id", "amount"), ask("card", GATING)], ["order_id"])
    assert (
        repr(plan)
        == "Plan(order REQUIRED needs order_id gives amount in 100 ms, card GATING in 100 ms; inputs: order_id)"
    )
    assert repr(Plan([], [])) == "Plan(; inputs: none)"


@pytest.mark.parametrize(
    ("asks", "says"),
    [
        pytest.param([ask("card", GATING), ask("card", GATING)], "two asks are named card", id="same name"),
        pytest.param([ask("card", GATING, "user")], "card needs user, which no ask gives", id="no giver"),
        pytest.param([ask("card", GATING, timeout_ms=0)], "card has a timeout of 0 ms", id="no time"),
        pytest.param(
            [Ask("order", REQUIRED, (), 100, never_started, ("amount",))],
            "order gives amount but has no reveal",
            id="no reveal",
        ),
        pytest.param(
            [Ask("order", REQUIRED, (), 100, never_started, (), dict)],
            "order has a reveal but gives no names",
            id="no gives",
        ),
        pytest.param(
            [ask("order", REQUIRED, "", "amount"), ask("cart", GATING, "", "amount")],
            "order and cart both give amount",
            id="two givers",
        ),
        pytest.param([ask("order", REQUIRED, "id", "id")], "cycle: order (id) → order", id="needs itself"),
        pytest.param(
            [ask("z", GATING, "c"), ask("a", GATING, "y", "x"), ask("b", GATING, "x", "y c")],
            "cycle: b (x) → a (y) → b",
            id="cycle",
        ),
        pytest.param(
            [ask("tips", ENRICHING, "", "hint"), ask("order", REQUIRED, "hint")],
            "order is REQUIRED but needs hint",
            id="needs an enriching ask",
        ),
        pytest.param(
            [ask("tips", ENRICHING, "", "hint"), ask("card", GATING, "hint", "bank"), ask("order", REQUIRED, "bank")],
            "order is REQUIRED but needs bank",
            id="needs an enriching ask indirectly",
        ),
        pytest.param(
            [structs.replace(ask("card", GATING, "id", "bank"), unasked=Unasked(None))],
            "card gives bank, so it cannot be left unasked",
            id="gives unasked",
        ),
        pytest.param([ask("card", GATING, "id id")], "card names id twice", id="duplicate need"),
    ],
)
def test_an_invalid_plan_is_rejected_with_ask_and_name(asks: list[Ask], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        Plan(asks, ["id"])


def test_a_gating_ask_may_need_an_enriching_one_and_a_required_one_a_gating_one() -> None:
    plan = Plan([ask("tips", ENRICHING, "", "hint"), ask("card", GATING, "hint")], [])
    assert plan.essential_count == 1
    assert Plan([ask("card", GATING, "", "bank"), ask("order", REQUIRED, "bank")], []).essential_count == 2


def test_the_latest_end_of_an_ask_is_its_longest_chain() -> None:
    plan = Plan(cashiers(), INPUTS)
    assert latest_ends_ms(plan) == {"order": 120, "member": 80, "channel": 160, "tariff": 190, "marketing": 180}


def test_a_provided_name_is_not_waited_for() -> None:
    plan = Plan(cashiers(), INPUTS)
    assert latest_ends_ms(plan, provided=["currency"]) == {
        "order": 120,
        "member": 80,
        "channel": 40,
        "tariff": 70,
        "marketing": 180,
    }


@pytest.mark.parametrize(
    ("deadline_ms", "grace_ms", "provided", "worst_ms"),
    [
        pytest.param(1000, 50, (), 190, id="all have ended"),
        pytest.param(1000, 15, ("currency",), 135, id="the grace is over"),
        pytest.param(150, 15, (), 145, id="the deadline less the reserve"),
        pytest.param(3, 15, (), 0, id="no time at all"),
    ],
)
def test_the_worst_time_is_the_first_of_the_three_ends(
    deadline_ms: int, grace_ms: int, provided: tuple[str, ...], worst_ms: int
) -> None:
    plan = Plan(cashiers(), INPUTS)
    assert worst_time_ms(plan, deadline_ms=deadline_ms, grace_ms=grace_ms, reserve_ms=5, provided=provided) == worst_ms


def test_the_worst_number_of_calls_includes_hedges_and_retries() -> None:
    plan = Plan(cashiers(), INPUTS)
    assert worst_calls(plan) == 5
    assert worst_calls(plan, {"channel": 3, "marketing": 2}) == 8


def test_an_empty_plan_takes_no_time_and_no_calls() -> None:
    plan = Plan([], [])
    assert worst_time_ms(plan, deadline_ms=150, grace_ms=15, reserve_ms=5) == 0
    assert worst_calls(plan) == 0
