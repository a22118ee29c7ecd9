"""The table of kinds and the cache of offered kinds."""

from __future__ import annotations

import importlib.util
from datetime import timedelta
from enum import StrEnum
from types import ModuleType
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from cashier.domain import assembly, channel_candidates, kinds, pay_method
from cashier.domain.assembly import assemble
from cashier.domain.consultation_case import ConsultationCase
from cashier.domain.facts import Channels, ChannelStatus, Facts
from cashier.domain.kinds import KINDS, InstrumentSource, KindRow, Listing, complete
from cashier.domain.money import Money
from cashier.domain.offered_kinds import MAX_CACHED
from cashier.domain.order import Product, Terminal
from cashier.domain.pay_method import Kind, PayMethod, Remedy, RemedyType
from cashier.domain.ranking import Weights, rank_offers
from tests.domain.builders import CATALOG, NOW, World, card, channel, one_of_each, order, request, with_terms
from tests.domain.world_strategies import CURRENCIES, worlds

LargerKind: Any = cast(Any, StrEnum)("LargerKind", [*((kind.name, kind.value) for kind in Kind), ("TERM", "TERM")])
FIELDS = structs.fields(KindRow)


def import_anew(module: ModuleType) -> None:
    assert module.__spec__ is not None
    assert module.__spec__.loader is not None
    module.__spec__.loader.exec_module(importlib.util.module_from_spec(module.__spec__))


def test_every_kind_has_a_row() -> None:
    assert set(KINDS) == set(Kind)


def test_a_kind_without_a_row_fails_at_import(monkeypatch: pytest.MonkeyPatch) -> None:
    import_anew(kinds)
    monkeypatch.setattr(pay_method, "Kind", LargerKind)
    with pytest.raises(LookupError, match=r"^domain\.kinds\.KINDS has no entry for TERM$"):
        import_anew(kinds)


@pytest.mark.parametrize("module", [assembly, channel_candidates], ids=lambda module: module.__name__)
def test_a_listing_without_a_function_fails_at_import(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    class LargerListing(StrEnum):
        PER_TERM = "PER_TERM"

    import_anew(module)
    members = [*Listing, *LargerListing]
    monkeypatch.setattr(kinds, "complete", lambda name, table, _: complete(name, table, members))
    name = module.__name__.removeprefix("cashier.")
    with pytest.raises(LookupError, match=f"^{name} has no entry for PER_TERM$"):
        import_anew(module)


@pytest.mark.parametrize("name", [field.name for field in FIELDS])
def test_a_row_without_one_of_its_fields_fails_and_names_it(name: str) -> None:
    row: dict[str, Any] = structs.asdict(KINDS[Kind.CONSUMER_QR])
    assert KindRow(**row) == KINDS[Kind.CONSUMER_QR]
    del row[name]
    with pytest.raises(TypeError, match=f"'{name}'"):
        KindRow(**row)


@pytest.mark.parametrize("kind", Kind)
def test_a_row_agrees_with_the_packaged_terms(kind: Kind) -> None:
    """`required_fields` of methods.toml names what the row's functions need from the payer."""
    row, required = KINDS[kind], CATALOG.methods[kind].required_fields
    assert ("option_id" in required) == (row.listing in (Listing.OPTION_PER_PROVIDER, Listing.TERM_PER_PROVIDER))
    assert ("card_token" in required) == (row.instrument_source is InstrumentSource.CARD_TOKEN)
    assert ("auth_code" in required) == (row.instrument_source is InstrumentSource.AUTH_CODE)


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
    ends = NOW + timedelta(minutes=30)
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
