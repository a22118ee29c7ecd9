"""Offers that payers share are those that each would have got alone."""

from __future__ import annotations

import gc
from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from cashier.domain.assembly import assemble, assemble_kind
from cashier.domain.consultation_case import ConsultationCase
from cashier.domain.facts import Channels, ChannelStatus
from cashier.domain.money import Money
from cashier.domain.offer import Offer
from cashier.domain.offered_kinds import MAX_SHARED, OfferedKinds
from cashier.domain.order import Product, Terminal
from cashier.domain.pay_method import Amounts, Kind, ReasonCode, Remedy, RemedyType
from cashier.domain.ranking import rank_offers
from cashier.domain.recurring_values import RecurringValues
from cashier.domain.shared_offers import SharedOffers
from tests.domain.builders import NOW, World, channel, merchant, order, promotion, quota, request
from tests.domain.world_strategies import BANKS, accounts, cards, promotions, quotas, silences, worlds

PLACES = [(Product.STANDARD_CASHIER, Terminal.APP)] * 3 + [(Product.SCAN, Terminal.POS), (Product.SCAN, Terminal.APP)]
MINUTE = timedelta(minutes=1)


def case_over(world: World, channels: Channels) -> ConsultationCase:
    facts = world.facts()
    return ConsultationCase(
        world.request,
        facts if "channel" in world.silent else structs.replace(facts, channel=channels),
        world.catalog,
        world.now,
    )


def everything(world: World, channels: Channels) -> Any:
    """All that a consultation and a recheck read."""
    case = case_over(world, channels)
    methods = rank_offers(case, assemble(case), world.weights)
    prices = [price for method in methods for price in (method.amount, *(each.amount for each in method.options))]
    return methods, [case.applying_values(price) for price in prices if isinstance(price, Amounts)]


@st.composite
def visits(draw: st.DrawFn) -> list[World]:
    """A payer who consults twice, and others who differ from this one in few respects."""
    shop = draw(worlds())
    currency = shop.order.amount.currency
    wallet_terms = structs.replace(shop.catalog.methods[Kind.WALLET], kyc_level=2)
    listed = st.sampled_from([Kind.WALLET, Kind.WALLET, Kind.CARD, Kind.NET_BANKING, Kind.OTC, Kind.INSTALMENT])
    maintained: dict[str, Any] = {"status": ChannelStatus.MAINTENANCE, "until": NOW + 30 * MINUTE}
    states = st.sampled_from([{}, {}, maintained])
    shop = shop.but(
        channels=(
            *shop.channels,
            *(channel(draw(listed), bank, f"x_{bank}", currency=currency, **draw(states)) for bank in BANKS),
        ),
        quotas=draw(st.sampled_from([(), shop.quotas])),
        request=structs.replace(shop.request, chosen_promotions=draw(st.sampled_from([None, None, ("p_1", "p_2")]))),
        catalog=structs.replace(shop.catalog, methods={**shop.catalog.methods, Kind.WALLET: wallet_terms}),
    )
    differences: dict[str, st.SearchStrategy[Any]] = {
        "order": st.builds(
            lambda value, minutes: structs.replace(
                shop.order, amount=Money(currency, value), expires_at=NOW + minutes * MINUTE
            ),
            st.sampled_from([shop.order.amount.value, 100, 101, 250]),
            st.sampled_from([60, 31, 29, 20, 1]),
        ),
        "now": st.sampled_from([NOW + MINUTE, NOW + 30 * MINUTE]),
        "merchant": st.just(merchant(kinds=frozenset({Kind.WALLET, Kind.NET_BANKING}))),
        "member": st.just(structs.replace(shop.member, kyc_level=1)),
        "request": st.builds(
            lambda place, locale, chosen: request(
                product=place[0], terminal=place[1], locale=locale, chosen_promotions=chosen
            ),
            st.sampled_from(PLACES),
            st.sampled_from([None, "zh-CN"]),
            st.sampled_from([None, ("p_0",), ("p_1", "p_2"), ()]),
        ),
        "promotions": st.one_of(
            st.just(shop.promotions[1:]),
            st.just(tuple(structs.replace(each, title="Another") for each in shop.promotions)),
            promotions(currency),
        ),
        "cards": cards(),
        "accounts": accounts(currency),
        "quotas": st.one_of(quotas(currency), st.just((quota(Kind.WALLET),))),  # the second sets no limit
        "silent": silences(),
    }
    others = []
    for _ in range(3):
        names = draw(st.sets(st.sampled_from(sorted(differences)), min_size=1, max_size=2))
        others.append(shop.but(**{name: draw(differences[name]) for name in sorted(names)}))
    return [shop, shop, *draw(st.permutations([shop, *others, *others]))]


@given(visits())
def test_every_payer_of_one_cashier_gets_the_offers_of_a_new_cashier(visits: list[World]) -> None:
    channels = Channels.prepared(visits[0].channels)
    for world in visits:
        assert everything(world, channels) == everything(world, Channels.prepared(world.channels))


