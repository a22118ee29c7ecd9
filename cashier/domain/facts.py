"""Upstream answers as typed structs, and `Facts`: per source an answer or a `Missing`.

Upstream JSON is decoded into these structs. A required field that is absent or has another type
makes the answer invalid. Unused fields are not listed.

Lists of kinds, products and terminals hold plain strings: an upstream may know values that we do
not, and these are ignored like unknown fields. An unknown status of order, merchant or member makes
the answer invalid, because its meaning is unknown. So is the status of one card, account, agreement
or channel that is not among the known ones: that leaves the methods of this row undetermined.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from operator import attrgetter
from typing import Annotated, Any

from msgspec import Meta, Struct, field

from cashier.domain.money import BPS, MAX_VALUE, Money
from cashier.domain.order import Country, Id, Instant, Order
from cashier.domain.pay_method import Kind
from cashier.source_errors import Missing, MissingCause

Bps = Annotated[int, Meta(ge=0, le=BPS)]
# Far above any real offer, which has some six terms of at most five years.
MAX_INSTALMENTS = 120
MAX_TERMS = 16


class MerchantStatus(StrEnum):
    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"


class Merchant(Struct, frozen=True, gc=False):
    merchant_id: str
    name: str
    status: MerchantStatus
    country: Country
    products: frozenset[str]
    kinds: frozenset[str]
    mcc: str | None = None


class MemberStatus(StrEnum):
    ACTIVE = "ACTIVE"
    FROZEN = "FROZEN"
    CLOSED = "CLOSED"


class LastUsed(Struct, frozen=True, gc=False):
    kind: str
    instrument_id: str | None = None


class Usage(Struct, frozen=True, gc=False):
    kind: str
    count: Annotated[int, Meta(ge=0)]


class Member(Struct, frozen=True, gc=False):
    user_id: str
    status: MemberStatus
    country: Country
    kyc_level: int
    usage: tuple[Usage, ...]
    last_used: LastUsed | None = None


class CardType(StrEnum):
    DEBIT = "DEBIT"
    CREDIT = "CREDIT"


class CardStatus(StrEnum):
    """The known statuses of a card."""

    ACTIVE = "ACTIVE"
    FROZEN = "FROZEN"
    UNBOUND = "UNBOUND"


class Card(Struct, frozen=True, gc=False):
    """A bound card. `expiry`: the last month in which it is valid, `2031-05`.

    `bank_names`: by locale of the texts, where it is not `bank_name`.
    """

    card_id: str
    bank: str
    bank_name: str
    type: CardType
    brand: str
    last4: Annotated[str, Meta(pattern=r"^[0-9]{4}(?![\s\S])")]
    expiry: Annotated[str, Meta(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])(?![\s\S])")]
    status: str
    bank_names: dict[str, str] | None = None


# The usable status of agreements and accounts, and those known to end the use.
ACTIVE = "ACTIVE"
AGREEMENT_ENDED = frozenset(("TERMINATED", "SUSPENDED", "EXPIRED"))
ACCOUNT_BARRED = frozenset(("FROZEN", "CLOSED"))


class Agreement(Struct, frozen=True, gc=False):
    agreement_id: str
    merchant_id: str
    channel_id: str
    status: str
    single_max: Money | None = None


class Cards(Struct, frozen=True, gc=False):
    """A user's bound cards and signed agreements.

    Bounded far above real numbers, because every card is combined with every account.
    """

    user_id: str
    cards: Annotated[tuple[Card, ...], Meta(max_length=256)]
    agreements: Annotated[tuple[Agreement, ...], Meta(max_length=256)]


class AccountType(StrEnum):
    BALANCE = "BALANCE"
    MONEY_FUND = "MONEY_FUND"
    GIFT = "GIFT"


class Account(Struct, frozen=True, gc=False):
    account_id: str
    type: AccountType
    status: str
    available: Money


class Balances(Struct, frozen=True, gc=False):
    user_id: str
    accounts: Annotated[tuple[Account, ...], Meta(max_length=32)]


class Promotion(Struct, frozen=True, gc=False):
    """A discount on offer; `promotion` has the rules. Empty `kinds`: any kind."""

    promotion_id: str
    type: str
    title: str
    threshold: Money
    kinds: frozenset[str]
    group: str
    stackable: bool
    amount_off: Money | None = None
    percent_off_bps: Bps | None = None
    cap: Money | None = None
    banks: frozenset[str] | None = None
    expires_at: Instant | None = None


class Boost(Struct, frozen=True, gc=False):
    kind: str
    weight_bps: Bps
    label: str


class Marketing(Struct, frozen=True, gc=False):
    user_id: str
    promotions: tuple[Promotion, ...]
    boosts: tuple[Boost, ...]


class ChannelStatus(StrEnum):
    """The known statuses of a channel."""

    OPEN = "OPEN"
    CLOSED = "CLOSED"
    MAINTENANCE = "MAINTENANCE"


class InstalmentTerm(Struct, frozen=True, gc=False):
    """A way to pay by instalments.

    `fee_bps`: the payer's, on what the channel carries. `apr_bps`: the annual rate to be shown.
    """

    term_id: Id
    count: Annotated[int, Meta(ge=2, le=MAX_INSTALMENTS)]
    fee_bps: Bps
    apr_bps: Annotated[int, Meta(ge=0, le=10 * BPS)]


class Channel(Struct, frozen=True, gc=False):
    """A payment channel. `min` and `max` bound the amount that it carries, fee included.

    It carries only multiples of `step` minor units. `cost_bps` and `fixed_cost` are ours, `fee_bps`
    is the payer's. `terms`: of instalments, each with its own fee. `provider_names`: by locale of
    the texts, where it is not `provider_name`.
    """

    channel_id: str
    kind: str
    provider: str
    provider_name: str
    status: str
    currencies: frozenset[str]
    min: Money
    max: Money
    cost_bps: Bps
    success_bps: Bps
    terminals: frozenset[str]
    until: Instant | None = None
    fixed_cost: Money | None = None
    fee_bps: Bps | None = None
    products: frozenset[str] | None = None
    brands: frozenset[str] | None = None
    card_types: frozenset[str] | None = None
    step: Annotated[int, Meta(ge=1, le=MAX_VALUE)] = 1
    terms: Annotated[tuple[InstalmentTerm, ...], Meta(max_length=MAX_TERMS)] | None = None
    provider_names: dict[str, str] | None = None

    def name_in(self, locale: str) -> str:
        """The provider's name for readers of this locale."""
        names = self.provider_names
        return self.provider_name if names is None else names.get(locale) or self.provider_name


