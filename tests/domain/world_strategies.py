"""Random worlds for properties.

Values are small, so bounds are often met exactly and names recur.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from msgspec import structs

from cashier.domain.facts import (
    Account,
    AccountType,
    Agreement,
    Boost,
    Card,
    CardStatus,
    CardType,
    Channel,
    ChannelStatus,
    InstalmentTerm,
    LastUsed,
    Member,
    Period,
    Promotion,
    Quota,
    Scope,
    Usage,
)
from cashier.domain.money import Currency, Money
from cashier.domain.order import ConsultRequest, Product, Terminal
from cashier.domain.pay_method import Kind
from cashier.source_errors import MissingCause
from tests.domain.builders import (
    CATALOG,
    NOW,
    OPTIONAL,
    World,
    account,
    agreement,
    card,
    channel,
    member,
    merchant,
    order,
    promotion,
    request,
)

CURRENCIES: tuple[Currency, ...] = ("CNY", "JPY", "KWD")
BANKS = ("CMB", "ICBC")
KINDS = st.sampled_from(Kind)


def optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), strategy)


def oddly(*oddities: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """No change in half of the draws, otherwise one of these."""
    return st.sampled_from([{}] * len(oddities) + list(oddities))


CHANNEL_ODDITIES = oddly(
    {"status": ChannelStatus.CLOSED},
    {"status": ChannelStatus.MAINTENANCE},
    {"status": ChannelStatus.MAINTENANCE, "until": NOW},
    {"status": ChannelStatus.MAINTENANCE, "until": NOW + timedelta(hours=1)},
    {"terminals": frozenset({Terminal.PC})},
    {"products": frozenset({Product.SCAN})},
    {"brands": frozenset({"VISA"})},
    {"card_types": frozenset({CardType.CREDIT})},
    {"currencies": frozenset({"USD"})},
    {"max": Money("USD", 10**6)},
    {"fixed_cost": Money("CNY", 50)},
    {"cost_bps": 10_000},
    {"success_bps": 0},
    {"success_bps": 8_999},
    {"step": 10},
    {"step": 7},
)
BOUNDS = st.sampled_from([(1, 10**6), (1, 10**6), (0, 10**6), (50, 200), (100, 10**6), (1, 100)])
# Cards need a channel of their bank, so most worlds have some.
CHANNEL_KINDS = st.sampled_from([Kind.QUICK_PAY] * 8 + [Kind.AGREEMENT] * 2 + list(Kind))
FEES_BPS = st.sampled_from([None, None, 0, 1, 150, 5_000, 10_000])


def terms(index: int, fee_bps: int) -> tuple[InstalmentTerm, ...]:
    """Of the channel with this index: the terms of two channels of one provider differ."""
    either = (InstalmentTerm("t_6", 6, fee_bps, 1_000 + index % 2), InstalmentTerm("t_3", 3, fee_bps // 2, 1_000))
    return either[: index % 4] if index % 4 < 2 else either


def channels(currency: Currency) -> st.SearchStrategy[tuple[Channel, ...]]:
    rows = st.lists(st.tuples(CHANNEL_KINDS, st.sampled_from(BANKS), BOUNDS, FEES_BPS, CHANNEL_ODDITIES), max_size=10)

    def built(found: list[Any]) -> tuple[Channel, ...]:
        return tuple(
            structs.replace(
                channel(kind, provider, f"ch_{index}", currency=currency, least=least, most=most),
                fee_bps=fee_bps,
                terms=terms(index, fee_bps or 0) if kind is Kind.INSTALMENT else None,
                **oddity,
            )
            for index, (kind, provider, (least, most), fee_bps, oddity) in enumerate(found)
        )

    return rows.map(built)


def promotions(
    currency: Currency, least: int = 0, most: int = 5, prefix: str = "p"
) -> st.SearchStrategy[tuple[Promotion, ...]]:
    values = st.one_of(
        st.integers(1, 150).map(lambda off: {"amount_off": Money(currency, off)}),
        st.sampled_from([{"percent_off_bps": bps} for bps in (333, 5_000, 10_000)]),
    )
    oddities = oddly(
        {"stackable": False},
        {"stackable": False, "kinds": frozenset({Kind.BALANCE, Kind.QUICK_PAY})},
        {"kinds": frozenset({Kind.BALANCE})},
        {"kinds": frozenset({Kind.BALANCE, Kind.QUICK_PAY})},
        {"kinds": frozenset({Kind.WALLET, Kind.VA})},
        {"banks": frozenset({"CMB"})},
        {"banks": frozenset({"CMB", "ICBC"})},
        {"banks": frozenset()},
        {"threshold": Money(currency, 100)},
        {"cap": Money(currency, 20)},
        {"cap": Money("USD", 20)},
        {"expires_at": NOW},
        {"expires_at": NOW + timedelta(days=1)},
    )
    rows = st.lists(st.tuples(values, st.sampled_from("ghi"), oddities), min_size=least, max_size=most)

    def built(found: list[Any]) -> tuple[Promotion, ...]:
        return tuple(
            structs.replace(promotion(f"{prefix}_{index}", currency=currency, group=group), **(worth | oddity))
            for index, (worth, group, oddity) in enumerate(found)
        )

    return rows.map(built)


def quotas(currency: Currency) -> st.SearchStrategy[tuple[Quota, ...]]:
    def sum_of(value: int) -> Money:
        return Money(currency, value)

    sums = st.sampled_from([0, 1, 50, 100, 200, 10**6]).map(sum_of)
    periods = optional(st.builds(Period, sums, sums))
    narrowed = oddly(
        {"bank": "CMB"},
        {"bank": "ICBC"},
        {"channel_id": "ch_0"},
        {"channel_id": "ch_1"},
        {"card_id": "c_0"},
        {"card_id": "x"},
    )
    scopes = st.builds(lambda kind, narrower: Scope(kind, **narrower), CHANNEL_KINDS, narrowed)
    return st.lists(st.builds(Quota, scopes, optional(sums), periods, periods), max_size=5).map(tuple)


def agreements(currency: Currency) -> st.SearchStrategy[tuple[Agreement, ...]]:
    oddities = oddly(
        {"merchant_id": "m_2"},
        {"status": "TERMINATED"},
        {"single_max": Money(currency, 100)},
        {"single_max": Money("USD", 100)},
    )
    rows = st.lists(st.tuples(st.integers(0, 5), oddities), max_size=2)
    return rows.map(
        lambda found: tuple(
            agreement(f"ch_{number}", f"a_{index}", **oddity) for index, (number, oddity) in enumerate(found)
        )
    )


def cards() -> st.SearchStrategy[tuple[Card, ...]]:
    oddities = oddly(
        {"status": CardStatus.FROZEN},
        {"status": CardStatus.UNBOUND},
        {"expiry": "2026-04"},
        {"expiry": "2026-05"},
        {"type": CardType.CREDIT},
        {"brand": "VISA"},
    )
    rows = st.lists(st.tuples(st.sampled_from(BANKS), oddities), max_size=3)
    return rows.map(
        lambda found: tuple(card(bank, f"c_{index}", **oddity) for index, (bank, oddity) in enumerate(found))
    )


def accounts(currency: Currency) -> st.SearchStrategy[tuple[Account, ...]]:
    oddities = oddly({"status": "FROZEN"}, {"type": AccountType.GIFT}, {"available": Money("USD", 10**6)})
    rows = st.lists(st.tuples(st.one_of(st.integers(1, 60), st.integers(0, 300)), oddities), max_size=2)
    return rows.map(
        lambda found: tuple(
            structs.replace(account(Money(currency, value), f"b_{index}"), **oddity)
            for index, (value, oddity) in enumerate(found)
        )
    )


@st.composite
def members(draw: st.DrawFn) -> Member:
    used = draw(st.lists(st.builds(Usage, KINDS, st.integers(0, 3)), max_size=4))
    last = draw(optional(st.builds(LastUsed, KINDS, st.sampled_from([None, "c_0", "b_0", "CMB"]))))
    return structs.replace(member(), kyc_level=draw(st.sampled_from([2] * 9 + [0])), usage=tuple(used), last_used=last)


def requests() -> st.SearchStrategy[ConsultRequest]:
    shops = [(Product.STANDARD_CASHIER, Terminal.APP)] * 4 + [(Product.SCAN, Terminal.POS)] * 2
    odd = [(Product.SCAN, Terminal.APP), (Product.STANDARD_CASHIER, Terminal.POS)]
    return st.builds(
        lambda place, locale: request(product=place[0], terminal=place[1], locale=locale),
        st.sampled_from(shops + odd),
        st.sampled_from([None, "zh-CN"]),
    )


def silences() -> st.SearchStrategy[dict[str, MissingCause]]:
    return st.dictionaries(st.sampled_from(OPTIONAL), st.sampled_from(MissingCause), max_size=3)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    currency = draw(st.sampled_from(CURRENCIES))
    odd, fee_bps = draw(KINDS), draw(st.sampled_from([0, 100]))
    changes: dict[str, Any] = draw(
        oddly({"offered": False}, {"products": frozenset({Product.SCAN})}, {"currencies": frozenset({"KWD"})})
    )
    terms = structs.replace(CATALOG.methods[odd], fee_bps=0 if odd is Kind.BALANCE else fee_bps, **changes)
    amount = Money(currency, draw(st.one_of(st.integers(0, 300), st.sampled_from([0, 1, 50, 100, 101, 200]))))
    left_s = draw(st.sampled_from([3_600] * 8 + [900, 60]))  # the slowest kinds need half an hour
    return World(
        order=order(amount, expires_at=NOW + timedelta(seconds=left_s)),
        merchant=merchant(
            kinds=draw(st.sampled_from([frozenset(Kind)] * 6 + [frozenset({Kind.BALANCE, Kind.QUICK_PAY})]))
        ),
        member=draw(members()),
        request=draw(requests()),
        cards=draw(cards()),
        agreements=draw(agreements(currency)),
        accounts=draw(accounts(currency)),
        channels=draw(channels(currency)),
        quotas=draw(quotas(currency)),
        promotions=draw(promotions(currency)),
        boosts=tuple(
            draw(st.lists(st.builds(Boost, KINDS, st.sampled_from([0, 300]), st.sampled_from("xy")), max_size=3))
        ),
        catalog=structs.replace(CATALOG, methods={**CATALOG.methods, odd: terms}),
    )
