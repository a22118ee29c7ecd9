"""Order checks, promotions, scores and routes of an explanation."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from msgspec import structs

from cashier.domain.assembly import assemble
from cashier.domain.channel_record import ChannelRecord
from cashier.domain.explanation.explain import explain
from cashier.domain.explanation.schema import Explanation, Outcome, Result
from cashier.domain.facts import MemberStatus, MerchantStatus
from cashier.domain.order import Blocked, OrderStatus, Product, Terminal
from cashier.domain.pay_method import Kind
from cashier.domain.ranking import Weights, rank_offers, score_parts
from cashier.domain.routing import RouteReason
from cashier.source_errors import Missing, MissingCause
from tests.domain.builders import (
    NOW,
    World,
    card,
    channel,
    cny,
    member,
    merchant,
    one_of_each,
    order,
    promotion,
    request,
)
from tests.domain.explanation.evidence import evidence_of, explained, explained_method, judgement_of
from tests.domain.world_strategies import worlds

CARD = "QUICK_PAY:c_CMB"


def cards(**changes: Any) -> World:
    return World(cards=(card("CMB"),), channels=(channel(Kind.QUICK_PAY, "CMB"),)).but(**changes)


BLOCKS: dict[Blocked, tuple[str, dict[str, Any]]] = {
    Blocked.ORDER_MERCHANT_MISMATCH: ("ORDER_MERCHANT", {"order": order(merchant_id="m_2")}),
    Blocked.ORDER_USER_MISMATCH: ("ORDER_USER", {"order": order(user_id="u_2")}),
    Blocked.ORDER_PAID: ("ORDER_STATUS", {"order": order(status=OrderStatus.PAID)}),
    Blocked.ORDER_CLOSED: ("ORDER_STATUS", {"order": order(status=OrderStatus.REFUNDED)}),
    Blocked.ORDER_IN_PROGRESS: ("ORDER_STATUS", {"order": order(status=OrderStatus.PAYING)}),
    Blocked.ORDER_EXPIRED: ("ORDER_LIFETIME", {"order": order(expires_at=NOW)}),
    Blocked.AMOUNT_MISMATCH: ("CLAIMED_AMOUNT", {"request": request(amount=cny(5))}),
    Blocked.COUNTRY_MISMATCH: ("CLAIMED_COUNTRY", {"request": request(country="JP")}),
    Blocked.MERCHANT_SUSPENDED: ("MERCHANT_STATUS", {"merchant": merchant(status=MerchantStatus.SUSPENDED)}),
    Blocked.PRODUCT_NOT_CONTRACTED: ("MERCHANT_PRODUCT", {"merchant": merchant(products=frozenset())}),
    Blocked.USER_FROZEN: ("MEMBER_STATUS", {"member": member(status=MemberStatus.FROZEN)}),
    Blocked.USER_CLOSED: ("MEMBER_STATUS", {"member": member(status=MemberStatus.CLOSED)}),
}
ANSWERS: dict[Blocked, tuple[str, dict[str, Any]]] = {
    Blocked.MERCHANT_UNKNOWN: ("MERCHANT_KNOWN", {"merchant": None}),
    Blocked.USER_UNKNOWN: ("MEMBER_KNOWN", {"member": None}),
    Blocked.PRODUCT_MISMATCH: ("CLAIMED_PRODUCT", {"order": order(product=Product.EMBEDDED_CASHIER)}),
}


def results(why: Explanation) -> dict[str, Result]:
    return {check.rule: check.result for check in why.order_checks}


@pytest.mark.parametrize("blocked", Blocked)
def test_a_blocked_order_names_the_check_that_failed(blocked: Blocked) -> None:
    if blocked in BLOCKS:
        check, changes = BLOCKS[blocked]
        why = explained(cards(**changes))
    else:
        check, answers = ANSWERS[blocked]
        why = explained(cards(), **answers)
    assert (why.outcome, why.blocked, why.kinds) == (Outcome.BLOCKED, blocked, ())
    found = results(why)
    assert found[check] is Result.REFUSED
    before = list(found)[: list(found).index(check)]
    assert {found[each] for each in before} <= {Result.PASSED}


def test_several_failed_checks_are_all_named() -> None:
    why = explained(cards(order=order(expires_at=NOW), merchant=merchant(status=MerchantStatus.SUSPENDED)))
    failed = [check for check, result in results(why).items() if result is Result.REFUSED]
    assert failed == ["ORDER_LIFETIME", "MERCHANT_STATUS"]


@pytest.mark.parametrize("foreign", [{"merchant_id": "m_secret"}, {"user_id": "u_secret"}])
def test_nothing_of_a_foreign_order_is_disclosed(foreign: dict[str, str]) -> None:
    world = cards(order=order(777_123, status=OrderStatus.PAID, category="secret", title="secret", **foreign))
    why = explained(world)
    assert [check.rule for check in why.order_checks if check.result is Result.REFUSED] == [
        "ORDER_MERCHANT" if "merchant_id" in foreign else "ORDER_USER"
    ]
    assert {result for check, result in results(why).items() if check not in ("ORDER_MERCHANT", "ORDER_USER")} == {
        Result.NOT_REACHED
    }
    assert "secret" not in repr(why)
    assert "7771" not in repr(why)
    assert "PAID" not in repr(why)


def test_a_silent_required_source_is_no_answer_and_its_checks_are_undetermined() -> None:
    why = explained(cards(), merchant=Missing("merchant", MissingCause.TIMEOUT))
    assert why.outcome is Outcome.REQUIRED_SOURCE_UNAVAILABLE
    found = results(why)
    assert found["ORDER_STATUS"] is Result.PASSED
    assert found["MERCHANT_STATUS"] is Result.UNDETERMINED
    assert found["MEMBER_STATUS"] is Result.NOT_REACHED
    assert explained(cards(), order=Missing("order", MissingCause.TIMEOUT)).order_checks == ()
    assert explained(cards(), order=None).outcome is Outcome.ORDER_UNKNOWN


def test_a_walk_in_has_no_member_to_check() -> None:
    world = cards(order=order(user_id=None), request=request(user_id=None, product=Product.SCAN, terminal=Terminal.POS))
    assert not any(check.startswith("MEMBER") for check in results(explained(world, member=None)))


def codes(world: World, method_id: str = CARD) -> dict[str, str]:
    return {each.promotion_id: each.code for each in explained_method(world, method_id).promotions}


def test_each_promotion_of_the_order_says_whether_it_applies() -> None:
    promotions = (
        promotion("applies", 5),
        promotion("below", 5, threshold=10_001),
        promotion("foreign", 5, currency="JPY"),
        promotion("expired", 5, expires_at=NOW),
        promotion("worthless"),
    )
    why = explained(cards(promotions=promotions))
    assert {each.promotion_id: each.code for each in why.promotions} == {
        "applies": "APPLIES",
        "below": "BELOW_THRESHOLD",
        "foreign": "OTHER_CURRENCY",
        "expired": "EXPIRED",
        "worthless": "NO_VALUE",
    }
    chosen = explained(cards(promotions=promotions, request=request(chosen_promotions=())))
    assert chosen.promotions[0].code == "NOT_CHOSEN"


def test_each_promotion_says_why_a_method_does_not_use_it() -> None:
    promotions = (
        promotion("best", 500, group="g"),
        promotion("worse", 400, group="g"),
        promotion("alone", 300, stackable=False),
        promotion("balance", 200, kinds=(Kind.BALANCE,)),
        promotion("icbc", 200, banks=frozenset({"ICBC"})),
    )
    assert codes(cards(promotions=promotions)) == {
        "best": "USED",
        "worse": "SAME_GROUP",
        "alone": "NOT_STACKABLE",
        "balance": "OTHER_KIND",
        "icbc": "OTHER_BANK",
    }


def test_a_promotion_gives_way_to_a_channels_minimum_and_step() -> None:
    least = channel(Kind.QUICK_PAY, "CMB", least=9_000)
    assert codes(cards(channels=(least,), promotions=(promotion("too much", 1_001),))) == {
        "too much": "REMAINDER_TOO_SMALL"
    }
    stepped = channel(Kind.QUICK_PAY, "CMB", step=100)
    assert codes(cards(channels=(stepped,), promotions=(promotion("odd", 99),))) == {"odd": "BELOW_STEP"}


@given(worlds())
def test_the_promotions_used_are_the_discounts_of_the_price(world: World) -> None:
    for kind in explained(world).kinds:
        for why in kind.methods:
            used = {each.promotion_id: each.value for each in why.promotions if each.code == "USED"}
            amounts = world.method(why.method_id).amount
            discounts = {} if amounts is None else {each.promotion_id: each.amount for each in amounts.discounts}
            assert set(used) == set(discounts)


@given(worlds())
def test_the_parts_of_a_score_add_up_to_what_ranks(world: World) -> None:
    """With one weight at a time, the order by this part alone is that of the ranking."""
    weights = Weights(3_001, 503, 1_511, 10_007, 20_011, 2_003, 2_017, 4_001)
    case = world.case()
    offers = assemble(case)
    parts = score_parts(case, offers, weights)
    ranked = rank_offers(case, offers, weights)
    keys = [
        (list(type(each.availability)).index(each.availability), -sum(part.score for part in parts[each.method_id]))
        for each in ranked
    ]
    assert keys == sorted(keys)
    assert all(part.score == part.value_bps * part.weight for found in parts.values() for part in found)


def test_a_score_names_its_parts() -> None:
    world = cards(member=member((Kind.QUICK_PAY, 1), last_used=(Kind.QUICK_PAY, "c_CMB")))
    parts = {part.term: part.score for part in explained_method(world, CARD).parts or () if part.score}
    weights = Weights()
    assert parts == {
        "last_used": weights.last_used * 10_000,
        "usage": weights.usage * 10_000,
        "cost": -weights.cost * 30,
        "failure": -weights.failure * 100,
    }


def test_a_route_shows_the_rule_and_each_channel() -> None:
    channels = (
        channel(Kind.QUICK_PAY, "CMB", "cheap", cost_bps=10),
        channel(Kind.QUICK_PAY, "CMB", "dear", cost_bps=90),
    )
    world = cards(channels=channels)
    route = explained_method(world, CARD).route
    assert route is not None
    assert (route.channel_id, route.why, route.alternatives) == ("cheap", RouteReason.CHEAPEST, ("dear",))
    assert [each.matches for each in route.rules][-1] is True
    sick = structs.replace(judgement_of(world), records={"cheap": ChannelRecord(sick=True, sick_count=1)}, now_s=5)
    [found] = [
        each for kind in explain(evidence_of(world), sick).kinds for each in kind.methods if each.method_id == CARD
    ]
    assert found.route is not None
    assert found.route.channel_id == "dear"
    assert "(sick)" in found.route.sentence


def test_every_available_method_that_needs_a_channel_has_a_route() -> None:
    for kind in explained(one_of_each()).kinds:
        for why in kind.methods:
            routes = [why.route, *(option.route for option in why.options)]
            assert any(routes) is (kind.kind is not Kind.BALANCE)