SHOP = World(
    order=order(10_000),
    channels=(
        channel(Kind.QUICK_PAY, "CMB"),
        channel(Kind.WALLET, "ALIPAY"),
        channel(Kind.CARD, "ACQUIRER"),
        channel(Kind.OTC, "LAWSON"),
    ),
    promotions=(promotion("p_1", 500), promotion("p_2", 300, kinds=[Kind.WALLET])),
)


def wallet(world: World, channels: Channels) -> Offer:
    [offer] = assemble_kind(case_over(world, channels), Kind.WALLET)
    return offer


def test_the_second_payer_at_a_price_makes_the_offer_that_all_later_ones_share() -> None:
    channels = Channels.prepared(SHOP.channels)
    first, second, third = (wallet(SHOP.but(), channels) for _ in range(3))
    assert first == second
    assert first is not second
    assert second is third
    assert wallet(SHOP, Channels.prepared(SHOP.channels)) is not third


def test_only_the_kind_that_a_quota_limits_is_not_shared() -> None:
    channels = Channels.prepared(SHOP.channels)
    limited = SHOP.but(quotas=(quota(Kind.WALLET, single=1),))
    by_kind = [
        {offer.offered.kind: offer for offer in assemble(case_over(world, channels))}
        for world in (SHOP, SHOP, limited, limited)
    ]
    shared, another, again = by_kind[1:]
    assert another[Kind.CARD] is again[Kind.CARD] is shared[Kind.CARD]
    assert another[Kind.WALLET] is not again[Kind.WALLET]
    assert another[Kind.WALLET].quote.refusal is not None


def test_a_maintenance_that_ends_while_offers_are_shared_is_over_for_the_next_payer() -> None:
    maintained = channel(Kind.WALLET, "ALIPAY", status=ChannelStatus.MAINTENANCE, until=NOW + 30 * MINUTE)
    channels = Channels.prepared((maintained,))
    remedies = []
    for now in (NOW, NOW, NOW, NOW + 30 * MINUTE):
        refusal = wallet(SHOP.but(now=now), channels).quote.refusal
        assert refusal is not None
        remedies.append(refusal.remedy)
    assert remedies == [Remedy(RemedyType.WAIT_UNTIL, until=maintained.until)] * 3 + [Remedy(RemedyType.RETRY)]


def test_channels_of_one_fee_and_minimum_keep_their_own_maximum() -> None:
    channels = Channels.prepared((channel(Kind.WALLET, "A"), channel(Kind.WALLET, "B", most=9_000)))
    refused = [offer.quote.refusal for offer in assemble_kind(case_over(SHOP, channels), Kind.WALLET)]
    assert [refusal and refusal.code for refusal in refused] == [None, ReasonCode.ABOVE_SINGLE_LIMIT]


def test_facts_with_lists_for_sets_are_not_shared() -> None:
    """A function in this process may return them; no one checks facts that are structs already."""
    kinds: Any = list(Kind)
    listed = SHOP.but(merchant=merchant(kinds=kinds))
    channels = Channels.prepared(SHOP.channels)
    first, second, third = (wallet(listed, channels) for _ in range(3))
    assert first == second == third
    assert second is not third


def test_what_is_found_with_less_of_the_search_budget_left_is_not_shared_with_others() -> None:
    promotions = SHOP.case().promotions
    before = promotions.key
    promotions.best(frozenset({Kind.WALLET}), None, 9_500)
    assert promotions.key != before == SHOP.case().promotions.key


def test_shared_offers_hold_no_case_and_go_with_the_channels() -> None:
    """By reference counts: structs without garbage collection could not be freed from a cycle."""

    def count(kind: type) -> int:
        return sum(type(each) is kind for each in gc.get_objects())

    before = [count(SharedOffers), count(ConsultationCase), count(OfferedKinds)]
    gc.disable()
    try:
        channels = Channels.prepared(SHOP.channels)
        for _ in range(3):
            wallet(SHOP, channels)
        assert [count(SharedOffers), count(ConsultationCase)] == [before[0] + 1, before[1]]
        del channels
        assert [count(SharedOffers), count(ConsultationCase), count(OfferedKinds)] == before
    finally:
        gc.enable()


def test_values_are_made_for_keys_that_recur_and_are_few() -> None:
    values: RecurringValues[object] = RecurringValues(MAX_SHARED)
    kept = [values.find(key, object) for key in (0, 0, 0)]
    assert kept[0] is None
    assert kept[1] is kept[2] is not None
    for key in range(1, MAX_SHARED + 1):
        assert values.find(key, object) is None
    assert values.find(0, object) is kept[1]
    for key in range(1, MAX_SHARED + 1):
        assert values.find(key, object) is not None
    assert values.find(0, object) is None
    assert repr(values) == f"<RecurringValues: {MAX_SHARED} of {MAX_SHARED}>"


def test_a_key_with_the_hash_of_another_gets_no_value_of_it() -> None:
    values: RecurringValues[object] = RecurringValues(4)
    assert hash(-1) == hash(-2)
    values.find(-1, object)
    assert values.find(-1, object) is not None
    assert values.find(-2, object) is None