class UnratedChannel(Channel, frozen=True):
    """A channel without a stated success rate.

    `success_bps` is assumed, for comparisons. It is no news about this channel, so the channel's
    health follows from its status alone.
    """


class Channels(Struct, frozen=True):
    """The channel gateway's answer, indexed by kind and provider, and by id.

    `offered_kinds`: cache of `offered_kinds.offered_kinds`, which also bounds it.
    """

    by_kind: dict[str, dict[str, list[Channel]]]
    by_id: dict[str, Channel]
    offered_kinds: dict[tuple[str, ...], Any] = field(default_factory=dict)

    @staticmethod
    def prepared(channels: Iterable[Channel]) -> Channels:
        """Index channels in any order. All lists are sorted by id."""
        by_kind: dict[str, dict[str, list[Channel]]] = {}
        by_id: dict[str, Channel] = {}
        for channel in sorted(channels, key=_channel_id):
            by_id[channel.channel_id] = channel
            by_kind.setdefault(channel.kind, {}).setdefault(channel.provider, []).append(channel)
        return Channels(by_kind, by_id)


_channel_id = attrgetter("channel_id")


class Scope(Struct, frozen=True, gc=False):
    """The payments that a quota covers. A field that is None narrows nothing."""

    kind: str
    bank: str | None = None
    channel_id: str | None = None
    card_id: str | None = None


class Period(Struct, frozen=True, gc=False):
    limit: Money
    used: Money


class Quota(Struct, frozen=True, gc=False):
    scope: Scope
    single: Money | None = None
    daily: Period | None = None
    monthly: Period | None = None


class Quotas(Struct, frozen=True):
    """The quotas of one user in one currency, indexed by kind and bank of their scope.

    Bank None: every bank. `unclear`: those of an unknown kind or without any limit. Each of them
    may stand for a limit that refuses, so the methods in its scope are undetermined.
    """

    by_kind: dict[str, dict[str | None, list[Quota]]]
    unclear: tuple[Quota, ...] = ()

    @staticmethod
    def prepared(quotas: Iterable[Quota]) -> Quotas:
        by_kind: dict[str, dict[str | None, list[Quota]]] = {}
        unclear: tuple[Quota, ...] = ()
        for quota in quotas:
            kind = quota.scope.kind
            if kind not in _KINDS or not (quota.single or quota.daily or quota.monthly):
                unclear += (quota,)
            else:
                by_kind.setdefault(kind, {}).setdefault(quota.scope.bank, []).append(quota)
        return Quotas(by_kind, unclear)


_KINDS = frozenset(Kind)
_NOT_CONFIGURED = Missing("", MissingCause.NOT_CONFIGURED)


class Facts(Struct, frozen=True):
    """The facts of one consultation, by source.

    Without those of the REQUIRED sources there is none. Only those of ENRICHING sources have a
    default, for configurations that leave the source out. `member`: None for a walk-in.
    """

    order: Order
    merchant: Merchant
    member: Member | None
    card: Cards | Missing
    balance: Balances | Missing
    channel: Channels | Missing
    quota: Quotas | Missing
    marketing: Marketing | Missing = _NOT_CONFIGURED
