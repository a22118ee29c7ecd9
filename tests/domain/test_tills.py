"""At a till only what the payer shows or confirms may be charged."""

from __future__ import annotations

from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET, structs

from cashier.domain.assembly import assemble, free_offer
from cashier.domain.channel_candidates import ChosenMethod, candidates
from cashier.domain.consultation_case import ConsultationCase
from cashier.domain.kinds import SHOWN_OR_CONFIRMED, InstrumentSource
from cashier.domain.order import Product, Terminal
from cashier.domain.pay_method import Availability, Kind, ReasonCode
from cashier.domain.ranking import rank_offers
from cashier.source_errors import MissingCause
from tests.domain.builders import CATALOG, World, account, member, one_of_each, order, promotion, request
from tests.domain.price_oracle import oracle
from tests.domain.test_price_oracle import price_worlds
from tests.domain.world_strategies import worlds

# Naming the payer is enough to charge them.
NAMED = {Kind.QUICK_PAY, Kind.AGREEMENT, Kind.BALANCE, Kind.CARD}
PLACES = list(product(Product, Terminal))
TILLS = [place for place in PLACES if Product.SCAN in place or Terminal.POS in place]
# A catalog that names each place, so that nothing but the rule refuses a kind there.
EVERYWHERE = structs.replace(
    CATALOG,
    methods={
        kind: structs.replace(terms, products=frozenset(Product), terminals=frozenset(Terminal), kyc_level=0)
        for kind, terms in CATALOG.methods.items()
    },
)


def at(world: World, place: tuple[Product, Terminal]) -> World:
    asked = request(product=place[0], terminal=place[1])
    return world.but(request=asked, order=structs.replace(world.order, product=place[0]), catalog=EVERYWHERE)


def test_each_source_of_an_instrument_is_decided() -> None:
    assert set(SHOWN_OR_CONFIRMED) == set(InstrumentSource)


@pytest.mark.parametrize("place", PLACES, ids="-".join)
def test_a_kind_that_needs_only_the_payers_name_is_refused_at_tills_and_nowhere_else(
    place: tuple[Product, Terminal],
) -> None:
    codes = {
        method.kind: None if method.reason is None else method.reason.code
        for method in at(one_of_each(), place).methods()
    }
    code = ReasonCode.TERMINAL_NOT_SUPPORTED if place[1] is Terminal.POS else ReasonCode.PRODUCT_NOT_SUPPORTED
    assert codes.keys() >= NAMED
    assert codes == {kind: code if kind in NAMED and place in TILLS else None for kind in codes}


@given(worlds(), st.sampled_from(TILLS))
def test_no_world_offers_a_named_payers_money_at_a_till(world: World, place: tuple[Product, Terminal]) -> None:
    here = at(world, place)
    case = here.case()
    for offer in assemble(case):
        if offer.offered.kind in NAMED:
            assert offer.quote.refusal is not None
            assert not candidates(case, ChosenMethod(offer.method_id)).channels
    for method in here.methods():
        assert method.availability is not Availability.AVAILABLE or (method.kind not in NAMED and not method.legs)


@pytest.mark.parametrize("place", TILLS, ids="-".join)
def test_a_balance_that_is_short_is_not_completed_by_a_card_at_a_till(place: tuple[Product, Terminal]) -> None:
    world = one_of_each(order=order(10_000), accounts=(account(4_000),))
    assert "BALANCE:b_1+QUICK_PAY" in at(world, (Product.STANDARD_CASHIER, Terminal.APP)).ids()
    assert "BALANCE:b_1+QUICK_PAY" not in at(world, place).ids()


@given(worlds(), st.sampled_from(TILLS), st.sampled_from([None, (), ("p_0", "p_1")]))
def test_no_promotion_of_a_named_member_pays_a_whole_order_at_a_till(
    world: World, place: tuple[Product, Terminal], chosen: tuple[str, ...] | None
) -> None:
    here = at(world, place)
    here = here.but(request=structs.replace(here.request, chosen_promotions=chosen))
    case = here.case()
    assert free_offer(case) is None or not here.order.amount.value
    for method in here.methods():
        for amount in (method.amount, *(option.amount for option in method.options)):
            assert amount is None or not amount.discounts or amount.payable.value
        listed = () if method.promotions is UNSET else method.promotions
        assert all(each.amount.value < here.order.amount.value for each in listed)


@settings(max_examples=2 * settings().max_examples)
@given(price_worlds(), st.sampled_from(TILLS))
def test_the_price_at_a_till_is_the_best_that_leaves_something_to_confirm(
    world: World, place: tuple[Product, Terminal]
) -> None:
    here = at(world.but(request=structs.replace(world.request, product=place[0], terminal=place[1])), place)
    here = here.but(request=structs.replace(here.request, chosen_promotions=world.request.chosen_promotions))
    expected = oracle(here)
    for method in here.methods():
        if method.kind not in NAMED:
            assert method.amount is not None
            wanted = expected[method.method_id]
            off = tuple((discount.promotion_id, discount.amount.value) for discount in method.amount.discounts)
            assert (method.amount.payable.value, method.amount.fee.value, off) == (
                wanted.payable,
                wanted.fee,
                wanted.off,
            )


def test_of_a_set_that_pays_all_the_best_rest_still_counts_at_a_till() -> None:
    coupons = (promotion("p_6", 6_000), promotion("p_5", 5_000), promotion("p_all", 10_000))
    world = at(one_of_each(promotions=coupons), (Product.SCAN, Terminal.POS))
    method = world.method("MERCHANT_QR:WECHAT")
    assert method.amount is not None
    assert [discount.promotion_id for discount in method.amount.discounts] == ["p_6"]
    assert method.promotions is not UNSET
    assert [(each.promotion_id, each.best) for each in method.promotions] == [("p_6", True), ("p_5", False)]


@given(worlds(), st.sampled_from(TILLS))
def test_a_till_reads_nothing_of_a_named_members_cards_and_accounts(
    world: World, place: tuple[Product, Terminal]
) -> None:
    """Whatever they hold, the till's answer is the same but for the number of methods and ids."""
    secret = {"bank": "SECRETBANK", "bank_name": "Secret Bank", "last4": "7391", "brand": "SECRETBRAND"}
    here = at(world, place).but(
        cards=tuple(structs.replace(each, **secret) for each in world.cards),
        accounts=tuple(
            structs.replace(each, available=structs.replace(each.available, value=7_391_739)) for each in world.accounts
        ),
    )
    for method in here.methods():
        if method.kind in NAMED:
            shown = msgspec.json.encode(structs.replace(method, amount=None)).decode().lower()
            assert "secret" not in shown
            assert "7391" not in shown
            assert method.limits is None


@given(worlds(), st.sampled_from([None, MissingCause.TIMEOUT]))
def test_a_walk_in_is_offered_what_a_member_with_nothing_is(world: World, channel: MissingCause | None) -> None:
    nothing: dict[str, Any] = dict.fromkeys(("cards", "agreements", "accounts", "quotas", "promotions", "boosts"), ())
    silent = {} if channel is None else {"channel": channel}
    here = world.but(**nothing, member=member(kyc_level=0), silent=silent)
    here = here.but(request=request(product=Product.SCAN, terminal=Terminal.POS))
    case = here.case()
    unknown = structs.replace(case.request, user_id=None)
    walk_in = ConsultationCase(unknown, structs.replace(here.facts(), member=None), here.catalog, here.now)
    assert rank_offers(walk_in, assemble(walk_in), here.weights) == rank_offers(case, assemble(case), here.weights)
