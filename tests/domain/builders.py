"""Builders of facts with defaults, so that a test names only what matters.

`World` combines them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct, structs

from cashier.domain.assembly import assemble
from cashier.domain.catalog import Catalog, Methods, Terms
from cashier.domain.consultation_case import ConsultationCase
from cashier.domain.facts import (
    Account,
    AccountType,
    Agreement,
    Balances,
    Boost,
    Card,
    Cards,
    CardStatus,
    CardType,
    Channel,
    Channels,
    ChannelStatus,
    Facts,
    InstalmentTerm,
    LastUsed,
    Marketing,
    Member,
    MemberStatus,
    Merchant,
    MerchantStatus,
    Period,
    Promotion,
    Quota,
    Quotas,
    Scope,
    Usage,
)
from cashier.domain.money import Currency, Money
from cashier.domain.order import ConsultRequest, Order, OrderStatus, Product, Terminal
from cashier.domain.pay_method import Kind, Option, PayMethod
from cashier.domain.ranking import Weights, rank_offers
from cashier.domain.wording import Texts
from cashier.settings.loader import packaged
from cashier.source_errors import Missing, MissingCause

NOW = datetime(2026, 5, 15, 12, 0, tzinfo=UTC)
OPTIONAL = ("card", "balance", "channel", "quota", "marketing")
EVERYWHERE = frozenset(Terminal)


CATALOG = Catalog(
    msgspec.convert(packaged("methods.toml"), Methods), msgspec.convert(packaged("texts.toml"), Texts), "en"
)


def with_terms(kind: Kind, **changes: Any) -> Catalog:
    """The packaged catalog with other terms for one kind."""
    terms: Terms = structs.replace(CATALOG.methods[kind], **changes)
    return structs.replace(CATALOG, methods={**CATALOG.methods, kind: terms})


def cny(value: int) -> Money:
    return Money("CNY", value)


def order(amount: Money | int = 10_000, **changes: Any) -> Order:
    return structs.replace(
        Order(
            order_id="o_1",
            merchant_id="m_1",
            user_id="u_1",
            status=OrderStatus.PENDING,
            amount=cny(amount) if isinstance(amount, int) else amount,
            product=Product.STANDARD_CASHIER,
            country="CN",
            category="books",
            title="Two books",
            expires_at=NOW + timedelta(hours=1),
        ),
        **changes,
    )


def merchant(**changes: Any) -> Merchant:
    return structs.replace(
        Merchant("m_1", "The shop", MerchantStatus.ACTIVE, "CN", frozenset(Product), frozenset(Kind), "5942"),
        **changes,
    )


def member(*usage: tuple[Kind, int], last_used: tuple[Kind, str] | None = None, **changes: Any) -> Member:
    used = tuple(Usage(kind, count) for kind, count in usage)
    last = None if last_used is None else LastUsed(*last_used)
    return structs.replace(Member("u_1", MemberStatus.ACTIVE, "CN", 2, used, last), **changes)


def request(**changes: Any) -> ConsultRequest:
    return structs.replace(
        ConsultRequest(
            order_id="o_1", user_id="u_1", merchant_id="m_1", product=Product.STANDARD_CASHIER, terminal=Terminal.APP
        ),
        **changes,
    )


def card(bank: str = "CMB", card_id: str | None = None, **changes: Any) -> Card:
    """An active debit card, by default `c_CMB`."""
    return structs.replace(
        Card(
            card_id or f"c_{bank}",
            bank,
            f"{bank} Bank",
            CardType.DEBIT,
            "UNIONPAY",
            "1014",
            "2031-05",
            CardStatus.ACTIVE,
        ),
        **changes,
    )


def agreement(channel_id: str = "AGREEMENT:UNIONPAY", agreement_id: str = "a_1", **changes: Any) -> Agreement:
    return structs.replace(Agreement(agreement_id, "m_1", channel_id, "ACTIVE"), **changes)


def account(available: Money | int, account_id: str = "b_1", **changes: Any) -> Account:
    held = cny(available) if isinstance(available, int) else available
    return structs.replace(Account(account_id, AccountType.BALANCE, "ACTIVE", held), **changes)


def channel(
    kind: Kind, provider: str, channel_id: str | None = None, *, least: int = 1, most: int = 5_000_000, **changes: Any
) -> Channel:
    """An open channel for `least` to `most` minor units, by default `QUICK_PAY:CMB` or alike."""
    currency: Currency = changes.pop("currency", "CNY")
    if kind is Kind.INSTALMENT:
        changes = {"terms": (InstalmentTerm("t_3", 3, 0, 0), InstalmentTerm("t_6", 6, 0, 0))} | changes
    return structs.replace(
        Channel(
            channel_id or f"{kind}:{provider}",
            kind,
            provider,
            f"{provider} Pay",
            ChannelStatus.OPEN,
            frozenset({currency}),
            Money(currency, least),
            Money(currency, most),
            30,
            9_900,
            EVERYWHERE,
        ),
        **changes,
    )


def promotion(
    promotion_id: str, off: int | None = None, *, percent_bps: int | None = None, **changes: Any
) -> Promotion:
    """A stackable discount for any kind and bank, in a group of its own."""
    currency: Currency = changes.pop("currency", "CNY")
    kinds = frozenset(changes.pop("kinds", ()))
    return structs.replace(
        Promotion(
            promotion_id,
            "COUPON",
            f"The promotion {promotion_id}",
            Money(currency, changes.pop("threshold", 0)),
            kinds,
            changes.pop("group", f"group of {promotion_id}"),
            changes.pop("stackable", True),
            None if off is None else Money(currency, off),
            percent_bps,
        ),
        **changes,
    )


def quota(
    kind: Kind,
    *,
    single: int | None = None,
    daily: tuple[int, int] | None = None,
    monthly: tuple[int, int] | None = None,
    currency: Currency = "CNY",
    **scope: str,
) -> Quota:
    """`daily` and `monthly`: the limit and the used part."""

    def period(pair: tuple[int, int] | None) -> Period | None:
        return None if pair is None else Period(Money(currency, pair[0]), Money(currency, pair[1]))

    return Quota(
        Scope(kind, **scope), None if single is None else Money(currency, single), period(daily), period(monthly)
    )


class World(Struct, frozen=True, kw_only=True):
    """The input of one consultation. `silent`: the sources without an answer, with the cause."""

    order: Order = order()
    merchant: Merchant = merchant()
    member: Member = member()
    request: ConsultRequest = request()
    cards: tuple[Card, ...] = ()
    agreements: tuple[Agreement, ...] = ()
    accounts: tuple[Account, ...] = ()
    channels: tuple[Channel, ...] = ()
    quotas: tuple[Quota, ...] = ()
    promotions: tuple[Promotion, ...] = ()
    boosts: tuple[Boost, ...] = ()
    silent: Mapping[str, MissingCause] = {}
    catalog: Catalog = CATALOG
    weights: Weights = Weights()
    now: datetime = NOW

    def __repr__(self) -> str:
        """All but the catalog, for the report of a failed property."""
        shown = (name for name in self.__struct_fields__ if name not in ("catalog", "weights", "now"))
        return f"World({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    def but(self, **changes: Any) -> World:
        return structs.replace(self, **changes)

    def facts(self) -> Facts:
        known = {
            "card": Cards("u_1", self.cards, self.agreements),
            "balance": Balances("u_1", self.accounts),
            "channel": Channels.prepared(self.channels),
            "quota": Quotas.prepared(self.quotas),
            "marketing": Marketing("u_1", self.promotions, self.boosts),
        }
        optional: dict[str, Any] = {
            name: Missing(name, self.silent[name]) if name in self.silent else fact for name, fact in known.items()
        }
        return Facts(self.order, self.merchant, self.member, **optional)

    def case(self) -> ConsultationCase:
        return ConsultationCase(self.request, self.facts(), self.catalog, self.now)

    def methods(self) -> tuple[PayMethod, ...]:
        case = self.case()
        return rank_offers(case, assemble(case), self.weights)

    def method(self, method_id: str) -> PayMethod:
        """The only method with this id."""
        [found] = [method for method in self.methods() if method.method_id == method_id]
        return found

    def ids(self) -> list[str]:
        """Best first."""
        return [method.method_id for method in self.methods()]

    def option(self, method_id: str, option_id: str) -> Option:
        [found] = [option for option in self.method(method_id).options if option.option_id == option_id]
        return found


def one_of_each(**changes: Any) -> World:
    """A world with one available method of each kind that charges something."""
    providers = {
        Kind.QUICK_PAY: "CMB",
        Kind.AGREEMENT: "UNIONPAY",
        Kind.CARD: "ACQUIRER",
        Kind.NET_BANKING: "ICBC",
        Kind.VA: "BCA",
        Kind.OTC: "ALFAMART",
        Kind.WALLET: "ALIPAY",
        Kind.MERCHANT_QR: "WECHAT",
        Kind.CONSUMER_QR: "WECHAT",
        Kind.INSTALMENT: "FLEXI",
    }
    anywhere = {kind: structs.replace(terms, products=None, terminals=None) for kind, terms in CATALOG.methods.items()}
    return World(
        cards=(card("CMB"),),
        agreements=(agreement(),),
        accounts=(account(50_000),),
        channels=tuple(channel(kind, provider) for kind, provider in providers.items()),
        catalog=structs.replace(CATALOG, methods=anywhere),
    ).but(**changes)
