"""At a till only what the payer shows or confirms may be charged."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from cashier.domain.assembly import assemble
from cashier.domain.channel_candidates import ChosenMethod, candidates
from cashier.domain.consultation_case import ConsultationCase
from cashier.domain.kinds import SHOWN_OR_CONFIRMED, InstrumentSource
from cashier.domain.order import Product, Terminal
from cashier.domain.pay_method import Availability, Kind, ReasonCode
from cashier.domain.ranking import rank_offers
from cashier.source_errors import MissingCause
from tests.domain.builders import CATALOG, World, account, member, one_of_each, order, request
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
        if offer.assessment.kind in NAMED:
            assert offer.quote.refusal is not None
            assert not candidates(case, ChosenMethod(offer.method_id)).channels
    for method in here.methods():
        assert method.availability is not Availability.AVAILABLE or (method.kind not in NAMED and not method.legs)


@pytest.mark.parametrize("place", TILLS, ids="-".join)
def test_a_balance_that_is_short_is_not_completed_by_a_card_at_a_till(place: tuple[Product, Terminal]) -> None:
    world = one_of_each(order=order(10_000), accounts=(account(4_000),))
    assert "BALANCE:b_1+QUICK_PAY" in at(world, (Product.STANDARD_CASHIER, Terminal.APP)).ids()
    assert "BALANCE:b_1+QUICK_PAY" not in at(world, place).ids()


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
