"""The cache of offered kinds is transparent: used channels give the same answer as new ones."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from cashier.domain.assembly import assemble
from cashier.domain.consultation_case import ConsultationCase
from cashier.domain.facts import Channels, ChannelStatus, Facts
from cashier.domain.money import Money
from cashier.domain.offered_kinds import MAX_CACHED
from cashier.domain.order import Product, Terminal
from cashier.domain.pay_method import Kind, PayMethod, Remedy, RemedyType
from cashier.domain.ranking import Weights, rank_offers
from tests.domain.builders import CATALOG, NOW, World, card, channel, one_of_each, order, request, with_terms
from tests.domain.world_strategies import CURRENCIES, worlds

CATALOGS = (
    CATALOG,
    with_terms(Kind.QUICK_PAY, fee_bps=77, title={"en": "{last4:>6} of {bank_name}", "zh-CN": "{{{last4}}}"}),
    with_terms(Kind.WALLET, fee_bps=50, products=None, terminals=None, icon="other/{provider}"),
)
WEIGHTS = (Weights(), Weights(failure=0, down_below_bps=9_950), Weights(fluctuating_below_bps=9_950))


def rank_methods(world: World, facts: Facts) -> tuple[PayMethod, ...]:
    case = ConsultationCase(world.request, facts, world.catalog, world.now)
    return rank_offers(case, assemble(case), world.weights)


def circumstances() -> st.SearchStrategy[dict[str, Any]]:
    """Requests, catalogs, weights and times other than the world's."""
    return st.fixed_dictionaries(
        {
            "request": st.builds(
                lambda product, terminal, locale: request(product=product, terminal=terminal, locale=locale),
                st.sampled_from([Product.STANDARD_CASHIER, Product.SCAN]),
                st.sampled_from([Terminal.APP, Terminal.PC]),
                st.sampled_from([None, "zh-CN"]),
            ),
            "catalog": st.sampled_from([CATALOG, *CATALOGS]),
            "weights": st.sampled_from(WEIGHTS),
            "now": st.sampled_from([NOW, NOW + timedelta(minutes=30), NOW + timedelta(hours=2)]),
        }
    )


@given(
    worlds(),
    st.lists(
        st.tuples(circumstances(), st.sampled_from(CURRENCIES), st.sampled_from(["CN", "ID"])), min_size=1, max_size=6
    ),
)
def test_used_channels_give_the_same_answer_as_new_ones(world: World, others: list[Any]) -> None:
    kept = Channels.prepared(world.channels)
    for changes, currency, country in (*others, ({}, world.order.amount.currency, "CN"), others[0]):
        amount = Money(currency, world.order.amount.value)
        other = world.but(order=structs.replace(world.order, amount=amount, country=country), **changes)
        facts = other.facts()
        assert rank_methods(other, structs.replace(facts, channel=kept)) == rank_methods(other, facts)


NARROWED = structs.replace(
    CATALOG,
    methods={
        **CATALOG.methods,
        Kind.CARD: with_terms(Kind.CARD, products=frozenset({Product.STANDARD_CASHIER})).methods[Kind.CARD],
        Kind.VA: with_terms(Kind.VA, products=None, terminals=frozenset({Terminal.APP})).methods[Kind.VA],
        Kind.OTC: with_terms(Kind.OTC, products=None, countries=frozenset({"CN"})).methods[Kind.OTC],
    },
)


@pytest.mark.parametrize(
    "changes",
    [
        {"request": request(product=Product.SCAN)},
        {"request": request(terminal=Terminal.PC)},
        {"request": request(locale="zh-CN")},
        {"order": order(country="ID")},
        {"order": order(Money("JPY", 10_000))},
        {"catalog": with_terms(Kind.CARD, fee_bps=100)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_each_part_of_the_place_of_sale_counts_with_cached_channels(changes: dict[str, Any]) -> None:
    world = one_of_each(catalog=NARROWED)
    facts, other = world.facts(), world.but(**changes)
    before, after = rank_methods(world, facts), rank_methods(other, structs.replace(facts, order=other.order))
    assert after == other.methods()
    assert after != before
    assert rank_methods(world, facts) == before


def test_the_end_of_a_maintenance_takes_effect_with_cached_channels() -> None:
    ends = NOW + timedelta(hours=1)
    world = World(
        cards=(card(),), channels=(channel(Kind.QUICK_PAY, "CMB", status=ChannelStatus.MAINTENANCE, until=ends),)
    )
    facts = world.facts()
    for now, remedy in ((NOW, Remedy(RemedyType.WAIT_UNTIL, until=ends)), (ends, Remedy(RemedyType.RETRY))):
        [method] = rank_methods(world.but(now=now), facts)
        assert method.reason is not None
        assert method.reason.remedy == remedy


def test_the_number_of_cached_combinations_is_bounded() -> None:
    world = World(channels=(channel(Kind.WALLET, "A"),))
    facts = world.facts()
    assert isinstance(facts.channel, Channels)
    for number in range(3 * MAX_CACHED):
        country = f"{chr(65 + number // 26)}{chr(65 + number % 26)}"
        rank_methods(world, structs.replace(facts, order=structs.replace(world.order, country=country)))
        assert 0 < len(facts.channel.offered_kinds) <= MAX_CACHED


@pytest.mark.parametrize(
    "title",
    [
        "{last4}",
        "{bank_name} {last4}",
        "{last4}{last4} {type}",
        "{last4:>6}|{last4!r}",
        "{{{last4}}} {bank_name:_>12}",
        "x",
    ],
)
def test_a_card_is_titled_by_the_catalogs_template_for_any_bank_name(title: str) -> None:
    catalog = with_terms(Kind.QUICK_PAY, title={"en": title, "zh-CN": title})
    assert catalog.faults() == []
    for bank_name in ("CMB", "{last4}", "{", ""):
        world = World(cards=(card(bank_name=bank_name, last4="0042"),), catalog=catalog)
        [method] = [method for method in world.methods() if method.kind is Kind.QUICK_PAY]
        assert method.title == title.format(
            bank_name=bank_name, provider_name=bank_name, type="debit", last4="0042", account=""
        )
